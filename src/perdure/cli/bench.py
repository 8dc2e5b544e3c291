"""`perdure bench`: this machine, this engine, beside the bare engine with the same rows and syncs."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

import perdure
from perdure.cli.common import Common, show_rows
from perdure.errors import Invalid
from perdure.model.events import Event

SESSIONS = 64
_ROW = (
    "INSERT INTO log (n, version, hash, at, epoch, status, data, id, kind, key, request, meta, body) "
    "VALUES (?, ?, ?, ?, 0, 0, ?, ?, 0, NULL, ?, ?, ?)"
)
_MESSAGES = [
    Event("message", {"role": role, "content": f"{role} " + "says what agents say, at some length. " * 10})
    for role in ("user", "assistant")
]


class BenchRow(msgspec.Struct, frozen=True):
    """`work`; Perdure's turns a second and the bare engine's; and their `ratio`."""

    work: str
    perdure: int
    bare: int
    ratio: float


def bench(
    *,
    seconds: Annotated[float, Parameter(help="About how long each measurement takes.")] = 2.0,
    folder: Annotated[Path | None, Parameter(help="Where to write, to measure that disk. Default: the temporary folder.")] = None,
    common: Common | None = None,
) -> int:
    """Measure durable turns a second, a turn being one commit with two messages of about 400 bytes, against bare SQLite."""
    common = common or Common()
    if not common.store_url.startswith("sqlite:"):
        raise Invalid("bench measures SQLite: it writes files of its own and takes no store.")
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for sessions, work in ((SESSIONS, f"{SESSIONS} sessions at once"), (1, "one session, turn after turn")):
            ours, bare = [], []
            for round_number in range(3):
                ours.append(asyncio.run(_ours(f"{place}/p{sessions}-{round_number}.db", sessions, seconds / 6)))
                bare.append(_bare(f"{place}/b{sessions}-{round_number}.db", sessions, seconds / 6))
            mine, theirs = statistics.median(ours), statistics.median(bare)
            rows.append(BenchRow(work, round(mine), round(theirs), round(mine / theirs, 2)))
    show_rows(common, rows, ["work", "perdure", "bare", "ratio"], title="durable turns a second")
    return 0


async def _ours(path: str, sessions: int, seconds: float) -> float:
    async with perdure.open(f"sqlite:///{path}") as store:
        end = time.perf_counter() + seconds

        async def session(name: str) -> int:
            turns = 0
            while time.perf_counter() < end:
                await store.append(name, *_MESSAGES)
                turns += 1
            return turns

        start = time.perf_counter()
        counts = await asyncio.gather(*[session(f"s{number}") for number in range(sessions)])
        return sum(counts) / (time.perf_counter() - start)


def _bare(path: str, sessions: int, seconds: float) -> float:
    from perdure.backends.sqlite.schema import connect, initialise, parse_url
    from perdure.clock import SystemClock

    options = parse_url(f"sqlite:///{path}")
    connection = connect(options, writing=True)
    try:
        initialise(connection, options, SystemClock())
        body, hash = msgspec.json.encode(_MESSAGES)[:400], bytes(32)
        start, version = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            version += 1
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_ROW, [(n, version, hash, version, version, hash[:16], b"", hash, body) for n in range(sessions)])
            connection.execute("COMMIT")
        return version * sessions / (time.perf_counter() - start)
    finally:
        connection.close()
