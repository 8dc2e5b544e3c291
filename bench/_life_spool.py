"""The spool against durable appends, at one session: until a write is acknowledged. Meanwhile the same process ships what is enqueued.

A turn is one commit with two messages of 400 bytes; with `ops` it changes the state too. Both are synced before they are acknowledged.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _harness import alternate, folder, small, table, turn

import perdure
from perdure import Event, op
from tests.servers.process import Missing
from tests.servers.valkey import Valkey

CALLERS = 64
TURNS = 3 if small() else 8
LONE = 10 if small() else 100
ROUNDS = 1 if small() else 3
Write = Callable[..., Awaitable[Any]]


def events(number: int, *, ops: bool) -> list[Event]:
    """What one turn writes."""
    user, assistant = turn(number)
    return [Event("message", user), Event("message", assistant, (op.add("/turns", 1),) if ops else ())]


async def lone(write: Write, *, ops: bool) -> float:
    """One caller, turn after turn: p50 in microseconds."""
    times = []
    for number in range(LONE):
        start = time.perf_counter()
        await write("s", *events(number, ops=ops))
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


async def together(write: Write, *, ops: bool) -> float:
    """All callers at once on one session: microseconds a turn."""

    async def caller() -> None:
        for number in range(TURNS):
            await write("s", *events(number, ops=ops))

    start = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    return (time.perf_counter() - start) / (CALLERS * TURNS) * 1e6


def measured(url: str | None, name: str, work: Callable[..., Awaitable[float]], *, ops: bool) -> Callable[[Path], float]:
    """One figure, on a fresh store; without a URL it is a SQLite file beside the spool."""

    def measure(place: Path) -> float:
        async def run() -> float:
            address = url or f"sqlite:///{place}/store.db"
            tenant = place.name.strip(".")
            async with perdure.open(address, tenant=tenant, spool=f"sqlite:///{place}/spool.db", spool_wait=600) as store:
                figure = await work(getattr(store, name), ops=ops)
                await store.flush(timeout=600)
                return figure

        return asyncio.run(run())

    return measure


def spool() -> None:
    """Print a row for each engine and kind of work: what an append takes, what enqueue takes."""
    rows = [("one session", "append µs", "enqueue µs", "enqueue is")]
    with ExitStack() as stack:
        places: dict[str, str | None] = {"SQLite": None}
        try:
            server = Valkey(stack.enter_context(folder()))
            stack.callback(server.stop)
            server.start()
            places["Valkey, synced"] = server.url
        except Missing as missing:
            print(missing)
        for engine, url in places.items():
            for what, work, ops in (
                ("one caller", lone, False),
                ("one caller, operations", lone, True),
                (f"{CALLERS} callers", together, False),
                (f"{CALLERS} callers, operations", together, True),
            ):
                figures = alternate({name: measured(url, name, work, ops=ops) for name in ("append", "enqueue")}, ROUNDS)
                append, enqueue = figures["append"], figures["enqueue"]
                rows.append((f"{engine}: {what}", f"{append:,.0f}", f"{enqueue:,.0f}", f"{append / enqueue:.2f} x"))
    table("Spool: until a write is acknowledged", rows)
