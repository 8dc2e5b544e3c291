"""A sweeper that dies at any of its awaits: what it left, the next one does, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import perdure
from perdure import Event, Kind, op
from perdure.backends.memory import MemoryBackend
from perdure.model.ids import SessionKey
from perdure.ops import sweep
from perdure.ops.prefix_steps import apply_changed
from perdure.ops.rows import Sweep
from tests.support.ops.backend_calls import CountedCalls, Died, store_on
from tests.support.ops.scenarios import DAY, kinds, swept
from tests.support.ops.simulated_clock import SimulatedClock

ROUNDS = 4
"""Rounds after a death in which all must be done, ten minutes apart."""


async def prepared(clock: SimulatedClock) -> MemoryBackend:
    """A store in which one session of each kind is due: to expire, to wake, to drop commits, to be purged, and a prefix to apply."""
    backend = MemoryBackend(clock)
    store = store_on(backend, clock)
    for name in ("expire", "wake", "purge"):
        await store.append(name, Event("start", None, (op.set("/n", 1),)))
    for number in range(12):
        async with store.edit("keep") as draft:
            draft.state[f"n{number}"] = number
    await store.configure("purge", expire_after=DAY, grace=DAY)
    await swept(store)
    clock.advance(days=2)
    await store.configure("expire", expire_after=DAY)
    assert ("purge", "expired") in await swept(store)
    await store.configure(prefix="late-", expire_after=DAY)
    prefix = await backend.load(SessionKey("~default", "prefix:late-"))
    assert prefix is not None
    assert (await apply_changed(Sweep(store._core, clock.now()), prefix.row)).action == "looked"
    store._core.prefixes._known.put(store.tenant, (float("inf"), []))
    await store.append("late-1", Event("start"))
    await store.configure("wake", wake_at=clock.time + timedelta(hours=1))
    clock.advance(days=2)
    await store.configure("keep", keep=4, drop=True)
    return backend


async def check_done(backend: MemoryBackend, clock: SimulatedClock) -> None:
    """All was done, once."""
    store = store_on(backend, clock)
    ends = [commit.kind async for commit in store.history("expire", include_deleted=True)].count(Kind.tombstone)
    assert ends == 1
    assert (await kinds(store, "wake")).count("woken") == 1
    assert len((await store.read("keep")).state) == 12
    left = [commit async for commit in store.history("keep", after=9)]
    assert [commit.kind for commit in left] == [Kind.data] * 3 + [Kind.configure, Kind.anchor]
    with pytest.raises(perdure.Truncated):
        await kinds(store, "keep")
    assert not (await backend.read(SessionKey("default", "purge")))[0].body
    assert (await store.policy("late-1")).expire_after == DAY
    for name in ("expire", "wake", "keep", "purge", "late-1"):
        await store.verify(name)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_death_at_each_await(late: bool) -> None:
    """The call at which the sweeper dies was made or not; the rounds after it finish what was begun, and repeat nothing."""
    number = 0
    while True:
        number += 1
        clock = SimulatedClock()
        backend = await prepared(clock)
        try:
            await sweep(store_on(CountedCalls(backend, die_at=number, late=late), clock), once=True)
        except Died:
            await asyncio.sleep(0)
        else:
            break
        for _ in range(ROUNDS):
            await sweep(store_on(backend, clock), once=True)
            clock.advance(minutes=10, seconds=1)
        await check_done(backend, clock)
    assert number > 20


async def test_two_sweepers_at_once() -> None:
    """Sweepers that meet, of which each sees the same sessions due, do each thing once."""
    clock = SimulatedClock()
    backend = await prepared(clock)
    done = await asyncio.gather(*[sweep(store_on(Yielding(backend), clock), once=True) for _ in range(4)])
    for what in ("expired", "woken", "trimmed", "purged"):
        assert sum(getattr(each, what) for each in done) == 1, what
    assert sum(each.overtaken for each in done) > 0
    for _ in range(ROUNDS):
        await sweep(store_on(backend, clock), once=True)
        clock.advance(minutes=10, seconds=1)
    await check_done(backend, clock)


class Yielding(CountedCalls):
    """Each call waits, so that several processes take turns."""

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__(backend)
        self.pause = lambda: asyncio.sleep(0)
