"""The policy that an adapter's sessions begin with: in the append that starts them, over that of a prefix, under one set by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import Event, Kind, op
from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.expired import append_or_begin, expired_at, follows_expiry
from perdure.backends.memory import MemoryBackend
from tests.backends.test_old_engine import OldEngine
from tests.support.ops.backend_calls import CountedCalls, Died, store_on
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

NONE: dict[str, Any] = {"expire_after": None, "keep": None, "drop": False}
STATE = Event("a", None, (op.set("/n", 1),))


async def edited(store: perdure.Store) -> None:
    async with store.edit("s") as draft:
        draft.state["n"] = 1


WAYS: dict[str, Callable[[perdure.Store], Awaitable[Any]]] = {
    "events": lambda store: store.append("s", Event("a")),
    "state": lambda store: store.append("s", STATE),
    "first": lambda store: store.append("s", STATE, expect=0, on_conflict="raise"),
    "with a key": lambda store: store.append("s", Event("a"), key="k"),
    "edit": edited,
}
AGAIN: dict[str, Callable[[perdure.Store], Awaitable[Any]]] = {
    "events": lambda store: store.append("s", Event("b"), recreate=True),
    "state": lambda store: store.append("s", STATE, recreate=True),
    "first": lambda store: store.append("s", STATE, expect=0, on_conflict="raise", recreate=True),
    "with a key": lambda store: store.append("s", Event("b"), key="k", recreate=True),
}


@pytest.mark.parametrize("way", WAYS)
async def test_no_kill_leaves_a_session_without_its_policy(way: str) -> None:
    """Killed before or after any call of the engine, the session is not there, or has its policy and is due."""
    calls = 1
    while True:
        died = False
        for late in (False, True):
            clock = SimulatedClock()
            backend = MemoryBackend(clock)
            counted = CountedCalls(backend, die_at=calls, late=late)
            try:
                await WAYS[way](with_policy(store_on(counted, clock), **{**NONE, "expire_after": DAY}))
            except Died:
                died = True
            other = store_on(backend, clock)
            if [info.session async for info in other.list()]:
                assert (await other.policy("s")).expire_after == DAY
                assert await swept(other) == [("s", "looked")]
                await other.verify("s")
        calls += 1
        if not died:
            assert calls > 2
            return


@pytest.mark.parametrize("way", AGAIN)
async def test_no_kill_leaves_a_later_life_without_its_policy(way: str) -> None:
    """The same for a session that is created again after a deletion; the receipt names the data commit, whatever came with it."""
    calls = 1
    while True:
        died = False
        for late in (False, True):
            clock = SimulatedClock()
            backend = MemoryBackend(clock)
            other = store_on(backend, clock)
            first = store_on(backend, clock)
            await WAYS[way](first)
            await first.delete("s")
            counted = CountedCalls(backend, die_at=calls, late=late)
            store = with_policy(store_on(counted, clock), **{**NONE, "keep": 5, "drop": True})
            try:
                receipt = await AGAIN[way](store)
            except Died:
                died = True
            else:
                commits = [commit async for commit in other.history("s")]
                assert [commit.kind for commit in commits] == [Kind.data, Kind.configure]
                assert (receipt.version, receipt.hash) == (commits[0].version, commits[0].hash)
                await other.append("s", STATE, expect=receipt.version, on_conflict="raise")
            try:
                policy = await other.policy("s")
            except perdure.Deleted:
                continue
            assert (policy.keep, policy.drop) == (5, True)
            await other.verify("s")
            assert await swept(other) == [("s", "looked")]
        calls += 1
        if not died:
            assert calls > 2
            return


async def test_a_lease_begins_with_it_in_its_take() -> None:
    """A session that a lease starts has the policy in the append that takes it: two appends are the take and the release."""
    clock = SimulatedClock()
    counted = CountedCalls(MemoryBackend(clock))
    store = with_policy(store_on(counted, clock), **{**NONE, "expire_after": DAY})
    async with store.lease("s", owner="one"):
        assert (await store.policy("s")).expire_after == DAY
    assert counted.names.count("append") == 2
    kinds = [commit.kind async for commit in store.history("s", control=True)]
    assert kinds == [Kind.configure, Kind.lease, Kind.lease]
    await store.close()


async def test_a_fork_begins_with_it() -> None:
    """A fork that the adapter makes has the adapter's policy, and not its parent's."""
    async with perdure.open("memory:") as store:
        await store.append("s", STATE)
        await store.configure("s", expire_after=5)
        await with_policy(store, **{**NONE, "expire_after": DAY}).fork("s", id="f")
        assert (await store.policy("f")).expire_after == DAY


async def test_what_was_set_by_hand_stays() -> None:
    """A session that is there keeps its policy, and the lack of one; what `configure` sets later holds."""
    async with perdure.open("memory:") as store:
        own = with_policy(store, **{**NONE, "expire_after": DAY})
        await store.append("old", Event("a"))
        await own.append("old", Event("b"))
        assert (await store.policy("old")).expire_after is None
        await own.append("new", Event("a"))
        await store.configure("new", expire_after=3 * DAY)
        await own.append("new", Event("b"))
        async with own.lease("new", owner="one"):
            pass
        assert (await store.policy("new")).expire_after == 3 * DAY


async def test_what_is_left_out_stays_with_the_prefix() -> None:
    """The prefix's policy holds where the adapter gives none, value by value; without any the adapter's store is the store itself."""
    async with perdure.open("memory:") as store:
        await store.configure(prefix="trip-", expire_after=DAY, grace=60, keep=100, drop=True)
        assert with_policy(store, **NONE) is store
        await with_policy(store, **{**NONE, "keep": timedelta(days=2), "drop": True}).append("trip-1", Event("a"))
        await with_policy(store, **{**NONE, "expire_after": 90}).append("trip-2", Event("a"))
        one, two = await store.policy("trip-1"), await store.policy("trip-2")
        assert (one.expire_after, one.grace, one.keep, one.drop) == (DAY, timedelta(seconds=60), timedelta(days=2), True)
        assert (two.expire_after, two.keep, two.prefix) == (timedelta(seconds=90), 100, None)


async def test_a_lease_that_starts_a_session_begins_with_the_prefix_policy() -> None:
    """Without an adapter too: the session that a lease starts has the policy of its prefix."""
    async with perdure.open("memory:") as store:
        await store.configure(prefix="trip-", expire_after=DAY)
        async with store.lease("trip-1", owner="one") as lease:
            await store.append("trip-1", Event("a"), lease=lease)
        assert (await store.policy("trip-1")).prefix == "trip-"
        assert [commit.kind async for commit in store.history("trip-1", control=True)][:2] == [Kind.configure, Kind.lease]
        await store.verify("trip-1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": 0, "drop": True}, "keep takes 1 to"),
        ({"keep": True, "drop": True}, "number of commits"),
        ({"keep": "30d", "drop": True}, "keep takes"),
        ({"keep": timedelta(0), "drop": True}, "keep takes"),
        ({"expire_after": -1}, "expire_after takes"),
        ({"expire_after": float("nan")}, "expire_after takes"),
        ({"expire_after": "30d"}, "expire_after takes"),
        ({"drop": True}, "needs keep"),
        ({"keep": 5, "drop": "yes"}, "drop must be"),
    ],
)
async def test_values_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    """They are `Invalid` when the adapter is made, as `configure` says it."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid, match=words):
            with_policy(store, **{**NONE, **options})


async def test_what_the_store_cannot_do() -> None:
    """`keep` without `drop` needs an archive, and every policy a store of schema 2: `Unsupported` says so when the adapter is made."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Unsupported, match="archive="):
            with_policy(store, **{**NONE, "keep": 5})
    old = store_on(OldEngine(SimulatedClock()), SimulatedClock())
    with pytest.raises(perdure.Unsupported):
        with_policy(old, **{**NONE, "expire_after": 5})


async def test_only_what_expired_begins_again() -> None:
    """A session that has expired begins again with its policy; one that was deleted by hand stays deleted."""
    clock = SimulatedClock()
    store = store_on(MemoryBackend(clock), clock)
    own = with_policy(store, **{**NONE, "expire_after": DAY})
    for name in ("expired", "deleted", "alive"):
        await append_or_begin(own, name, Event("a"))
    await store.delete("deleted")
    assert await swept(store) == [("alive", "looked"), ("expired", "looked")]
    await store.configure("alive", expire_after=None)
    clock.advance(days=2)
    assert await swept(store) == [("expired", "expired")]
    assert [await expired_at(store, name) for name in ("expired", "deleted", "alive", "none")] == [3, None, None, None]
    with pytest.raises(perdure.Conflict):
        await own.append("expired", Event("b"), expect=0, on_conflict="raise", recreate=True)
    assert (await append_or_begin(own, "expired", Event("b"), expect=0, on_conflict="raise")).version == 4
    with pytest.raises(perdure.Deleted):
        await append_or_begin(own, "deleted", Event("b"))
    assert (await store.policy("expired")).expire_after == DAY
    assert await follows_expiry(store, "expired")
    await store.verify("expired")


async def test_what_was_purged_begins_again() -> None:
    """After its grace nothing is left of an expired session but a stub: what is written begins it again, with its policy."""
    clock = SimulatedClock()
    store = store_on(MemoryBackend(clock), clock)
    own = with_policy(store, **{**NONE, "expire_after": DAY})
    await append_or_begin(own, "s", Event("a"))
    await swept(store)
    clock.advance(days=2)
    assert await swept(store) == [("s", "expired")]
    clock.advance(days=8)
    assert await swept(store) == [("s", "purged")]
    assert (await append_or_begin(own, "s", Event("b"))).version == 4
    assert (await store.policy("s")).expire_after == DAY
    assert await swept(store) == [("s", "looked")]
    await store.verify("s")
