"""A purge of a session with segments that is killed at any of its calls: the next one, by another process, removes what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure import Event, op
from perdure.backends.memory import MemoryBackend
from perdure.ops import sweep
from perdure.places.opening import open_place
from tests.support.ops.backend_calls import Died, store_on
from tests.support.ops.mortal import Process
from tests.support.ops.scenarios import DAY
from tests.support.ops.simulated_clock import SimulatedClock


async def archived_twice(store: perdure.Store) -> None:
    """A session with two segments, a commit after them, and a fork that was purged."""
    for keep in (2, 1):
        for number in range(4):
            await store.append("s", Event("more", None, (op.set(f"/n{number}", keep),)))
        if keep == 2:
            await store.fork("s", at=2, id="f")
            await store.delete("f")
            await store.purge("f")
        await store.compact("s", keep=keep)


@pytest.mark.parametrize("by", ["hand", "sweeper"])
@pytest.mark.parametrize("way", ["before", "after"])
async def test_a_purge_killed_at_each_call_is_finished_by_the_next(tmp_path: Path, way: str, by: str) -> None:
    """In the end there is no segment and no commit but the tombstone's stub, whoever goes on: one that knows nothing of the first."""
    number = 0
    while True:
        number += 1
        clock, place = SimulatedClock(), await open_place(f"file://{tmp_path}/{number}", clock=SimulatedClock(), option="archive")
        try:
            backend = MemoryBackend(clock)
            store = store_on(backend, clock, archive=place)
            await archived_twice(store)
            if by == "sweeper":
                await store.configure("s", expire_after=DAY, grace=DAY)
                await sweep(store, once=True)
                clock.advance(days=2)
                assert (await sweep(store, once=True)).expired == 1
                clock.advance(days=2)
            else:
                await store.delete("s")
            killed = Process(backend, place, clock, number, way)
            try:
                await killed.run(lambda store: store.purge("s") if by == "hand" else sweep(store, once=True))
            except Died:
                pass
            else:
                break
            clock.advance(minutes=11)
            other = store_on(backend, clock, archive=place)
            if by == "sweeper":
                assert (await sweep(other, once=True)).failed == 0
            else:
                await other.purge("s")
            assert await other._core.segments.list(other._context.key("s")) == []
            (stub,) = await backend.read(other._context.key("s"))
            assert not stub.body
        finally:
            await place.close()
    assert number > 6


async def test_a_fork_that_reads_from_a_segment_refuses_the_purge(tmp_path: Path) -> None:
    """Nothing is removed, and nothing says that a purge has begun: when the fork is gone, the purge judges again."""
    async with perdure.open("memory:", archive=f"file://{tmp_path}") as store:
        for number in range(6):
            await store.append("s", Event("more", None, (op.set(f"/n{number}", number),)))
        await store.fork("s", at=2, id="f")
        await store.archive("s")
        await store.delete("s")
        for _ in range(2):
            with pytest.raises(perdure.Invalid, match="'f'"):
                await store.purge("s")
        assert (await store.read("f")).state == {"n0": 0, "n1": 1}
        await store.delete("f")
        await store.purge("f")
        await store.purge("s")
        assert await store._core.segments.list(store._context.key("s")) == []
