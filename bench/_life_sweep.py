"""What a round of the sweeper costs among few and among many sessions, of which the same number is due."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

from _harness import folder, small, table

import perdure
from perdure.model.events import Event
from perdure.ops import sweep

FEW = 200 if small() else 10_000
MANY = 1_000 if small() else 100_000
MOST = 1_000_000
"""In place of `MANY` with `--full`: it takes half an hour to make them."""
DUE = 50 if small() else 1_000
GROUP = 512


async def round_among(place: str, sessions: int) -> tuple[float, float]:
    """Milliseconds of one round among so many sessions with a policy, of which `DUE` are due: by the clock, and of processor time."""
    past, future = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=365)
    every = sessions // DUE
    async with perdure.open(f"sqlite:///{place}/{sessions}.db") as store:

        async def begin(number: int) -> None:
            name = f"s{number:07d}"
            await store.append(name, Event("started"))
            await store.configure(name, wake_at=future if number % every else past)

        for start in range(0, sessions, GROUP):
            await asyncio.gather(*[begin(number) for number in range(start, min(start + GROUP, sessions))])
        clock, spent = time.perf_counter(), time.process_time()
        done = await sweep(store, once=True)
        if done.woken != DUE:
            raise SystemExit(f"{done.woken} sessions were woken in place of {DUE}")
        return (time.perf_counter() - clock) * 1e3, (time.process_time() - spent) * 1e3


def rounds(many: int) -> list[tuple[str, ...]]:
    """The rows of the table."""
    figures = {}
    for sessions in (FEW, many):
        with folder() as place:
            figures[sessions] = asyncio.run(round_among(str(place), sessions))
    (few, few_spent), (most, most_spent) = figures[FEW], figures[many]
    return [
        (f"a round with {DUE:,} due", "ms", "against", "ms", "ratio"),
        (f"among {many:,} sessions", f"{most:.0f}", f"among {FEW:,}", f"{few:.0f}", f"{most / few:.2f}"),
        ("the same in processor time", f"{most_spent:.0f}", "", f"{few_spent:.0f}", f"{most_spent / few_spent:.2f}"),
    ]


def sweeping() -> None:
    """Print the table."""
    table("Sweeping", rounds(MOST if "--full" in sys.argv else MANY))
