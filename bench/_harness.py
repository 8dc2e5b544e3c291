"""What every benchmark shares: rounds that alternate between systems, fresh folders on one disk, medians, ratios, the machine."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.servers.process import Missing, Server

S = TypeVar("S", bound=Server)

MISSING = 3
"""The exit code of a benchmark whose server is not installed."""
BODY = "says what agents say when they plan a trip, at some length and with few surprises; "


def message(role: str, number: int) -> dict[str, str]:
    """A message of about 400 bytes of JSON, not quite like the one before."""
    return {"role": role, "content": f"{number:08d} {role} " + (BODY * 5)[:345]}


def turn(number: int) -> list[dict[str, str]]:
    """What one turn stores: a user's message and an agent's, 400 bytes each."""
    return [message("user", number), message("assistant", number)]


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, on the disk of the working folder unless TMPDIR says otherwise."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR") or ".", prefix=".bench-") as place:
        yield Path(place)


def alternate(systems: Mapping[str, Callable[[Path], float]], rounds: int) -> dict[str, float]:
    """The median figure of each system, measured in turn: A B C A B C …."""
    figures: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, measure in systems.items():
            with folder() as place:
                figures[name].append(measure(place))
    return {name: statistics.median(found) for name, found in figures.items()}


def processor_time(measure: Callable[[Path], object], turns: int) -> Callable[[Path], float]:
    """Microseconds of processor time a turn, in all threads, opening and closing included: what else the machine does moves it little."""

    def measured(place: Path) -> float:
        gc.collect()  # What another system left is not counted here.
        start = time.process_time()
        measure(place)
        return (time.process_time() - start) / turns * 1e6

    return measured


def sync_microseconds() -> float:
    """The median time of a 4 KiB write and its sync on the disk that is measured."""
    times = []
    with folder() as place, (place / "probe").open("wb") as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Print rows as Markdown; the first is the header."""
    print(f"\n### {title}\n")
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |")
        if number == 0:
            print("|" + " --- |" * len(row))


def versus(title: str, unit: str, figures: Mapping[str, float]) -> None:
    """Print one table: what other systems do, and Perdure, in times of each."""
    mine = figures["Perdure"]
    table(title, [(unit, "", "Perdure is"), *[(name, f"{figure:,.0f}", f"{mine / figure:.2f} x") for name, figure in figures.items()]])


def served(kind: Callable[[Path], S], measure: Callable[[S], Coroutine[Any, Any, float]]) -> Callable[[Path], float]:
    """The measurement beside a server of its own, which is started for it."""

    def measured(place: Path) -> float:
        server = kind(place)
        server.start()
        try:
            return asyncio.run(measure(server))
        finally:
            server.stop()

    return measured


def disk_bytes(place: Path) -> int:
    """Bytes that the files below a folder take on the disk, in whole blocks."""
    return sum(path.stat().st_blocks * 512 for path in place.rglob("*") if path.is_file())


def machine() -> None:
    """Say what was measured on."""
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{system}, SQLite {apsw.sqlite_lib_version()}, write and sync of 4 KiB {sync_microseconds():.0f} µs")


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; one whose server is not installed says how to install it, and ends with the code `MISSING`."""
    try:
        main()
    except Missing as missing:
        print(missing, file=sys.stderr)
        sys.exit(MISSING)


def small() -> bool:
    """Whether to run at the size for tests."""
    return "--small" in sys.argv
