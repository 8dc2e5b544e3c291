"""`perdure bench`: this machine and this engine, beside bare SQLite that writes the same rows with the same syncs."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec

import perdure
import perdure.sync
from perdure.backends.sqlite.schema import connect, initialise, parse_url
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import UsageError
from perdure.cli.output.terminal import Column
from perdure.clock import SystemClock
from perdure.model.events import Event

SESSIONS = 64
"""Sessions at once, and rows in a batch of bare SQLite."""
ROUNDS = 3
"""Each work is measured so often, in turn with its rival; medians count."""
SYNC_BYTES = 4096
"""What one plain write and fsync puts into a file."""
MESSAGES = tuple(
    Event("message", {"role": role, "content": f"{role}: " + "Lisbon from the ninth, two nights, window seat, under 300. " * 6})
    for role in ("user", "assistant")
)
"""A turn: one commit with two messages of about 400 bytes."""
INSERT = (
    "INSERT INTO log (n, version, hash, at, epoch, status, data, id, kind, key, request, meta, body) "
    "SELECT ?1, ?2, hash, at + ?2, epoch, status, ?2, id, kind, key, request, meta, body FROM temp.sample"
)


class BenchRow(msgspec.Struct, frozen=True):
    """One work, done by Perdure and by its rival, in turn, on the same disk."""

    work: str
    """What was done."""
    unit: str
    """turns/s: more is better; microseconds (a turn, median): less is better."""
    perdure: float
    """Perdure's median over the rounds."""
    rival: str
    """What it is compared with."""
    bare: float
    """The rival's median over the rounds."""
    ratio: float
    """perdure / bare."""


COLUMNS: tuple[Column[BenchRow], ...] = (
    Column("work", lambda row: row.work, share="wrap"),
    Column("perdure", lambda row: f"{row.perdure:,.0f}", style="cyan", justify="right"),
    Column("bare", lambda row: f"{row.bare:,.0f}", justify="right"),
    Column("unit", lambda row: row.unit),
    Column("ratio", lambda row: f"{row.ratio:.2f}", style="bold", justify="right"),
    Column("bare is", lambda row: row.rival, share="wrap"),
)


def bench(folder: Path | None = None, /, *, seconds: float = 1.0, common: Common = COMMON) -> None:
    """Measure durable turns, a turn being one commit with two messages of 400 bytes, against bare SQLite.

    Files are made in a folder of their own and removed. Numbers of a shared or busy machine are worth little: compare the ratios.

    Parameters
    ----------
    folder
        Where to write, and so which disk to measure; without it, the working folder.
    seconds
        How long each of the measurements takes; there are 21.
    """
    where = Path.cwd() if folder is None else folder
    if not where.is_dir():
        raise UsageError(f"The folder {str(where)!r} does not exist.")
    if not 0 < seconds <= 600:
        raise UsageError("--seconds must be above 0 and at most 600.")
    terminal = common.terminal()
    pairs = (
        (f"{SESSIONS} sessions at once", "turns/s", _many, f"apsw, {SESSIONS} rows a transaction", _bare_many),
        ("one session, turn after turn", "microseconds", _one, "apsw, one row a transaction", _bare_one),
        ("the same, perdure.sync", "microseconds", _one_blocking, "apsw, one row a transaction", _bare_one),
    )
    syncs: list[float] = []
    rows = []
    with tempfile.TemporaryDirectory(prefix="perdure-bench-", dir=where) as place, terminal.progress("measuring", 21) as advance:

        def measure(work: Callable[[Path, float], float]) -> float:
            path = Path(tempfile.mkdtemp(dir=place)) / "bench.db"
            found = work(path, seconds)
            advance(1)
            return found

        for work, unit, ours, rival, theirs in pairs:
            found = [(measure(ours), measure(theirs)) for _ in range(ROUNDS)]
            mine, bare = (statistics.median(side) for side in zip(*found, strict=True))
            rows.append(BenchRow(work, unit, mine, rival, bare, round(mine / bare, 3)))
            syncs.append(measure(_sync))
    plain = statistics.median(syncs)
    rows.append(
        BenchRow(
            "one turn against the disk",
            "microseconds",
            rows[1].perdure,
            "a write of 4 KiB and fsync",
            plain,
            round(rows[1].perdure / plain, 3),
        )
    )
    terminal.rows(rows, *COLUMNS)


def _many(path: Path, seconds: float) -> float:
    """Turns a second of many sessions, each waiting for its own turn to be durable."""

    async def run() -> float:
        async with perdure.open(f"sqlite:///{path}") as store:

            async def session(name: str, end: float) -> int:
                turns = 0
                while time.perf_counter() < end:
                    await store.append(name, *MESSAGES)
                    turns += 1
                return turns

            start = time.perf_counter()
            counts = await asyncio.gather(*(session(f"s{number}", start + seconds) for number in range(SESSIONS)))
            return sum(counts) / (time.perf_counter() - start)

    return asyncio.run(run())


def _one(path: Path, seconds: float) -> float:
    """Microseconds of a turn, median."""

    async def run() -> float:
        async with perdure.open(f"sqlite:///{path}") as store:
            taken, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end:
                start = time.perf_counter()
                await store.append("s", *MESSAGES)
                taken.append(time.perf_counter() - start)
            return statistics.median(taken) * 1e6

    return asyncio.run(run())


def _one_blocking(path: Path, seconds: float) -> float:
    with perdure.sync.open(f"sqlite:///{path}") as store:
        return _median(lambda: store.append("s", *MESSAGES), seconds)


def _bare_many(path: Path, seconds: float) -> float:
    connection = _bare(path)
    try:
        version, start = 1, time.perf_counter()
        while time.perf_counter() - start < seconds:
            version += 1
            _insert(connection, version, SESSIONS)
        return (version - 1) * SESSIONS / (time.perf_counter() - start)
    finally:
        connection.close()


def _bare_one(path: Path, seconds: float) -> float:
    connection = _bare(path)
    version = 1

    def turn() -> None:
        nonlocal version
        version += 1
        _insert(connection, version, 1)

    try:
        return _median(turn, seconds)
    finally:
        connection.close()


def _bare(path: Path) -> apsw.Connection:
    """A connection with Perdure's settings and tables, and one row that Perdure wrote, to be written again and again."""
    url = f"sqlite:///{path}"
    with perdure.sync.open(url) as store:
        store.append("sample", *MESSAGES)
    options = parse_url(url)
    connection = connect(options, writing=True)
    initialise(connection, options, SystemClock())
    connection.pragma("temp_store", "memory")
    connection.execute("CREATE TEMP TABLE sample AS SELECT * FROM main.log; DELETE FROM main.log")
    return connection


def _insert(connection: apsw.Connection, version: int, rows: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, [(number, version) for number in range(rows)])
    connection.execute("COMMIT")


def _sync(path: Path, seconds: float) -> float:
    """Microseconds of a plain write at the end of a file and its fsync, median."""
    with path.open("wb", buffering=0) as file:

        def write() -> None:
            file.write(bytes(SYNC_BYTES))
            os.fsync(file.fileno())

        return _median(write, seconds)


def _median(work: Callable[[], object], seconds: float) -> float:
    """Microseconds that one call takes, median over so many seconds."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6
