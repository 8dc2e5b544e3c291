"""Other processes that write between any two calls of a sweeper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import perdure
from perdure import Event, Kind, op
from perdure.backends.memory import MemoryBackend
from perdure.ops import sweep
from tests.support.ops.backend_calls import CountedCalls, store_on
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

Other = Callable[[perdure.Store], Awaitable[Any]]


async def between(prepare: Callable[[perdure.Store, SimulatedClock], Awaitable[Any]], other: Other, number: int) -> Any:
    """Sweep, with another process's call before the sweeper's call of this number: its store, its answer or error; `None` where the
    sweeper made fewer calls."""
    clock = SimulatedClock()
    backend = MemoryBackend(clock)
    theirs = store_on(backend, clock)
    await prepare(theirs, clock)
    answer: list[Any] = []

    async def call() -> None:
        try:
            answer.append(await other(theirs))
        except perdure.Error as error:
            answer.append(error)

    await sweep(store_on(CountedCalls(backend, at=number, before=call), clock), once=True)
    return (store_on(backend, clock), clock, answer[0]) if answer else None


async def idle(store: perdure.Store, clock: SimulatedClock) -> None:
    """A session that has been idle for long enough, and one with an alarm that is due."""
    await store.append("s", Event("start", None, (op.set("/n", 1),)))
    await store.configure("s", expire_after=DAY)
    await swept(store)
    clock.advance(days=2)


async def long(store: perdure.Store, clock: SimulatedClock) -> None:
    """A session with more commits than it is to keep."""
    for number in range(12):
        async with store.edit("s") as draft:
            draft.state[f"n{number}"] = number
    await store.configure("s", keep=4, drop=True)


async def test_an_append_that_lands_before_the_tombstone_keeps_the_session() -> None:
    """Wherever it comes: it is acknowledged and the session lives, or it is refused and the session is deleted."""
    outcomes, number = set(), 0
    while True:
        number += 1
        found = await between(idle, lambda store: store.append("s", Event("used")), number)
        if found is None:
            break
        store, clock, answer = found
        assert isinstance(answer, (perdure.Receipt, perdure.Deleted))
        outcomes.add(type(answer))
        for _ in range(3):
            await sweep(store, once=True)
            if isinstance(answer, perdure.Receipt):
                assert (await store.read("s")).status is perdure.Status.active
            else:
                with pytest.raises(perdure.Deleted):
                    await store.read("s")
            clock.advance(hours=7)
    assert outcomes == {perdure.Receipt, perdure.Deleted}


@pytest.mark.parametrize(
    "other",
    [
        lambda store: store.configure("s", expire_after=None),
        lambda store: store.configure("s", expire_after=100 * DAY),
    ],
    ids=["removed", "longer"],
)
async def test_a_policy_that_was_changed_meanwhile_holds(other: Other) -> None:
    """A session whose policy is changed before its tombstone lives on."""
    number = 0
    while (found := await between(idle, other, (number := number + 1))) is not None:
        store, _, answer = found
        if isinstance(answer, perdure.Receipt):
            await sweep(store, once=True)
            assert (await store.read("s")).status is perdure.Status.active
        else:
            assert isinstance(answer, perdure.Deleted)
    assert number > 2


async def test_commits_that_are_not_kept_stay_when_the_policy_goes() -> None:
    """`keep=None` before the anchor stops it; after it, what the anchor names is gone."""
    whole, number = set(), 0
    while (found := await between(long, lambda store: store.configure("s", keep=None), (number := number + 1))) is not None:
        store, _, answer = found
        assert isinstance(answer, perdure.Receipt)
        await sweep(store, once=True)
        kinds = [commit.kind async for commit in store.history("s", after=9)]
        whole.add(Kind.anchor in kinds)
        assert len((await store.read("s")).state) == 12
        await store.verify("s")
    assert whole == {True, False}


@pytest.mark.parametrize("at", [2, 11, 13])
async def test_a_fork_that_was_acknowledged_keeps_its_past(at: int) -> None:
    """A fork made between any two calls of a sweeper that drops commits, and again later, is refused as `Truncated`, or has its state and
    can be proven, whatever is dropped afterwards."""
    outcomes, number = set(), 0
    while (found := await between(long, lambda store: store.fork("s", at=at, id="f"), (number := number + 1))) is not None:
        store, clock, answer = found
        outcomes.add(type(answer))
        for _ in range(3):
            clock.advance(days=2)
            for more in range(12):
                await store.append("s", Event("more", None, (op.set(f"/m{more}", more),)))
            await sweep(store, once=True)
        if isinstance(answer, str):
            view = await store.read("f")
            assert view.state == {f"n{n}": n for n in range(min(at, 12))}
            async with store.edit("f") as draft:
                draft.state["mine"] = True
            await store.verify("f")
        else:
            assert isinstance(answer, perdure.Truncated)
            with pytest.raises(perdure.NotFound):
                await store.read("f")
        await store.verify("s")
    assert str in outcomes


@pytest.mark.parametrize("at", [2, 11, 13])
async def test_a_sweeper_between_any_two_calls_of_a_fork(at: int) -> None:
    """The other way round: the fork is whole, or was refused and does not exist."""
    number = 0
    while True:
        number += 1
        clock = SimulatedClock()
        backend = MemoryBackend(clock)
        theirs = store_on(backend, clock)
        await long(theirs, clock)

        async def other(clock: SimulatedClock = clock, theirs: perdure.Store = theirs) -> None:
            for _ in range(3):
                await sweep(theirs, once=True)
                clock.advance(days=2)

        calls = CountedCalls(backend, at=number, before=other)
        store = store_on(calls, clock)
        try:
            await store.fork("s", at=at, id="f")
        except perdure.Truncated:
            with pytest.raises(perdure.NotFound):
                await store.read("f")
        else:
            assert (await store_on(backend, clock).read("f")).state == {f"n{n}": n for n in range(min(at, 12))}
        if calls.count < number:
            break
        await store.verify("s")
    assert number > 3


async def test_a_fork_without_a_snapshot_stops_retention() -> None:
    """It was made before anything was to be dropped, and reads its past from its parent: until it is purged nothing goes."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        for number in range(12):
            async with store.edit("s") as draft:
                draft.state[f"n{number}"] = number
        await store.fork("s", at=3, id="f")
        await store.configure("s", keep=4, drop=True)
        for _ in range(2):
            assert await swept(store) == [("s", "forked")]
            clock.advance(days=1, minutes=1)
        assert (await store.read("f")).state == {"n0": 0, "n1": 1, "n2": 2}
        await store.delete("f")
        await store.purge("f")
        assert await swept(store) == [("s", "trimmed")]
        with pytest.raises(perdure.Truncated):
            await store.fork("s", at=3, id="g")
        await store.fork("s", id="g")
        clock.advance(days=1)
        for _ in range(12):
            await store.append("s", Event("more"))
        assert await swept(store) == [("s", "trimmed")]
        assert len((await store.read("g")).state) == 12
        await store.verify("g")


async def test_a_fork_stops_the_purge_of_its_parent() -> None:
    """An expired session that a fork reads through is purged when the fork is."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await idle(store, clock)
        await store.fork("s", id="f")
        assert await swept(store) == [("s", "expired")]
        clock.advance(days=8)
        assert await swept(store) == [("s", "forked")]
        assert await swept(store) == []
        assert (await store.read("f")).state == {"n": 1}
        await store.delete("f")
        await store.purge("f")
        clock.advance(days=1, minutes=1)
        assert await swept(store) == [("s", "purged")]


async def test_a_session_that_was_deleted_by_hand_or_began_again_is_not_purged() -> None:
    """Only the tombstone of the sweeper asks for a purge; a second life, and its end, do not inherit it."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await store.append("hand", Event("start"))
        await store.configure("hand", expire_after=DAY)
        await store.delete("hand")
        await idle(store, clock)
        assert await swept(store) == [("s", "expired")]
        await store.append("s", Event("again"), recreate=True)
        clock.advance(days=30)
        assert await swept(store) == [("s", "looked")]
        await store.delete("s")
        clock.advance(days=30)
        assert await swept(store) == []
        for name in ("s", "hand"):
            kinds = [commit.kind async for commit in store.history(name, include_deleted=True)]
            assert kinds[0] is Kind.data
