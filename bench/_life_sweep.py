"""What a round of the sweeper costs among few and among many sessions, of which the same number is due."""

from __future__ import annotations

import asyncio
import sys
import time

from _harness import folder, small, table

import perdure
from perdure.backends.spi import APPENDS_MAX, Append, Appended, Durability
from perdure.engine.write.starting import Start, start_with
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import DAY, YEAR, Policy
from perdure.ops import sweep

FEW = 200 if small() else 10_000
MANY = 1_000 if small() else 100_000
MOST = 1_000_000
"""In place of `MANY` with `--full`: it takes some minutes to make them."""
DUE = 50 if small() else 1_000


async def begin(store: perdure.Store, sessions: int) -> None:
    """Make so many sessions whose first commit is an alarm, of which `DUE` have gone off, spread among the others. By the engine's own
    call, as many in one as it takes: what is measured is the sweeper."""
    core, now, every = store._core, store._core.clock.now(), sessions // DUE

    def append(number: int) -> Append:
        policy = Policy(wake_at=now - DAY if number % every == 0 else now + YEAR)
        session = SessionKey(store.tenant, f"s{number:07d}")
        start: Start = start_with(core.codec, session, policy, core.committer.new_id(), now)
        return Append(session, lambda head: [start.proposal.finish(head, now)], None, start.index, Durability.memory)

    for first in range(0, sessions, APPENDS_MAX):
        numbers = range(first, min(first + APPENDS_MAX, sessions))
        outcomes = await core.backend.append([append(number) for number in numbers])
        if not all(isinstance(outcome, Appended) for outcome in outcomes):
            raise SystemExit(f"Some of the sessions {numbers} were not made.")


async def round_among(place: str, sessions: int) -> tuple[float, float, float]:
    """Milliseconds of one round among so many sessions with a policy, of which `DUE` are due: by the clock, and of processor time; and
    the seconds that it took to make them."""
    began = time.perf_counter()
    async with perdure.open(f"sqlite:///{place}/{sessions}.db") as store:
        await begin(store, sessions)
    made = time.perf_counter() - began
    async with perdure.open(f"sqlite:///{place}/{sessions}.db") as store:
        clock, spent = time.perf_counter(), time.process_time()
        done = await sweep(store, once=True)
        if done.woken != DUE:
            raise SystemExit(f"{done.woken} sessions were woken in place of {DUE}")
        return (time.perf_counter() - clock) * 1e3, (time.process_time() - spent) * 1e3, made


def rounds(many: int) -> list[tuple[str, ...]]:
    """The rows of the table."""
    figures = {}
    for sessions in (FEW, many):
        with folder() as place:
            figures[sessions] = asyncio.run(round_among(str(place), sessions))
    (few, few_spent, _), (most, most_spent, made) = figures[FEW], figures[many]
    return [
        (f"a round with {DUE:,} due", "ms", "against", "ms", "ratio"),
        (f"among {many:,} sessions", f"{most:.0f}", f"among {FEW:,}", f"{few:.0f}", f"{most / few:.2f}"),
        ("the same in processor time", f"{most_spent:.0f}", "", f"{few_spent:.0f}", f"{most_spent / few_spent:.2f}"),
        (f"to make {many:,}", f"{made * 1e3:,.0f}", "", "", ""),
    ]


def sweeping() -> None:
    """Print the table."""
    table("Sweeping", rounds(MOST if "--full" in sys.argv else MANY))
