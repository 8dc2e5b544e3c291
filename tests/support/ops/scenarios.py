"""What policies and sweepers do, in words that hold on every engine. Each scenario takes a store and the clock that it goes by."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.adapters.common.beginning import with_policy
from perdure.ops import Action, Swept, due, sweep
from tests.support.ops.simulated_clock import SimulatedClock

DAY = timedelta(days=1)


async def swept(store: perdure.Store) -> list[tuple[str, str]]:
    """One round: the sessions and what was done to them."""
    actions: list[Action] = []
    await sweep(store, once=True, notify=actions.append)
    return sorted((action.session, action.action) for action in actions)


async def kinds(store: perdure.Store, session: str, **options: Any) -> list[str]:
    """The types of the events of a session."""
    return [event.type async for commit in store.history(session, **options) for event in commit.events]


async def an_idle_session_expires(store: perdure.Store, clock: SimulatedClock) -> None:
    """It is deleted so long after its last data commit, purged after its grace, and one that is used stays."""
    for name in ("idle", "used", "other"):
        await store.append(name, Event("start", None, (op.set("/n", 1),)))
    for name in ("idle", "used"):
        await store.configure(name, expire_after=30 * DAY, grace=2 * DAY, tags={"a": "b"})
    assert await swept(store) == [("idle", "looked"), ("used", "looked")]
    assert await swept(store) == []
    clock.advance(days=29)
    await store.append("used", Event("again"))
    clock.advance(days=1, minutes=1)
    assert await swept(store) == [("idle", "expired"), ("used", "looked")]
    with pytest.raises(perdure.Deleted):
        await store.read("idle")
    assert (await store.read("used")).state == {"n": 1}
    tombstone = [commit async for commit in store.history("idle", include_deleted=True)][-1]
    assert tombstone.kind is perdure.Kind.tombstone and tombstone.actor == "perdure sweep"
    assert tombstone.events[0].data["expired"]["expire_after"] == 30 * 86_400
    await store.verify("idle")
    clock.advance(days=1)
    assert await swept(store) == []
    assert [found.why async for found in due(store, deleted=True)] == ["purge"]
    clock.advance(days=2)
    assert await swept(store) == [("idle", "purged")]
    with pytest.raises(perdure.Deleted):
        await store.append("idle", Event("late"))
    assert [commit.events async for commit in store.history("idle", after=2, include_deleted=True)] == [()]
    clock.advance(days=26, minutes=5)
    assert await swept(store) == [("used", "expired")]
    assert (await store.read("other")).version == 1


async def an_alarm_goes_off_once(store: perdure.Store, clock: SimulatedClock) -> None:
    """One at a time, and one that repeats: after a month without a sweeper once, with the number of those that were missed."""
    for name in ("once", "daily", "claimed"):
        await store.append(name, Event("start"))
    await store.configure("once", wake_at=clock.time + DAY)
    await store.configure("daily", wake_every=DAY)
    await store.configure("claimed", wake_every=DAY, wake="claim")
    assert await swept(store) == []
    clock.advance(days=30, minutes=1)
    assert await swept(store) == [("claimed", "waiting"), ("daily", "woken"), ("once", "woken")]
    assert await swept(store) == [("claimed", "waiting")]
    assert await kinds(store, "once") == ["start", "configured", "woken"]
    woken = [commit async for commit in store.history("daily")][-1].events[0]
    assert woken.data["missed"] == 29
    assert (await store.policy("once")).wake_at is None
    following = (await store.policy("daily")).wake_at
    assert following is not None and clock.time < following < clock.time + DAY
    clock.advance(days=1)
    assert await swept(store) == [("claimed", "waiting"), ("daily", "woken")]
    for name in ("once", "daily", "claimed"):
        await store.verify(name)


async def old_commits_are_dropped(store: perdure.Store, clock: SimulatedClock) -> None:
    """By number and by age: the state stays, keys stay known, what is left can be read and proven, and new commits go on from it."""
    for name in ("many", "aged"):
        for number in range(30):
            async with store.edit(name, key=f"k{number}") as draft:
                draft.state[f"n{number}"] = number
    await store.configure("many", keep=5, drop=True, tags={"a": "b"})
    await store.configure("aged", keep=10 * DAY, drop=True)
    assert await swept(store) == [("aged", "looked"), ("many", "trimmed")]
    clock.advance(days=11)
    async with store.edit("aged", key="new") as draft:
        draft.state["new"] = True
    assert await swept(store) == [("aged", "trimmed"), ("many", "looked")]
    for name, first, size in (("many", 27, 30), ("aged", 32, 31)):
        view = await store.read(name)
        assert len(view.state) == size
        left = [commit.version async for commit in store.history(name, after=first - 1)]
        assert left == list(range(first, view.version + 1))
        with pytest.raises(perdure.Truncated) as caught:
            await kinds(store, name)
        assert caught.value.first == first
        with pytest.raises(perdure.Truncated):
            await store.fork(name, at=3)
        assert (await store.verify(name)).commits == len(left)
        found = await store.find(name, "k3")
        assert found is not None and found.version == 4
        assert (await store.append(name, Event("again"))).version == view.version + 1
    assert await swept(store) == []
    assert (await store.read("many", at=27)).state.keys() == {f"n{number}" for number in range(27)}
    assert (await store.read("many")).tags == {"a": "b"}
    assert (await store.policy("many")).keep == 5
    clock.advance(days=2)
    assert await swept(store) == [("aged", "looked"), ("many", "trimmed")]
    for _ in range(3):  # What was written by sweepers alone is no reason to write more.
        clock.advance(days=2)
        assert await swept(store) == [("aged", "looked"), ("many", "looked")]


async def sessions_of_a_prefix_begin_with_its_policy(store: perdure.Store, clock: SimulatedClock) -> None:
    """Appends, edits and forks; the longest prefix decides; what was started meanwhile gets it later, what was there before does not."""
    await store.append("trip-old", Event("start"))
    await store.configure(prefix="trip-", expire_after=30 * DAY)
    await store.configure(prefix="trip-long-", expire_after=90 * DAY)
    store._core.prefixes.forget(store.tenant)
    await store.append("trip-1", Event("start"), key="k")
    assert (await store.append("trip-1", Event("start"), key="k")).duplicate
    async with store.edit("trip-2") as draft:
        draft.state["a"] = 1
    await store.append("trip-long-1", Event("start"), expect=0)
    await store.fork("trip-old", id="trip-fork")
    await store.append("plain", Event("start"))
    ages = {name: (await store.policy(name)).expire_after for name in ("trip-1", "trip-2", "trip-long-1", "trip-fork", "plain", "trip-old")}
    assert ages == dict(zip(ages, (30 * DAY, 30 * DAY, 90 * DAY, 30 * DAY, None, None), strict=True))
    assert (await store.policy("trip-1")).prefix == "trip-"
    assert (await store.read("trip-2")).state == {"a": 1}
    for name in ages:
        await store.verify(name)
    store._core.prefixes._known.put(store.tenant, (float("inf"), []))  # A writer that has not heard of it yet.
    await store.append("trip-late", Event("start"))
    assert (await store.policy("trip-late")).expire_after is None
    first = await swept(store)
    assert {("prefix:trip-", "looked"), ("prefix:trip-long-", "looked"), ("trip-1", "looked")} <= {*first}
    clock.advance(minutes=2)
    assert await swept(store) == [("prefix:trip-", "applied"), ("prefix:trip-long-", "applied")]
    assert (await store.policy("trip-late")).expire_after == 30 * DAY
    assert (await store.policy("trip-old")).expire_after is None
    done = await sweep(store, once=True, existing=True)
    assert isinstance(done, Swept) and done.applied == 1
    assert (await store.policy("trip-old")).prefix == "trip-"
    assert [info.session async for info in store.list(prefix="prefix:")] == []
    clock.advance(days=31)
    expired = {session for session, action in await swept(store) if action == "expired"}
    assert {"trip-1", "trip-2", "trip-fork", "trip-late"} <= expired
    assert "trip-long-1" not in expired


async def sessions_of_a_writer_begin_with_its_policy(store: perdure.Store, clock: SimulatedClock) -> None:
    """By an append, an edit and a fork, and again in the life after a deletion; one that is there keeps the policy that it has."""
    await store.append("old", Event("start"))
    writer = with_policy(store, keep=None, expire_after=30 * DAY, drop=False)
    await writer.append("old", Event("more"))
    await writer.append("new", Event("start", None, (op.set("/n", 1),)))
    async with writer.edit("edited") as draft:
        draft.state["a"] = 1
    await writer.fork("old", id="fork")
    ages = {name: (await store.policy(name)).expire_after for name in ("old", "new", "edited", "fork")}
    assert ages == {"old": None, "new": 30 * DAY, "edited": 30 * DAY, "fork": 30 * DAY}
    await store.delete("new")
    receipt = await writer.append("new", Event("again", None, (op.set("/n", 2),)), recreate=True)
    assert (await store.policy("new")).expire_after == 30 * DAY
    assert (await store.read("new")).state == {"n": 2}
    assert [commit.id async for commit in store.history("new") if commit.version == receipt.version] == [receipt.id]
    for name in ages:
        await store.verify(name)
    await swept(store)
    clock.advance(days=31)
    assert {("new", "expired"), ("edited", "expired"), ("fork", "expired")} == {*await swept(store)}


SCENARIOS = (
    an_idle_session_expires,
    an_alarm_goes_off_once,
    old_commits_are_dropped,
    sessions_of_a_prefix_begin_with_its_policy,
    sessions_of_a_writer_begin_with_its_policy,
)
