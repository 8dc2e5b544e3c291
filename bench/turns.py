"""Durable turns a second: one commit with two messages of 400 bytes, against bare SQLite and other frameworks' savers."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from _harness import alternate, machine, processor_time, small, table, turn
from agents import SQLiteSession
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

import perdure
from perdure.backends.sqlite.schema import connect, initialise, parse_url
from perdure.clock import SystemClock
from perdure.codec.codec import Codec
from perdure.model.events import Event

SESSIONS = 64
TURNS = 4 if small() else 150
RIVAL_TURNS = 2 if small() else 6
LONE = 10 if small() else 600
ROUNDS = 1 if small() else 5

ROW = (
    "INSERT INTO log (n, version, hash, at, epoch, status, data, id, kind, key, request, meta, body) "
    "VALUES (?, ?, ?, ?, 0, 0, ?, ?, 0, NULL, ?, ?, ?)"
)


def bare(place: Path, sessions: int, turns: int) -> list[float]:
    """Seconds of each transaction: the same rows in the same layout, written by SQLite alone, one sync a batch."""
    options = parse_url(f"sqlite:///{place}/bare.db")
    connection = connect(options, writing=True)
    initialise(connection, options, SystemClock())
    body = Codec().encode_events([Event("message", item) for item in turn(1)])
    hash, times = bytes(range(32)), []
    for version in range(1, turns + 1):
        start = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(ROW, [(n, version, hash, version, version, hash[:16], b"", hash + b"meta", body) for n in range(sessions)])
        connection.execute("COMMIT")
        times.append(time.perf_counter() - start)
    connection.close()
    return times


async def all_at_once(write: Callable[[int, int], Awaitable[Any]], turns: int) -> float:
    """Turns a second of all sessions together."""

    async def session(number: int) -> None:
        for version in range(turns):
            await write(number, version)

    start = time.perf_counter()
    await asyncio.gather(*[session(number) for number in range(SESSIONS)])
    return SESSIONS * turns / (time.perf_counter() - start)


def perdure_together(place: Path, run: Callable[[Coroutine[Any, Any, float]], float] = asyncio.run) -> float:
    """Perdure, 64 sessions at once."""

    async def write() -> float:
        async with perdure.open(f"sqlite:///{place}/perdure.db") as store:
            return await all_at_once(lambda n, v: store.append(f"s{n}", *[Event("message", item) for item in turn(v)]), TURNS)

    return run(write())


def langgraph_together(place: Path) -> float:
    """LangGraph's saver, 64 threads at once; each checkpoint holds the turn's two messages only, which is its best case."""

    async def run() -> float:
        async with AsyncSqliteSaver.from_conn_string(f"{place}/langgraph.db") as saver:
            await saver.setup()
            return await all_at_once(lambda n, v: put(saver, n, v), RIVAL_TURNS)

    return asyncio.run(run())


async def put(saver: AsyncSqliteSaver, number: int, version: int) -> None:
    """One checkpoint."""
    checkpoint = empty_checkpoint() | {"channel_values": {"messages": turn(version)}}
    config: Any = {"configurable": {"thread_id": f"s{number}", "checkpoint_ns": ""}}
    await saver.aput(config, checkpoint, {"source": "loop", "step": version, "parents": {}}, {})  # type: ignore[arg-type,typeddict-item]


def openai_together(place: Path) -> float:
    """OpenAI's SQLiteSession, 64 sessions at once on one file."""

    async def run() -> float:
        sessions = [SQLiteSession(f"s{number}", f"{place}/openai.db") for number in range(SESSIONS)]
        try:
            return await all_at_once(lambda n, v: sessions[n].add_items(turn(v)), RIVAL_TURNS)  # type: ignore[arg-type]
        finally:
            for session in sessions:
                session.close()

    return asyncio.run(run())


def lone_async(place: Path) -> float:
    """Perdure, one session: p50 of a turn in microseconds."""

    async def run() -> float:
        async with perdure.open(f"sqlite:///{place}/perdure.db") as store:
            times = []
            for version in range(LONE):
                start = time.perf_counter()
                await store.append("s", *[Event("message", item) for item in turn(version)])
                times.append(time.perf_counter() - start)
            return statistics.median(times) * 1e6

    return asyncio.run(run())


def lone_sync(place: Path) -> float:
    """Perdure's blocking API, one session: p50 in microseconds."""
    with perdure.sync.open(f"sqlite:///{place}/perdure.db") as store:
        times = []
        for version in range(LONE):
            start = time.perf_counter()
            store.append("s", *[Event("message", item) for item in turn(version)])
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def lone_rival(make: Callable[[Path], Any]) -> Callable[[Path], float]:
    """A rival, one session: p50 in microseconds."""

    def measure(place: Path) -> float:
        async def run() -> float:
            async with make(place) as write:
                times = []
                for version in range(LONE // 4 or 1):
                    start = time.perf_counter()
                    await write(version)
                    times.append(time.perf_counter() - start)
                return statistics.median(times) * 1e6

        return asyncio.run(run())

    return measure


class LangGraphLone:
    """LangGraph's saver for one thread."""

    def __init__(self, place: Path) -> None:
        self._opening = AsyncSqliteSaver.from_conn_string(f"{place}/langgraph.db")

    async def __aenter__(self) -> Callable[[int], Awaitable[None]]:
        saver = await self._opening.__aenter__()
        return lambda version: put(saver, 0, version)

    async def __aexit__(self, *error: object) -> None:
        await self._opening.__aexit__(*error)


class OpenAILone:
    """OpenAI's SQLiteSession."""

    def __init__(self, place: Path) -> None:
        self._session = SQLiteSession("s", f"{place}/openai.db")

    async def __aenter__(self) -> Callable[[int], Awaitable[None]]:
        return lambda version: self._session.add_items(turn(version))  # type: ignore[arg-type]

    async def __aexit__(self, *error: object) -> None:
        self._session.close()


def main() -> None:
    """Print both tables."""
    machine()
    together = alternate(
        {
            "Perdure": perdure_together,
            "bare SQLite, batches of 64": lambda place: SESSIONS * TURNS / sum(bare(place, SESSIONS, TURNS)),
            "LangGraph AsyncSqliteSaver": langgraph_together,
            "OpenAI SQLiteSession": openai_together,
        },
        ROUNDS,
    )
    ours = together["Perdure"]
    rows = [("64 sessions at once", "turns/s", "Perdure is")]
    table("Together", rows + [(name, f"{figure:,.0f}", f"{ours / figure:.2f} x") for name, figure in together.items()])
    lone = alternate(
        {
            "Perdure": lone_async,
            "Perdure, blocking": lone_sync,
            "bare SQLite": lambda place: statistics.median(bare(place, 1, LONE)) * 1e6,
            "LangGraph AsyncSqliteSaver": lone_rival(LangGraphLone),
            "OpenAI SQLiteSession": lone_rival(OpenAILone),
        },
        ROUNDS,
    )
    ours = lone["Perdure"]
    rows = [("one session, turn after turn", "p50 µs", "Perdure's p50 is")]
    table("Alone", rows + [(name, f"{figure:,.0f}", f"{ours / figure:.2f} x") for name, figure in lone.items()])
    spent = alternate(
        {
            "Perdure, 64 sessions": processor_time(perdure_together, SESSIONS * TURNS),
            "Perdure on uvloop, 64 sessions": processor_time(lambda place: perdure_together(place, uvloop.run), SESSIONS * TURNS),
            "bare SQLite, batches of 64": processor_time(lambda place: bare(place, SESSIONS, TURNS), SESSIONS * TURNS),
            "Perdure, one session": processor_time(lone_async, LONE),
            "Perdure, blocking, one session": processor_time(lone_sync, LONE),
            "bare SQLite, one session": processor_time(lambda place: bare(place, 1, LONE), LONE),
        },
        ROUNDS,
    )
    names = iter(spent.items())
    rows = [("processor time", "µs a turn", "times bare")]
    for _ in range(2):
        three = [next(names) for _ in range(3)]
        rows += [(name, f"{figure:,.1f}", f"{figure / three[-1][1]:.2f} x") for name, figure in three]
    table("Processor time", rows)


if __name__ == "__main__":
    main()
