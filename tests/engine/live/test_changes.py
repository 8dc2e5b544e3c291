"""Following all sessions of a tenant: every commit at least once and in order, from the start, from a cursor, live, and by choice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Change, Event, Kind, Store
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Change as FeedEntry
from perdure.backends.spi import Page
from perdure.clock import SystemClock
from perdure.engine.store import system_store
from perdure.model.ids import SessionKey
from tests.support.engine import following
from tests.support.engine.following import changes, followed, versions
from tests.support.engine.watchers import no_polling, on, until

__all__ = ["no_polling"]


async def test_everything_comes_in_order(url: str) -> None:
    """See `following.everything_comes_in_order`."""
    async with perdure.open(url) as store:
        await following.everything_comes_in_order(store)


async def test_a_session_that_is_purged_goes_on(url: str) -> None:
    """See `following.a_session_that_is_purged_goes_on`."""
    async with perdure.open(url) as store:
        await following.a_session_that_is_purged_goes_on(store)


async def test_what_is_truncated_is_said(url: str) -> None:
    """See `following.what_is_truncated_is_said`."""
    async with perdure.open(url) as store:
        await following.what_is_truncated_is_said(store)


async def test_two_handles_are_followed(file_url: str) -> None:
    """See `following.writers_are_followed`."""
    async with perdure.open(file_url) as mine, perdure.open(file_url) as other:
        await following.writers_are_followed(mine, other)


async def test_cursors_go_on_across_many_pages(url: str) -> None:
    """Of a thousand commits in several pages, each cursor of some of them gives exactly the rest, and each commit comes once."""
    async with perdure.open(url) as store:
        await asyncio.gather(*(store.append(f"s{number % 37}", Event("n", number)) for number in range(1_000)))
        found = await changes(store)
        assert len(found) == 1_000
        assert all(given == list(range(1, len(given) + 1)) for given in versions(found).values())
        for number in range(0, 1_000, 53):
            assert await changes(store, after=found[number].cursor) == await changes(store, after=found[number].cursor)
            rest = [(change.session, change.commit) for change in await changes(store, after=found[number].cursor)]
            assert rest == [(change.session, change.commit) for change in found[number + 1 :]]


async def test_a_page_in_which_more_came_is_read_again() -> None:
    """Where an engine's page has more in it when it is read again, and in the middle, a cursor from within it skips none of it."""

    class Sharded(MemoryBackend):
        """A feed in the order of sessions, as one that is read shard by shard has it."""

        async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[FeedEntry]:
            places = dict(part.split("=") for part in (cursor or "").split(",") if part)
            page = await super().feed(None, 10_000)
            entries = sorted(page.items, key=lambda entry: (entry.session.id, entry.record.head.version))
            new = [entry for entry in entries if entry.record.head.version > int(places.get(entry.session.id, 0))][:limit]
            places |= {entry.session.id: str(entry.record.head.version) for entry in new}
            return Page(new, ",".join(f"{session}={version}" for session, version in places.items()))

    async with on(Sharded(SystemClock())) as store:
        for session in "bd":
            await store.append(session, Event("n"))
        first, second = await changes(store)
        for session in "abcd":
            await store.append(session, Event("n"))
        assert versions(await changes(store, after=first.cursor)) == {"a": [1], "b": [2], "c": [1], "d": [1, 2]}
        assert versions(await changes(store, after=second.cursor)) == {"a": [1], "b": [2], "c": [1], "d": [2]}


async def test_what_the_feed_repeats_comes_once() -> None:
    """An engine that gives records again, as some may, does not make a follower give them again, or out of order."""

    class Repeating(MemoryBackend):
        async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[FeedEntry]:
            page = await super().feed(cursor, limit)
            before = await super().feed(str(max(0, int(cursor or 0) - 7)), 7)
            return Page([*before.items, *page.items], page.cursor) if page.items else page

    async with on(Repeating(SystemClock())) as store:
        for number in range(60):
            await store.append(f"s{number % 3}", Event("n"))
        assert versions(await changes(store)) == {f"s{number}": list(range(1, 21)) for number in range(3)}


async def test_a_notification_wakes_a_follower_for_its_tenant_alone(url: str) -> None:
    """What another task of the store commits comes at once; commits of other tenants and of Perdure's own sessions wake nobody."""
    async with perdure.open(url) as store:
        following_it = asyncio.create_task(followed(store, 1))
        await until(lambda: bool(store._core.watchers._followers))
        await _settled(store)
        (signal,) = store._core.watchers._followers["default"]
        woken: list[int] = []
        notify, signal.notify = signal.notify, lambda: (woken.append(1), notify())[1]  # type: ignore[method-assign]
        for other in (store.for_tenant("another"), system_store(store)):
            await other.append("s", Event("n"))
        assert not woken
        await store.append("s", Event("n"))
        assert versions(await following_it) == {"s": [1]}
        assert woken
        await until(lambda: not store._core.watchers._followers)


async def test_types_prefix_and_control_choose(url: str) -> None:
    """Event types cut commits as `history` does; a prefix chooses sessions; a lease commit comes only where it is asked for."""
    async with perdure.open(url) as store:
        await store.append("trip-1", Event("a"), Event("b"))
        await store.append("trip-2", Event("b"))
        await store.append("other", Event("a"))
        core = store._core
        await core.controls.write(SessionKey("default", "trip-1"), Kind.lease, Event("taken"), durability=core.durability)
        await store.delete("trip-2")
        found = await changes(store, types={"a", "deleted"})
        assert [(change.session, [event.type for event in change.commit.events]) for change in found] == [
            ("trip-1", ["a"]), ("other", ["a"]), ("trip-2", ["deleted"]),
        ]  # fmt: skip
        assert versions(await changes(store, prefix="trip-")) == {"trip-1": [1], "trip-2": [1, 2]}
        assert versions(await changes(store, prefix="trip-", control=True)) == {"trip-1": [1, 2], "trip-2": [1, 2]}
        await store.append("trip-1", Event("a"))
        assert versions(await changes(store, prefix="trip-1")) == {"trip-1": [1, 3]}


async def test_tags_choose(url: str) -> None:
    """Commits come of sessions that have the tags when they are read: from when they get them, until they lose them; every tombstone
    that may belong to one comes too."""
    async with perdure.open(url) as store:
        async with asyncio.TaskGroup() as group:
            live = group.create_task(_watched(store, 5, tags={"team": "ops"}))
            await until(lambda: bool(store._core.watchers._followers))
            await store.append("a", Event("before"))
            await _settled(store)
            for session in ("a", "b"):
                await store.append(session, Event("n"))
                await store.configure(session, tags={"team": "ops" if session == "a" else "sales", "x": "y"})
            await _settled(store)
            await store.append("a", Event("n"))
            await store.append("b", Event("n"))
            await _settled(store)
            await store.configure("a", tags={})
            await store.append("a", Event("not seen"))
            await _settled(store)
            await store.configure("a", tags={"team": "ops"})
            await store.append("a", Event("n"))
            await _settled(store)
            await store.delete("a")
        found = live.result()
        assert {change.session for change in found} == {"a"}
        given = [change.commit.version for change in found]
        assert given[-1] == 9 and {3, 4, 7, 8} >= set(given[-5:-1]) and 6 not in given and 1 not in given
        assert versions(await changes(store, tags={"team": "sales"})) == {"a": [9], "b": [1, 2, 3]}


async def _watched(store: Store, count: int, **options: Any) -> list[Change]:
    found: list[Change] = []
    async with asyncio.timeout(60), aclosing(store.watch(**options)) as given:
        async for change in given:
            found.append(change)
            if len(found) >= count or change.commit.kind is Kind.tombstone:
                break
    return found


async def _settled(store: Store) -> None:
    """Until all followers of the store have read what there is and wait again."""
    await until(lambda: all(not signal._notified and signal._reply is not None for signal in store._core.watchers._followers["default"]))
    await asyncio.sleep(0.05)


async def test_watch_follows_many(url: str) -> None:
    """`watch(prefix=)` gives the same changes as `changes(prefix=)`, from the start and after a cursor."""
    async with perdure.open(url) as store:
        for session in ("trip-1", "other", "trip-2"):
            await store.append(session, Event("n"))
        found = await _watched(store, 2, prefix="trip-")
        assert found == await changes(store, prefix="trip-")
        await store.append("trip-1", Event("n"))
        assert versions(await _watched(store, 1, prefix="trip-", after=found[-1].cursor)) == {"trip-1": [2]}


def test_blocking_code_follows_too(file_url: str) -> None:
    """`perdure.sync` follows in a thread what another store writes, and ends with `Closed` when the store is closed."""
    with perdure.sync.open(file_url) as mine, perdure.sync.open(file_url) as other:
        seen: list[Change] = []
        ended: list[BaseException] = []
        three = threading.Event()

        def follow() -> None:
            try:
                for change in mine.changes():
                    seen.append(change)
                    if len(seen) == 3:
                        three.set()
            except perdure.Closed as error:
                ended.append(error)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        for session in "aba":
            other.append(session, Event("n"))
        assert three.wait(60)
        mine.close()
        thread.join(60)
    assert len(ended) == 1 and versions(seen) == {"a": [1, 2], "b": [1]}


async def test_the_cost_is_in_proportion_to_what_is_new() -> None:
    """A follower at the end of ten thousand commits asks for one page when a commit comes, and gets one record."""

    class Counting(MemoryBackend):
        asked: list[int]

        async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[FeedEntry]:
            page = await super().feed(cursor, limit)
            self.asked.append(len(page.items))
            return page

        async def heads(self, sessions: Sequence[SessionKey]) -> Any:
            self.asked.append(-len(sessions))
            return await super().heads(sessions)

    backend = Counting(SystemClock())
    backend.asked = []
    async with on(backend) as store:
        await asyncio.gather(*(store.append(f"s{number}", Event("n")) for number in range(5_000)))
        cursor = (await changes(store))[-1].cursor
        backend.asked.clear()
        async with aclosing(store.changes(after=cursor)) as given:  # type: ignore[type-var]
            for _ in range(3):
                waiting = asyncio.create_task(anext(given))
                await until(lambda: bool(store._core.watchers._followers))
                await store.append("s0", Event("n"))
                await waiting
        assert sum(count for count in backend.asked if count > 0) == 3
        assert backend.asked.count(-1) <= 1 + 3  # The cursor is proven once; each append may ask for a head.


async def test_bodies_that_lie_elsewhere_are_fetched(file_url: str, tmp_path: Path) -> None:
    """A commit whose body is out of line comes whole, and is not fetched for a follower that wants other types; without the place it is
    `Unsupported`; what is purged while a page is read is passed over, and its tombstone comes."""
    place, text = f"file://{tmp_path}/blobs", "".join(f"{number * 2_654_435_761 % 2**32:08x}" for number in range(1_000))
    async with perdure.open(file_url, blobs=place, blob_bytes=1_024) as store:
        await store.append("small", Event("n", 1))
        await store.append("large", Event("text", text))
        await store.append("large", Event("n", 2))
        found = await changes(store)
        assert [change.commit.events[0].data for change in found] == [1, text, 2]
        fetch, fetched = store._core.bodies.fetch, []

        async def counted(session: SessionKey, records: Sequence[Any], need: Any) -> Any:
            bodies = await fetch(session, records, need)
            fetched.extend(bodies)
            return bodies

        store._core.bodies.fetch = counted  # type: ignore[method-assign]
        assert versions(await changes(store, types={"n"})) == {"small": [1], "large": [2]}
        assert fetched == []
        async with perdure.open(file_url) as other:
            with pytest.raises(perdure.Unsupported, match="blobs="):
                await changes(other)
            assert versions(await changes(other, types={"n"})) == {"small": [1], "large": [2]}

        async def purged(session: SessionKey, records: Sequence[Any], need: Any) -> Any:
            await store.delete("large")
            await store.purge("large")
            return await fetch(session, records, need)

        store._core.bodies.fetch = purged  # type: ignore[method-assign]
        assert versions(await changes(store)) == {"small": [1], "large": [2, 3]}


def test_keys_are_apart() -> None:
    """Keys differ where any of consumer, part, session and version does, fit an idempotency key, and are the same each time."""
    commit = perdure.Commit(7, b"", 0, Kind.data, None, None, None, (), 0, b"", b"")
    sessions = ["s", "s:7", "s%3A7", "x" * 255, "é" * 127]
    keys = [Change(session, commit, "").key(*names) for session in sessions for names in (("a",), ("a", "b"), ("a:b",), ("é" * 100,))]
    assert len(set(keys)) == len(keys)
    assert all(len(key.encode()) <= 255 for key in keys)
    assert Change("trip-42", commit, "").key("indexer") == "indexer:trip-42:7"
    with pytest.raises(perdure.Invalid):
        Change("s", commit, "").key("")


@pytest.mark.parametrize("move", ["archive", "compact"])
async def test_changes_begin_with_what_the_archive_has(tmp_path: Path, move: str) -> None:
    """From the start every commit comes, also those that went to the archive; a cursor from the midst of them goes on with the next."""
    archive = f"file://{tmp_path}/archive"
    async with perdure.open(f"sqlite:///{tmp_path}/s.db", archive=archive) as store:
        for number in range(30):
            await store.append("s", Event("n", number))
        await (store.archive("s") if move == "archive" else store.compact("s", keep=5))
        await store.fork("s", at=10, id="t")
        await store.append("s", Event("n", 30))
        changes = [change async for change in store.changes(follow=False)]
        of_s = [change.commit for change in changes if change.session == "s"]
        assert [commit.hash for commit in of_s] == [commit.hash async for commit in store.history("s")]
        assert [event.data for commit in of_s for event in commit.events if event.type == "n"] == list(range(31))
        twelfth = next(change for change in changes if change.session == "s" and change.commit.version == 12)
        rest = [change.commit.version async for change in store.changes(after=twelfth.cursor, prefix="s", follow=False)]
        assert rest[:3] == [13, 14, 15]
        assert max(len(change.cursor) for change in changes) < 1_000


async def test_what_was_dropped_is_truncated_for_a_follower(tmp_path: Path) -> None:
    """Commits that no archive has are not passed over in silence."""
    async with perdure.open(f"sqlite:///{tmp_path}/s.db") as store:
        for number in range(30):
            await store.append("s", Event("n", number))
        await store.compact("s", keep=5, drop=True)
        with pytest.raises(perdure.Truncated):
            _ = [change async for change in store.changes(follow=False)]
