"""Make golden stores with the code as it is: `python -m tests.support.golden.make schema1 [NAME ...]`.

A golden store is made once for each schema version and never again: it is what that version wrote. This refuses to replace one. What they
hold is the same on every engine, so there is one expectation for all: `expected.json`, which SQLite's store is asked for.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import perdure
from tests.support.golden import content, places
from tests.support.golden.expectation import observed
from tests.support.golden.stores import GOLDEN, Golden


def make(golden: Golden, folder: Path, scratch: Path) -> Path:
    """Write one store on a server of its own, and keep its dump; its file."""
    file = golden.file(folder)
    if file.exists():
        raise SystemExit(f"{file} is there: a golden store is what its version wrote, and is not made again.")
    server = golden.server(scratch / "server") if golden.server else None
    try:
        if server is not None:
            server.start()
        place = golden.place(server, scratch)
        asyncio.run(content.write(place.url))
        places.keep(file, place.dump())
        if golden.name == "sqlite":
            said = asyncio.run(_said(place.url))
            (folder / "expected.json").write_text(json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    finally:
        if server is not None:
            server.stop()
    return file


async def _said(url: str) -> dict[str, Any]:
    async with perdure.open(url, create=False) as store:
        return await observed(store)


def main(version: str, names: Sequence[str]) -> None:
    """Make these stores, or all."""
    for golden in GOLDEN:
        if not golden.layout and golden.name in (names or [golden.name]):
            with tempfile.TemporaryDirectory() as scratch:
                file = make(golden, places.FOLDER / version, Path(scratch))
            print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
