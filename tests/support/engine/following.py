"""What followers of changes claim on every engine: what they are given of each session, from the start, from every cursor, and live."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import perdure
from perdure import Change, Event, Kind, Store
from perdure.engine.store import system_store
from perdure.model.ids import SessionKey

Versions = dict[str, list[int]]


async def changes(store: Store, **options: Any) -> list[Change]:
    """All changes up to now."""
    async with asyncio.timeout(120):
        return [change async for change in store.changes(follow=False, **options)]


async def collect(found: list[Change], given: AsyncIterator[Change]) -> None:
    """Put them into the list one by one, so that it has what came before an error."""
    async for change in given:
        found.append(change)  # noqa: PERF401


def versions(found: list[Change]) -> Versions:
    """The versions of each session, in the order in which they came."""
    by_session = defaultdict(list)
    for change in found:
        by_session[change.session].append(change.commit.version)
    return dict(by_session)


async def followed(store: Store, upto: int, **options: Any) -> list[Change]:
    """So many changes, of those that are there and those to come."""
    found: list[Change] = []
    async with asyncio.timeout(200), aclosing(store.changes(**options)) as given:  # type: ignore[type-var]
        async for change in given:
            found.append(change)
            if len(found) >= upto:
                break
    return found


async def lives(store: Store) -> Versions:
    """Sessions with forks, deletions, second lives and purges, beside another tenant's and Perdure's own; what a follower gets of them."""
    for tenant in (store.for_tenant("another"), system_store(store)):
        await tenant.append("not for you", Event("secret"))
    for session in ("plain", "again", "purged", "purged, again"):
        for number in range(3):
            await store.append(session, Event("n", number))
    await store.fork("plain", at=2, id="fork")
    await store.append("fork", Event("n"))
    await store.append("again", Event("n"))
    for session in ("again", "purged", "purged, again"):
        await store.delete(session)
    for session in ("purged", "purged, again"):
        await store.purge(session)
    for session in ("again", "purged, again"):
        await store.append(session, Event("n"), recreate=True)
    return {"plain": [1, 2, 3, 4], "fork": [3, 4], "again": [1, 2, 3, 4, 5, 6], "purged": [4], "purged, again": [4, 5]}


async def everything_comes_in_order(store: Store) -> None:
    """A follower from the start gets what is left of every life in order: the pin of a fork, tombstones, of a purged session the stub;
    nothing of other tenants. After each of its cursors comes all that had not come, and nothing that had, unless more came meanwhile."""
    expected = await lives(store)
    found = await changes(store)
    assert versions(found) == expected
    kinds = {(change.session, change.commit.version): change.commit.kind for change in found}
    assert {place for place, kind in kinds.items() if kind is Kind.tombstone} == {("again", 5), ("purged", 4), ("purged, again", 4)}
    assert kinds["plain", 4] is Kind.pin and kinds["fork", 3] is Kind.configure
    for change in found:
        if change.session in ("plain", "fork", "again"):
            (commit,) = [
                commit
                async for commit in store.history(
                    change.session, after=change.commit.version - 1, before=change.commit.version + 1, include_deleted=True
                )
            ]
            assert commit == change.commit
    for number, change in enumerate(found):
        assert versions(await changes(store, after=change.cursor)) == versions(found[number + 1 :]), change
    last = found[-1].cursor
    await store.append("plain", Event("late"))
    assert versions(await changes(store, after=last)) == {"plain": [5]}
    assert versions(await changes(store, after=last, prefix="f")) == {}


async def writers_are_followed(mine: Store, other: Store, *, sessions: int = 8, commits: int = 20) -> None:
    """Followers that start at the start, and from a cursor, get all commits of writers in two stores once, each session in order."""
    await mine.append("s0", Event("n"))
    (first,) = await changes(mine)
    whole = asyncio.create_task(followed(mine, 1 + sessions * commits))
    later = asyncio.create_task(followed(mine, sessions * commits // 2, after=first.cursor, prefix="s"))

    async def write(store: Store, session: str) -> None:
        for number in range(commits // 2):
            await store.append(session, Event("n", number))

    names = [f"{'s' if number % 2 == 0 else 'other '}{number}" for number in range(sessions)]
    await asyncio.gather(*(write(store, name) for name in names for store in (mine, other)))
    everything = {name: list(range(1, commits + 1)) for name in names}
    assert versions(await whole) == everything | {"s0": list(range(1, commits + 2))}
    assert versions(await later) == {name: found for name, found in everything.items() if name[0] == "s"} | {
        "s0": list(range(2, commits + 2))
    }


async def what_is_truncated_is_said(store: Store) -> None:
    """Where commits were truncated before a follower read them it is `Truncated`, with a cursor to go on after the gap. What comes
    before it is given first."""
    await store.append("a", Event("n"))
    for _ in range(4):
        await store.append("cut", Event("n"))
    (start,) = [change for change in await changes(store, prefix="cut") if change.commit.version == 2]
    await truncate(store, "cut", below=4)
    await store.append("a", Event("n"))
    for after in (None, start.cursor):
        found: list[Change] = []
        with pytest.raises(perdure.Truncated) as caught:
            await collect(found, store.changes(after=after, follow=False))
        assert (caught.value.session, caught.value.first) == ("cut", 4)
        rest = await changes(store, after=caught.value.cursor)
        assert versions(rest)["cut"] == [4, 5]
        assert versions([*found, *rest])["a"] in ([1, 2], [2] if after else [])


async def truncate(store: Store, session: str, below: int) -> None:
    """Drop the commits of a session below a version, as a retention does."""
    core = store._core
    key = SessionKey(store.tenant, session)
    receipt = await core.controls.write(key, Kind.anchor, Event("anchored"), durability=core.durability)
    await core.backend.truncate(key, below, (receipt.version, receipt.hash))


async def a_session_that_is_purged_goes_on(store: Store) -> None:
    """A follower that has seen a session's first commits gets, when the rest was purged, its stub and then its next life."""
    await store.append("s", Event("n"))
    seen = await followed(store, 1)
    await store.append("s", Event("n"))
    await store.delete("s")
    await store.purge("s")
    await store.append("s", Event("n"), recreate=True)
    rest = await followed(store, 2, after=seen[-1].cursor)
    assert [(change.commit.version, change.commit.kind) for change in rest] == [(3, Kind.tombstone), (4, Kind.data)]
