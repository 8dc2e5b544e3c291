"""The adapters' benchmarks in one run, and one table of their figures: frameworks' own stores beside Perdure's, on one disk.

Each framework has a process of its own, so that none pays for what another imported.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from _harness import machine, table

HERE = Path(__file__).parent


def rows(text: str) -> Iterator[tuple[str, ...]]:
    """What all tables of a benchmark say, as rows of: what, system, figure, Perdure's ratio to it."""
    title, header = "", [""]
    for line in text.splitlines():
        if line.startswith("### "):
            title, header = line.removeprefix("### "), []
        elif line.startswith("|") and not line.startswith("| ---"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not header:
                header = cells
            elif header[1] == "Perdure":  # a row is a measure, a column is a system
                yield f"{title}, {cells[0]}", header[1], cells[1], ""
                yield f"{title}, {cells[0]}", header[2], cells[2], cells[3]
            else:  # a row is a system
                yield f"{title}, {header[0]}", *cells


def main() -> None:
    """Run them all, with the same options, and print the table."""
    machine()
    found: list[tuple[str, ...]] = [("what", "system", "figure", "Perdure is")]
    for path in sorted(HERE.glob("adapters_*.py")):
        print(f"{path.stem} …", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(path), *sys.argv[1:]], stdout=subprocess.PIPE, text=True, check=True)
        found += rows(done.stdout)
    table("Adapters", found)


if __name__ == "__main__":
    sys.exit(main())
