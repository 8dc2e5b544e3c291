"""Policies that move commits and sessions to the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, Kind, Status, op
from perdure.backends.memory import MemoryBackend
from perdure.engine.read.segments import Segments
from perdure.ops import Action, sweep
from tests.support.ops.backend_calls import CountedCalls, Died, store_on
from tests.support.ops.scenarios import DAY, kinds, swept
from tests.support.ops.simulated_clock import SimulatedClock


async def filled(store: perdure.Store, session: str, number: int = 12) -> None:
    """A session with so many commits."""
    for each in range(number):
        await store.append(session, Event("more", None, (op.set(f"/n{each}", each),)))


async def test_commits_that_are_not_kept_go_to_the_archive(tmp_path: Path) -> None:
    """The engine keeps the newest; all are read as before."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock, archive=f"file://{tmp_path}") as store:
        await filled(store, "s")
        await store.configure("s", keep=4)
        before = [commit async for commit in store.history("s")]
        assert await swept(store) == [("s", "trimmed")]
        assert await swept(store) == []
        left = await store._core.backend.read(store._context.key("s"))
        assert left[0].head.version == 10
        assert [commit async for commit in store.history("s")][:13] == before
        assert len((await store.read("s")).state) == 12
        await store.verify("s")
        for _ in range(3):  # What was written by sweepers alone is no reason to write more.
            version = (await store.read("s")).version
            clock.advance(days=2)
            await swept(store)
        assert (await store.read("s")).version == version


async def test_a_session_that_is_not_used_is_archived_and_comes_back(tmp_path: Path) -> None:
    """It is archived so long after its last data commit, once; its next write brings it back, and then it is archived again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock, archive=f"file://{tmp_path}") as store:
        await filled(store, "s")
        await store.configure("s", archive_after=5 * DAY)
        assert (await store.policy("s")).archive_after == 5 * DAY
        assert await swept(store) == [("s", "looked")]
        for _ in range(2):
            clock.advance(days=5, minutes=1)
            assert await swept(store) == [("s", "archived")]
            assert [info.status async for info in store.list(status="archived")] == [Status.archived]
            assert await swept(store) == []
            clock.advance(days=100)
            assert await swept(store) == []
            await store.append("s", Event("back"))
            assert (await store.read("s")).status is Status.active
            assert await swept(store) == [("s", "looked")]
            assert await swept(store) == []
        assert (await kinds(store, "s")).count("back") == 2
        await store.verify("s")


@pytest.mark.parametrize("change", ["message", "policy"])
async def test_a_session_that_is_used_after_the_look_is_not_archived(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message, or another policy, that comes between the sweeper's look and its first commit ends the move: `overtaken`."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock, archive=f"file://{tmp_path}") as store:
        await filled(store, "s")
        await store.configure("s", archive_after=5 * DAY)
        assert await swept(store) == [("s", "looked")]
        clock.advance(days=5, minutes=1)
        archiver = store._core.archiver
        archive = archiver.archive

        async def late(*arguments: Any) -> Any:
            if change == "message":
                await store.append("s", Event("late"))
            else:
                await store.configure("s", archive_after=50 * DAY)
            return await archive(*arguments)

        monkeypatch.setattr(archiver, "archive", late)
        assert await swept(store) == [("s", "overtaken")]
        monkeypatch.undo()
        assert (await store.read("s")).status is Status.active
        assert [kind async for kind in _kinds(store)].count(Kind.anchor) == 0
        clock.advance(days=5, minutes=1)
        await swept(store)
        clock.advance(days=5, minutes=1)
        assert ("s", "archived") in await swept(store) or change == "policy"


async def _kinds(store: perdure.Store) -> AsyncIterator[Kind]:
    async for commit in store.history("s", control=True):
        yield commit.kind


async def test_an_archived_session_expires(tmp_path: Path) -> None:
    """Archiving is no use of a session: it is deleted when it would have been without it."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock, archive=f"file://{tmp_path}") as store:
        await filled(store, "s")
        await store.configure("s", archive_after=5 * DAY, expire_after=20 * DAY)
        await swept(store)
        clock.advance(days=6)
        assert await swept(store) == [("s", "archived")]
        clock.advance(days=13)
        assert await swept(store) == []
        clock.advance(days=2)
        assert await swept(store) == [("s", "expired")]
        clock.advance(days=8)
        assert await swept(store) == [("s", "purged")]
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and "segments/" in str(path)]


@pytest.mark.parametrize("policy", [{"keep": 4}, {"archive_after": DAY}], ids=["keep", "archive_after"])
async def test_a_sweeper_without_the_archive_says_so(tmp_path: Path, policy: dict[str, object]) -> None:
    """It moves nothing, names the option, and looks again after five minutes."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock, archive=f"file://{tmp_path}") as store:
        await filled(store, "s")
        await store.configure("s", **policy)  # type: ignore[arg-type]
        without, actions = store_on(store._core.backend, clock), list[Action]()
        await sweep(without, once=True)
        clock.advance(days=2)
        await sweep(without, once=True, notify=actions.append)
        assert [(each.action, "archive=" in each.detail) for each in actions] == [("failed", True)]
        assert await swept(store) == []
        clock.advance(minutes=6)
        assert await swept(store) in ([("s", "trimmed")], [("s", "archived")])


async def test_a_leased_session_is_not_archived(tmp_path: Path) -> None:
    """While a lease is held it is left alone; afterwards it goes: a lease is no use of it, so looks before the take count."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock, archive=f"file://{tmp_path}") as store:
        await filled(store, "s")
        await store.configure("s", archive_after=DAY)
        await swept(store)
        async with store.lease("s", owner="worker", ttl=3600):
            for _ in range(2):
                clock.advance(days=2)
                assert await swept(store) == [("s", "held")]
        clock.advance(days=2)
        assert await swept(store) == [("s", "archived")]


async def test_a_fork_does_not_stop_a_move(tmp_path: Path) -> None:
    """A fork reads its past through the archive."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock, archive=f"file://{tmp_path}") as store:
        await filled(store, "s")
        await store.fork("s", at=3, id="f")
        await store.configure("s", keep=4)
        assert await swept(store) == [("s", "trimmed")]
        assert (await store.read("f")).state == {"n0": 0, "n1": 1, "n2": 2}
        await store.verify("f")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("policy", [{"keep": 4}, {"archive_after": DAY}], ids=["keep", "archive_after"])
async def test_a_death_at_each_await(tmp_path: Path, policy: dict[str, object], late: bool) -> None:
    """The rounds after it finish what was begun; the history is whole, and what moved did so once."""
    number = 0
    while True:
        number += 1
        clock = SimulatedClock()
        backend = MemoryBackend(clock)
        place = f"file://{tmp_path}/{number}"
        async with perdure.open("memory:", clock=clock, archive=place) as opened:
            segments = opened._core.segments
            store = on(backend, clock, segments)
            await filled(store, "s")
            await store.configure("s", **policy)  # type: ignore[arg-type]
            await swept(store)
            if "keep" in policy:
                await filled(store, "s")
            clock.advance(days=2)
            try:
                await sweep(on(CountedCalls(backend, die_at=number, late=late), clock, segments), once=True)
            except Died:
                await asyncio.sleep(0)
            else:
                break
            for _ in range(4):
                await sweep(on(backend, clock, segments), once=True)
                clock.advance(minutes=10, seconds=1)
            store = on(backend, clock, segments)
            history = [commit async for commit in store.history("s")]
            assert [commit.version for commit in history] == [*range(1, len(history) + 1)]
            assert [commit.kind for commit in history].count(Kind.data) == (24 if "keep" in policy else 12)
            left = await backend.read(store._context.key("s"))
            assert left[0].head.version > 12
            assert len((await store.read("s")).state) == 12
            await store.verify("s")
    assert number > 8


def on(backend: object, clock: SimulatedClock, segments: Segments) -> perdure.Store:
    """Another process on the same data, with the same archive."""
    return store_on(backend, clock, archive=segments._place)


async def test_a_fork_that_is_about_to_start_stops_a_drop() -> None:
    """`compact(drop=True)` beside a fork that has pinned its parent and is not there yet: refused for ten minutes, as it may start."""
    clock = SimulatedClock()
    backend = MemoryBackend(clock)
    store = store_on(backend, clock)
    await filled(store, "s")
    calls = CountedCalls(backend)
    await store_on(calls, clock).fork("s", at=3, id="f")
    forking = store_on(CountedCalls(backend, die_at=calls.count), clock)  # Its last call starts the fork.
    await store.delete("f")
    await store.purge("f")
    with pytest.raises(Died):
        await forking.fork("s", at=3, id="g")
    with pytest.raises(perdure.Invalid, match="'g'"):
        await store.compact("s", keep=2, drop=True)
    clock.advance(minutes=11)
    assert (await store.compact("s", keep=2, drop=True)).commits > 0
    assert len((await store.read("s")).state) == 12
    await store.verify("s")
