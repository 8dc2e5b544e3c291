"""An archiver is stopped between any two of its steps, for a while or for good, while others work on the same session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, Store, op
from perdure.backends.memory import MemoryBackend
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey
from perdure.places.opening import open_place
from perdure.places.place import Place
from tests.support.engine.gates import Death, Gate, process

S = "s"
COMMITS = 12
Call = Callable[[Store], Awaitable[Any]]


async def archive(store: Store) -> None:
    await store.archive(S)


async def compact(store: Store) -> None:
    await store.compact(S, keep=3)


async def drop(store: Store) -> None:
    await store.compact(S, keep=3, drop=True)


async def restore(store: Store) -> None:
    await store.restore(S)


async def append(store: Store) -> None:
    await store.append(S, Event("late", None, (op.add("/late", 1),)))


async def append_and_archive(store: Store) -> None:
    await append(store)
    await store.archive(S)


async def archive_and_append(store: Store) -> None:
    await store.archive(S)
    await append(store)


async def archive_write_and_compact(store: Store) -> None:
    await archive_and_append(store)
    await store.compact(S, keep=0)


async def archive_write_and_drop(store: Store) -> None:
    await archive_and_append(store)
    await store.compact(S, keep=0, drop=True)


async def fork(store: Store) -> None:
    await store.fork(S, at=5, id="fork")


async def tag(store: Store) -> None:
    await store.configure(S, tags={"late": "yes"})


async def delete(store: Store) -> None:
    await store.delete(S)


async def purge(store: Store) -> None:
    await store.delete(S)
    await store.purge(S)


async def recreate(store: Store) -> None:
    await purge(store)
    await store.append(S, Event("second life"), recreate=True)
    await store.archive(S)


ARCHIVERS: list[Call] = [archive, compact, drop]
OTHERS: list[Call] = [
    archive, compact, drop, restore, append, append_and_archive, archive_and_append, archive_write_and_compact, archive_write_and_drop,
    fork, tag, delete, purge, recreate,
]  # fmt: skip


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[MemoryBackend, Place]]:
    """An engine and a place that all processes share, with one session."""
    backend = MemoryBackend(SystemClock())
    place = await open_place(f"file://{folder}", clock=SystemClock(), option="archive")
    async with process(backend, place) as store:
        for number in range(COMMITS):
            await store.append(S, Event("turn", number, (op.append("/turns", [number]),)), key=f"k{number}")
    try:
        yield backend, place
    finally:
        await place.close()


async def steps_of(call: Call, folder: Path) -> int:
    """How many calls of an engine or a place the archiver makes when nobody disturbs it."""
    async with world(folder) as (backend, place):
        gate = Gate()
        async with process(backend, place, gate) as store:
            await call(store)
        return gate.passed


async def objects(place: Place) -> set[str]:
    return {name.rpartition("/")[2] for name in await place.list("segments")}


async def whole(backend: MemoryBackend, place: Place, *, dropped: bool = False, gone: bool = False) -> None:
    """A process that starts now finds everything that was acknowledged, in order, and the archive has what it needs and nothing more."""
    async with process(backend, place) as store:
        (head,) = await backend.heads([SessionKey("default", S)])
        assert head is not None
        if head.status == perdure.Status.deleted:
            gone = True
            with pytest.raises(perdure.Deleted):
                await store.archive(S)
            await store.purge(S) if not [item async for item in store.list(prefix="fork")] else None
        else:
            view = await store.read(S)
            assert view.version == head.version
            if not gone:
                assert view.state["turns"] == list(range(COMMITS))
                receipt = await store.find(S, "k4")
                assert receipt is not None
                assert receipt.version == 5
        proof = await store.verify(S)
        assert proof.version == (await backend.heads([SessionKey("default", S)]))[0].version  # type: ignore[union-attr]
        if not gone:
            with suppress(*[perdure.Truncated] * dropped):
                commits = [commit async for commit in store.history(S)]
                assert [commit.version for commit in commits] == list(range(1, head.version + 1))
                assert [commit.events[0].data for commit in commits[:COMMITS]] == list(range(COMMITS))
                for version in range(1, COMMITS + 1):
                    assert (await store.read(S, at=version)).state["turns"] == list(range(version))
        async for info in store.list(prefix="fork"):
            assert (await store.read(info.session)).state["turns"] == list(range(5))
            await store.verify(info.session)
        if head.status != perdure.Status.deleted:  # The next archiver removes what the stopped one left.
            await store.archive(S)
            core, session = store._core, SessionKey("default", S)
            state = await core.archiver.live(session)
            named = {anchor.segment for anchor in await core.chains.anchors(session, _anchor(state))} - {""}
            assert await objects(place) == named
        elif not [item async for item in store.list(prefix="fork")]:
            assert await objects(place) == set()


def _anchor(state: Any) -> Any:
    from perdure.model.anchor import anchor_of

    return anchor_of(state.control)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("archiver", ARCHIVERS, ids=lambda call: call.__name__)
async def test_death_at_every_step_loses_nothing(archiver: Call, after: bool, tmp_path: Path) -> None:
    """Whatever call an archiver dies before, or after, the session reads as before and the next archiver finishes the work."""
    for number in range(1, await steps_of(archiver, tmp_path / "count") + 1):
        async with world(tmp_path / f"{number}") as (backend, place):
            with pytest.raises(Death):
                async with process(backend, place, Gate(die=number, after=after)) as store:
                    await archiver(store)
            await whole(backend, place, dropped=archiver is drop)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("archiver", ARCHIVERS, ids=lambda call: call.__name__)
async def test_cancellation_at_every_step_loses_nothing(archiver: Call, after: bool, tmp_path: Path) -> None:
    """An archiver that is cancelled at any call leaves a session that reads as before, and the same store archives it later."""
    for number in range(1, await steps_of(archiver, tmp_path / "count") + 1):
        async with world(tmp_path / f"{number}") as (backend, place):
            gate = Gate(hold=number, after=after)
            async with process(backend, place, gate) as store:
                task = asyncio.create_task(archiver(store))  # type: ignore[arg-type]
                await gate.held.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                gate.hold = None
                await archiver(store)
            await whole(backend, place, dropped=archiver is drop)


@pytest.mark.long
@pytest.mark.parametrize("other", OTHERS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("archiver", ARCHIVERS, ids=lambda call: call.__name__)
async def test_an_archiver_paused_at_every_step_undoes_nothing(archiver: Call, other: Call, tmp_path: Path) -> None:
    """While an archiver is paused before any call, another process works on the session. When the archiver goes on, or gives up, nothing
    that the other one did or removed is undone, and nothing acknowledged is lost."""
    for number in range(1, await steps_of(archiver, tmp_path / "count") + 1):
        async with world(tmp_path / f"{number}") as (backend, place):
            gate = Gate(hold=number)
            async with process(backend, place, gate) as store, process(backend, place) as second:
                task = asyncio.create_task(archiver(store))  # type: ignore[arg-type]
                await gate.held.wait()
                refused = False
                try:
                    await other(second)
                except (perdure.Invalid, perdure.Truncated, perdure.Busy):
                    refused = True  # A fork that reads through it, or a drop that came first.
                gate.go.set()
                with suppress(
                    perdure.Busy, perdure.Deleted, perdure.Invalid, perdure.Corrupt if other in (purge, recreate) else perdure.Busy
                ):
                    await task
            dropped = drop in (archiver, other) or other is archive_write_and_drop
            await whole(backend, place, dropped=dropped, gone=other in (delete, purge, recreate) and not refused)


@pytest.mark.parametrize("second", ARCHIVERS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("first", ARCHIVERS, ids=lambda call: call.__name__)
async def test_two_archivers_and_a_writer_at_once(first: Call, second: Call, tmp_path: Path) -> None:
    """Archivers of every kind and a writer work at the same time: each ends, by an answer or `Busy`, and nothing is lost."""
    async with world(tmp_path) as (backend, place):

        async def work(call: Call) -> None:
            async with process(backend, place) as store:
                for _ in range(4):
                    with suppress(perdure.Busy):
                        await call(store)
                    await asyncio.sleep(0)

        await asyncio.gather(work(first), work(second), work(append), work(archive), work(restore))
        await whole(backend, place, dropped=drop in (first, second))
        async with process(backend, place) as store:
            assert (await store.read(S)).state["late"] == 4
