"""A tombstone ends a life: keys, history, forks and watches of it are for audit alone, and a second life begins with nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.model.commit import Kind

FIRST, TOMBSTONE, SECOND = 1, 4, 5
"""Versions of the session that `lives` makes: its first commit, the end of its first life, and the first commit of its second."""


async def lives(store: perdure.Store, *, again: bool) -> datetime:
    """A session `s` whose first life had state, a key, tags and a fork `old`; with `again`, also a second life. A moment of the first."""
    await store.append("s", Event("first", None, (op.set("/secret", "first life"),)), key="k1")
    await store.configure("s", tags={"life": "first"})
    await store.fork("s", id="old")  # A pin: version 3.
    moment = datetime.now(UTC)
    await store.append("old", Event("forked", None, (op.set("/old", True),)))
    await store.delete("s")
    if again:
        await store.append("s", Event("second", None, (op.set("/n", 2),)), key="k2", recreate=True)
    return moment


async def versions(commits: AsyncIterator[perdure.Commit]) -> list[int]:
    return [commit.version async for commit in commits]


async def watched(store: perdure.Store, count: int, **options: Any) -> list[int]:
    found: list[int] = []
    async with aclosing(store.watch("s", **options)) as commits:
        async for commit in commits:
            found.append(commit.version)
            if len(found) == count:
                break
    return found


async def edited(store: perdure.Store, **options: Any) -> Any:
    async with store.edit("s", **options) as draft:
        seen = {**draft.state}
        draft.state["edited"] = True
    return seen


async def updated(store: perdure.Store, **options: Any) -> Any:
    async def change(draft: perdure.Draft) -> Any:
        draft.add("/n", 1)
        return {**draft.state}

    return (await store.update("s", change, **options))[1]


async def listed(store: perdure.Store, **options: Any) -> list[str]:
    return [info.session async for info in store.list(prefix="s", **options)]


async def changed(store: perdure.Store) -> list[int]:
    return [change.commit.version async for change in store.changes(prefix="s", follow=False) if change.session == "s"]


async def leased(store: perdure.Store) -> str:
    async with store.lease("s", owner="w", wait=0) as lease:
        return lease.session


async def due_taken(store: perdure.Store) -> list[str]:
    """The sessions that `take_due` gives."""
    return [lease.session async for lease in store.take_due(owner="t", limit=1)]


async def claimed(store: perdure.Store) -> list[str]:
    return [lease.session async for lease in store.claim(owner="w")]


async def holders(store: perdure.Store) -> list[str]:
    async with store.lease("other", owner="w", wait=0):
        return [info.session async for info in store.leases()]


async def seen(view: Awaitable[perdure.View]) -> Any:
    return (await view).state


async def number(receipt: Awaitable[perdure.Receipt | None]) -> int | None:
    found = await receipt
    return None if found is None else found.version


Call = Callable[[perdure.Store, datetime], Awaitable[Any]]
D, C, INVALID = perdure.Deleted, perdure.Conflict, perdure.Invalid
OPS = Event("x", None, (op.set("/x", 1),))
TABLE: dict[str, tuple[Call, Any, Any]] = {
    # name: the call; what it answers or raises when the session is deleted; when it was made anew
    "append": (lambda s, t: number(s.append("s", OPS)), D, 6),
    "append events": (lambda s, t: number(s.append("s", Event("x"))), D, 6),
    "append recreate": (lambda s, t: number(s.append("s", OPS, recreate=True)), 5, 6),
    "append expect=0": (lambda s, t: s.append("s", OPS, expect=0), D, perdure.AlreadyExists),
    "append expect=first": (lambda s, t: s.append("s", OPS, expect=FIRST), D, C),
    "append events expect=first": (lambda s, t: s.append("s", Event("x"), expect=FIRST), D, C),
    "append expect=first recreate": (lambda s, t: number(s.append("s", OPS, expect=FIRST, recreate=True)), 5, C),
    "append expect=tombstone recreate": (lambda s, t: number(s.append("s", OPS, expect=TOMBSTONE, recreate=True)), 5, 6),
    "append key of the first life": (lambda s, t: number(s.append("s", Event("x"), key="k1")), D, 6),
    "append with ops, key of the first life": (lambda s, t: number(s.append("s", OPS, key="k1")), D, 6),
    "append recreate, key of the first life": (lambda s, t: number(s.append("s", OPS, key="k1", recreate=True)), 5, 6),
    "edit": (lambda s, t: edited(s), D, {"n": 2}),
    "edit recreate": (lambda s, t: edited(s, recreate=True), {}, {"n": 2}),
    "edit expect=first": (lambda s, t: edited(s, expect=FIRST), D, C),
    "edit expect=first recreate": (lambda s, t: edited(s, expect=FIRST, recreate=True), {}, C),
    "edit key of the first life": (lambda s, t: edited(s, key="k1"), D, {"n": 2}),
    "edit recreate, key of the first life": (lambda s, t: edited(s, key="k1", recreate=True), {}, {"n": 2}),
    "update": (lambda s, t: updated(s), D, {"n": 3}),
    "update recreate": (lambda s, t: updated(s, recreate=True), {"n": 1}, {"n": 3}),
    "update expect=first": (lambda s, t: updated(s, expect=FIRST), D, C),
    "update recreate, key of the first life": (lambda s, t: updated(s, key="k1", recreate=True), {"n": 1}, {"n": 3}),
    "merge of the first life's fork": (lambda s, t: s.merge("old", into="s"), D, INVALID),
    "merge of it into its fork": (lambda s, t: s.merge("s", into="old"), D, INVALID),
    "fork": (lambda s, t: s.fork("s", id="f"), D, "f"),
    "fork at=first": (lambda s, t: s.fork("s", at=FIRST), D, D),
    "fork at=tombstone": (lambda s, t: s.fork("s", at=TOMBSTONE), D, D),
    "fork at=second": (lambda s, t: s.fork("s", at=SECOND, id="f"), D, "f"),
    "history": (lambda s, t: versions(s.history("s")), D, [5]),
    "history backwards": (lambda s, t: versions(s.history("s", newest_first=True)), D, [5]),
    "history after=first": (lambda s, t: versions(s.history("s", after=FIRST)), D, [5]),
    "history before=tombstone": (lambda s, t: versions(s.history("s", before=TOMBSTONE)), D, []),
    "history for audit": (lambda s, t: versions(s.history("s", include_deleted=True)), [1, 2, 3, 4], [1, 2, 3, 4, 5]),
    "history backwards for audit": (
        lambda s, t: versions(s.history("s", newest_first=True, include_deleted=True)), [4, 3, 2, 1], [5, 4, 3, 2, 1],
    ),
    "read": (lambda s, t: seen(s.read("s")), D, {"n": 2}),
    "read eventual": (lambda s, t: seen(s.read("s", consistency="eventual")), D, {"n": 2}),
    "read at=first": (lambda s, t: seen(s.read("s", at=FIRST)), D, D),
    "read at=tombstone": (lambda s, t: seen(s.read("s", at=TOMBSTONE)), D, D),
    "read at a time of the first life": (lambda s, t: seen(s.read("s", at=t)), D, D),
    "read at a time before it": (lambda s, t: seen(s.read("s", at=datetime(2000, 1, 1, tzinfo=UTC))), D, D),
    "read now": (lambda s, t: seen(s.read("s", at=datetime.now(UTC))), D, {"n": 2}),
    "read for audit": (lambda s, t: seen(s.read("s", include_deleted=True)), {}, {"n": 2}),
    "read at=first for audit": (
        lambda s, t: seen(s.read("s", at=FIRST, include_deleted=True)), {"secret": "first life"}, {"secret": "first life"},
    ),
    "read at a time for audit": (
        lambda s, t: seen(s.read("s", at=t, include_deleted=True)), {"secret": "first life"}, {"secret": "first life"},
    ),
    "watch": (lambda s, t: watched(s, 1), D, [5]),
    "watch after=first": (lambda s, t: watched(s, 1, after=FIRST), D, [5]),
    "watch for audit": (lambda s, t: watched(s, 4, include_deleted=True), [1, 2, 3, 4], [1, 2, 3, 4]),
    "find, key of the first life": (lambda s, t: number(s.find("s", "k1")), None, None),
    "find, key of the second life": (lambda s, t: number(s.find("s", "k2")), None, 5),
    "find for audit": (lambda s, t: number(s.find("s", "k1", include_deleted=True)), 1, 1),
    "configure": (lambda s, t: number(s.configure("s", tags={})), D, 6),
    "configure expire_after": (lambda s, t: number(s.configure("s", expire_after=60)), D, 6),
    "policy": (lambda s, t: s.policy("s"), D, perdure.Policy()),
    "list": (lambda s, t: listed(s), [], ["s"]),
    "list by the first life's tags": (lambda s, t: listed(s, tags={"life": "first"}), [], []),
    "list deleted": (lambda s, t: listed(s, status="deleted"), ["s"], []),
    "delete": (lambda s, t: number(s.delete("s")), D, 6),
    "archive": (lambda s, t: s.archive("s"), D, perdure.Archived),
    "compact": (lambda s, t: s.compact("s", keep=0), D, perdure.Archived),
    "compact drop": (lambda s, t: s.compact("s", keep=0, drop=True), D, INVALID),  # The first life's fork reads through it.
    "restore": (lambda s, t: s.restore("s"), D, False),
    "purge": (lambda s, t: s.purge("s"), INVALID, INVALID),  # Its fork still reads through it; then it is not deleted.
    "lease": (lambda s, t: leased(s), D, "s"),
    "claim": (lambda s, t: claimed(s), [], []),
    "take_due": (lambda s, t: due_taken(s), [], []),
    "adopt": (lambda s, t: s.adopt("s", f"1-{'0' * 64}"), perdure.Error, perdure.Error),
    "token": (lambda s, t: s.token("s"), D, str),
    "leases": (lambda s, t: holders(s), ["other"], ["other"]),
    "break_lease": (lambda s, t: s.break_lease("s"), D, None),
    "changes": (lambda s, t: changed(s), [1, 2, 3, 4], [1, 2, 3, 4, 5]),
    "sizes": (lambda s, t: s.sizes("s"), D, perdure.Sizes),
    "sizes for audit": (lambda s, t: s.sizes("s", include_deleted=True), perdure.Sizes, perdure.Sizes),
    "verify": (lambda s, t: s.verify("s"), perdure.Verified, perdure.Verified),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "again"])
@pytest.mark.parametrize("fresh", [False, True], ids=["known", "fresh"])
async def test_every_call_meets_the_life_of_today(tmp_path: Any, again: bool, fresh: bool) -> None:
    """Each public call on a deleted session, and on one that was made anew, does what the table says, whatever the store remembers."""

    for place, (name, (call, deleted, anew)) in enumerate(TABLE.items()):
        expected = anew if again else deleted
        url = f"sqlite:///{tmp_path}/{place}.db"
        archive = f"file://{tmp_path}/archive-{place}"
        async with perdure.open(url, archive=archive) as store, perdure.open(url, archive=archive) as other:
            moment = await lives(store, again=again)
            user = other if fresh else store
            if isinstance(expected, type) and issubclass(expected, perdure.Error):
                before = await versions(store.history("s", include_deleted=True))
                try:
                    answer = await call(user, moment)
                except expected:
                    assert await versions(store.history("s", include_deleted=True)) == before, name
                else:
                    raise AssertionError(f"{name} answered {answer!r} instead of {expected.__name__}")
            elif isinstance(expected, type):
                assert isinstance(await call(user, moment), expected), name
            else:
                assert await call(user, moment) == expected, name
            await store.verify("s")


def test_the_table_names_every_call() -> None:
    """A public call of the store that the table of lives leaves out is found here."""
    others = {"close", "for_tenant", "new_id", "capabilities", "id", "tenant", "cache_info"}
    others |= {"enqueue", "queued", "flush"}  # They need a spool: tests/engine/spool has their lives.
    calls = {name for name in dir(perdure.Store) if not name.startswith("_")} - others
    assert calls <= {name.split()[0].rstrip(",") for name in TABLE}, calls


async def test_a_key_counts_once_in_each_life(url: str) -> None:
    """In each life a key applies once, says which commit it made, and refuses another payload; names of 255 bytes too."""

    async with perdure.open(url) as store:
        for key in ("k", "é" * 127):
            for life in range(4):
                event = Event("x", life, (op.add("/n", 1),))
                first = await store.append("s", event, key=key, recreate=True)
                again = await store.append("s", event, key=key)
                assert (again.version, again.duplicate, first.duplicate) == (first.version, True, False)
                with pytest.raises(perdure.Invalid, match="for something else"):
                    await store.append("s", Event("y"), key=key)
                async with store.edit("s", key=key) as draft:
                    assert draft.receipt.version == first.version
                assert await store.update("s", pytest.fail, key=key) == (again, None)
                assert (await store.find("s", key)).version == first.version
                assert [commit.key async for commit in store.history("s")] == [key]
                assert (await store.read("s")).state == {"n": 1}
                await store.verify("s")
                await store.delete("s")
                assert await store.find("s", key) is None
                with pytest.raises(perdure.Deleted):
                    await store.append("s", event, key=key)
                with pytest.raises(perdure.Deleted):
                    async with store.edit("s", key=key):
                        pass


async def test_calls_with_one_key_race_into_a_second_life(url: str) -> None:
    """Of many calls that recreate a session with a key that its first life used, one writes and the others get its receipt."""

    async with perdure.open(url) as store, perdure.open(url) as other:
        stores = [store, other] if url.startswith("sqlite") else [store]
        for _ in range(10):
            await store.append("s", Event("x"), key="k", recreate=True)
            await store.delete("s")
            event = Event("x", None, (op.add("/n", 1),))
            receipts = await asyncio.gather(*[each.append("s", event, key="k", recreate=True) for each in stores for _ in range(4)])
            assert len({receipt.version for receipt in receipts}) == 1
            assert sum(not receipt.duplicate for receipt in receipts) == 1
            assert (await store.read("s")).state == {"n": 1}
            await store.delete("s")


async def test_a_watch_ends_with_its_life_and_the_next_begins_with_the_next(url: str) -> None:
    """Who watches a life gets its tombstone last, though a second life began before it looked; a new watch starts with that one."""

    async with perdure.open(url) as store:
        await store.append("s", Event("first"))
        slow = store.watch("s")
        assert (await anext(slow)).version == 1
        audit = store.watch("s", include_deleted=True)
        assert (await anext(audit)).version == 1
        await store.append("s", Event("more"))
        await store.delete("s")
        await store.append("s", Event("second"), recreate=True)
        rest = [commit async for commit in slow]
        assert [(commit.version, commit.kind) for commit in rest] == [(2, Kind.data), (3, Kind.tombstone)]
        for after in (0, 3):
            watch = store.watch("s", after=after)
            assert (await anext(watch)).version == 4
            await watch.aclose()
        assert [(await anext(audit)).version for _ in range(3)] == [2, 3, 4]
        waiting = asyncio.ensure_future(anext(audit))
        await store.delete("s")
        assert (await waiting).kind is Kind.tombstone
        await audit.aclose()


async def test_a_fork_of_a_second_life_has_nothing_of_the_first(url: str) -> None:
    """A fork's history, versions and keys begin where its parent's life began; the parent may die, and the fork goes on."""

    async with perdure.open(url) as store:
        await lives(store, again=True)
        fork = await store.fork("s")
        await store.append(fork, Event("mine", None, (op.add("/n", 1),)))
        await store.fork(fork, id="grandchild", at=SECOND)
        for session, last in ((fork, 8), ("grandchild", 6)):  # The pin of the grandchild is version 8.
            assert await versions(store.history(session)) == [*range(SECOND, last + 1)]
            assert await versions(store.history(session, newest_first=True)) == [*range(last, SECOND - 1, -1)]
            with pytest.raises(perdure.Deleted):
                await store.read(session, at=FIRST)
            with pytest.raises(perdure.Deleted):
                await store.fork(session, at=FIRST)
        await store.delete("s")
        assert (await store.read(fork)).state == {"n": 3}
        assert await versions(store.history(fork)) == [5, 6, 7, 8]
        await store.delete(fork)
        await store.append(fork, Event("anew"), recreate=True)
        assert (await store.read(fork)).state == {}
        assert await versions(store.history(fork)) == [10]
        await store.verify(fork)


async def test_the_end_of_the_last_life_is_found_in_few_reads(url: str) -> None:
    """Where a life began is found by bisection, once: a long second life costs some twenty reads, not one for each page."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await store.append("s", Event("first"))
            await store.delete("s")
            for start in range(0, 3_000, 500):
                await asyncio.gather(*[store.append("s", Event("x", number), recreate=True) for number in range(start, start + 500)])
        if url == "memory:":
            return
        async with perdure.open(url) as store:
            reads = 0
            backend = store._core.backend
            real = backend.read

            async def counted(*args: Any, **options: Any) -> Any:
                nonlocal reads
                reads += 1
                return await real(*args, **options)

            backend.read = counted  # type: ignore[method-assign]
            assert [commit.version async for commit in store.history("s", limit=1)] == [3]
            assert reads < 80
            reads = 0
            assert [commit.version async for commit in store.history("s", limit=1)] == [3]
            assert reads <= 2

    await scenario()
