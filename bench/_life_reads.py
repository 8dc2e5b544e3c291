"""What reading from memory costs. Processor time of one read, in all threads, against peers in the same run.

The peer is what a program would do without it: a dict of parsed states that is asked first (the least that can be had), and the same
engine's row, read and decoded by hand.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable

import apsw
from _harness import folder, small, table

import perdure

READS = {"memory": 200 if small() else 50_000, "engine": 50 if small() else 2_000}
ROUNDS = 1 if small() else 5
SESSIONS = 64
"""Read in turn."""
STATE = {"messages": [{"role": "user", "content": f"message {number}"} for number in range(20)], "step": 7}

Reads = Callable[[int], Awaitable[object]]


async def timed(read: Reads, count: int) -> float:
    """Microseconds of processor time of one read."""
    for number in range(SESSIONS):
        await read(number)
    start = time.process_time()
    for number in range(count):
        await read(number % SESSIONS)
    return (time.process_time() - start) / count * 1e6


async def measure() -> dict[str, float]:
    """The median of each way to read, measured in turn."""
    figures: dict[str, list[float]] = {}
    with folder() as place:
        names = [f"s{number}" for number in range(SESSIONS)]
        async with perdure.open(f"sqlite:///{place}/life.db", cache_ttl=3_600) as store:
            for name in names:
                async with store.edit(name) as draft:
                    draft.state = STATE
            bare = apsw.Connection(f"{place}/bare.db")
            bare.execute("CREATE TABLE states (id TEXT PRIMARY KEY, state TEXT)")
            bare.executemany("INSERT INTO states VALUES (?, ?)", [(name, json.dumps(STATE)) for name in names])
            parsed = {name: json.loads(json.dumps(STATE)) for name in names}

            async def strong(number: int) -> object:
                return (await store.read(names[number])).frozen_state

            async def eventual(number: int) -> object:
                return (await store.read(names[number], consistency="eventual", max_staleness=3_600)).frozen_state

            async def by_hand(number: int) -> object:
                ((state,),) = bare.execute("SELECT state FROM states WHERE id = ?", (names[number],))
                return json.loads(state)

            async def from_dict(number: int) -> object:
                return parsed[names[number]]

            ways: dict[str, tuple[Reads, int]] = {
                "eventual, from memory": (eventual, READS["memory"]),
                "strong (looks at the head)": (strong, READS["engine"]),
                "bare SQLite, the row decoded": (by_hand, READS["memory"]),
                "a dict of states": (from_dict, READS["memory"]),
            }
            for _ in range(ROUNDS):
                for name, (read, count) in ways.items():
                    figures.setdefault(name, []).append(await timed(read, count))
            bare.close()
    return {name: statistics.median(found) for name, found in figures.items()}


def reads() -> None:
    """Print the table."""
    found = asyncio.run(measure())
    mine = found["eventual, from memory"]
    rows = [(name, f"{each:,.2f}", f"{1e6 / each:,.0f}", f"{each / mine:.2f}") for name, each in found.items()]
    table("Reads of a state of 1 KB, SQLite", [("way", "µs of processor time", "a second", "times an eventual read's"), *rows])
