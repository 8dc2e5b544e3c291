"""A purge that is killed at any of its calls, and a session that begins again before the purge is finished: its later lives are whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.backends import sqlite
from perdure.backends.memory import MemoryBackend
from perdure.clock import Clock
from perdure.places.opening import open_place
from perdure.places.place import Place
from tests.engine.archive.test_purge_killed import archived_twice
from tests.support.ops.backend_calls import Died, store_on
from tests.support.ops.mortal import Process
from tests.support.ops.simulated_clock import SimulatedClock

Fresh = Callable[[], perdure.Store]


@asynccontextmanager
async def data(engine: str, folder: Path, clock: Clock) -> AsyncGenerator[tuple[Any, Place]]:
    """An engine and an archive of a test's own."""
    place = await open_place(f"file://{folder}", clock=clock, option="archive")
    backend: Any = MemoryBackend(clock) if engine == "memory" else await sqlite.open(f"sqlite:///{folder}.db", clock=clock)
    try:
        yield backend, place
    finally:
        await backend.close()
        await place.close()


async def all_of(fresh: Fresh, state: dict[str, int]) -> None:
    """What is said of the session that is alive, by processes that know nothing of it: all of its own life, and of earlier ones no lie."""
    count = len(state)
    assert (await fresh().read("s")).state == state
    assert len([commit async for commit in fresh().history("s", types=["again"])]) == count
    await fresh().verify("s")
    fork = await fresh().fork("s")
    assert (await fresh().read(fork)).state == state
    await fresh().delete(fork)
    await fresh().purge(fork)
    with suppress(perdure.Truncated):
        assert (await fresh().read("s", at=3, include_deleted=True)).version == 3
    versions, agains, cursor = [0], 0, None
    ended = False
    while not ended:
        try:
            async for change in fresh().changes(after=cursor, prefix="s", follow=False):
                versions.append(change.commit.version)
                agains += [event.type for event in change.commit.events].count("again")
            ended = True
        except perdure.Truncated as error:
            cursor = error.cursor
    assert versions == sorted(set(versions))
    assert agains >= count


async def new_life(fresh: Fresh, *, archived: bool) -> None:
    """The session begins again, is used, and with `archived` goes to the archive, once in part and once whole."""
    await fresh().append("s", Event("again", None, (op.set("/b", 1),)), recreate=True)
    assert (await fresh().read("s")).state == {"b": 1}
    await fresh().append("s", Event("again", None, (op.set("/c", 2),)))
    if archived:
        await fresh().compact("s", keep=1)
        await all_of(fresh, {"b": 1, "c": 2})
        await fresh().archive("s")
    await all_of(fresh, {"b": 1, "c": 2})
    await fresh().delete("s")


async def dies_in(work: Awaitable[Any]) -> bool:
    """Whether a process died in its work."""
    try:
        await work
    except Died:
        return True
    return False


@pytest.mark.parametrize("archived", [False, True], ids=["live", "archived"])
@pytest.mark.parametrize("way", ["before", "after"])
async def test_lives_after_a_purge_that_was_killed(tmp_path: Path, way: str, archived: bool) -> None:
    """At each call of the first purge; that of the second life is killed at the same call; that of the third removes everything."""
    await killed_at_each_call("memory", tmp_path, way, archived=archived)


@pytest.mark.slow("some hundred stores in files")
@pytest.mark.parametrize("archived", [False, True], ids=["live", "archived"])
@pytest.mark.parametrize("way", ["before", "after"])
async def test_lives_after_a_purge_that_was_killed_in_sqlite(tmp_path: Path, way: str, archived: bool) -> None:
    """The same in a file."""
    await killed_at_each_call("sqlite", tmp_path, way, archived=archived)


async def killed_at_each_call(engine: str, tmp_path: Path, way: str, *, archived: bool) -> None:
    """Two purges are killed at a call, then the same at the next one, until there is none."""
    number, died = 0, True
    while died:
        number += 1
        clock = SimulatedClock()
        async with data(engine, tmp_path / str(number), clock) as (backend, place):

            def fresh(backend: Any = backend, clock: Clock = clock, place: Place = place) -> perdure.Store:
                return store_on(backend, clock, archive=place)

            await archived_twice(fresh())
            await fresh().delete("s")
            died = False
            for _ in range(2):
                killed = Process(backend, place, clock, number, way)
                died |= await dies_in(killed.run(lambda store: store.purge("s")))
                clock.advance(minutes=11)
                await new_life(fresh, archived=archived)
            store = fresh()
            await store.purge("s")
            assert await place.list("segments") == []
            (stub,) = await backend.read(store._context.key("s"))
            assert stub.is_stub
            with pytest.raises(perdure.Deleted):
                await store.read("s")
    assert number > 15
