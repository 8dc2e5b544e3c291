"""Consumers and what is archived or dropped: nothing goes that one has still to read, and nothing waits for one that does not want it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import perdure
from perdure import Event, Store, op, ops
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Change, Page
from perdure.clock import SystemClock
from perdure.engine.store import system_store
from tests.support.engine.following import versions
from tests.support.engine.watchers import on
from tests.support.ops.consumers import Recorder, quick

__all__ = ["quick"]


async def write(store: Store, sessions: Sequence[str], commits: int = 10) -> None:
    """So many commits to each of these sessions in turn."""
    for number in range(commits):
        for session in sessions:
            await store.append(session, Event("n", number))


async def drop(store: Store, session: str, keep: int = 3) -> int:
    """Drop all but the newest commits; how many went."""
    return (await store.compact(session, keep=keep, drop=True)).commits


async def refused(store: Store, session: str, *names: str) -> None:
    """Nothing of the session is dropped, and these consumers are named."""
    before = [commit.hash async for commit in store.history(session)]
    with pytest.raises(perdure.Busy, match="perdure consumers --forget NAME") as caught:
        await drop(store, session)
    assert caught.value.consumers == names
    assert [commit.hash async for commit in store.history(session)] == before


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No scan is used after its consumer has gone on."""
    monkeypatch.setattr("perdure.engine.archive.unread.STALE_TIMES", 0.0)


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_what_a_consumer_has_not_read_is_not_dropped(engine: str, tmp_path: Path) -> None:
    """A drop is `Busy` and names the consumers that want what would go and have not read it. When they have, it goes."""
    async with perdure.open("memory:" if engine == "memory" else f"sqlite:///{tmp_path}/store.db") as store:
        await write(store, ["a", "b"])
        seen = Recorder(bad={("a", 4)})
        await ops.consume(store, "all", seen, attempts=1, follow=False)
        await ops.consume(store, "some", Recorder(), prefix="a", follow=False)
        await write(store, ["a", "b"])
        await refused(store, "a", "all", "some")
        await refused(store, "b", "all")
        await ops.consume(store, "all", seen, attempts=1, follow=False)
        assert await drop(store, "b") == 17
        await refused(store, "a", "all", "some")
        await ops.consume(store, "some", Recorder(), prefix="a", follow=False)
        await refused(store, "a", "all")  # What is parked is still to be handled.
        seen.bad = set()
        await ops.retry(store, "all")
        await ops.consume(store, "all", seen, attempts=1, follow=False)
        assert await drop(store, "a") == 17
        assert {session: found[:20] for session, found in versions(seen.changes).items()} == {key: list(range(1, 21)) for key in "ab"}


async def test_nothing_waits_for_a_consumer_that_was_forgotten_or_wants_something_else() -> None:
    """Consumers of other types, tags, sessions and tenants do not stop a drop, nor one that was forgotten."""
    async with perdure.open("memory:") as store:
        await write(store, ["a"])
        await ops.consume(store, "types", Recorder(), types={"other"}, follow=False)
        await ops.consume(store, "tags", Recorder(), tags={"team": "ops"}, follow=False)
        await ops.consume(store, "prefix", Recorder(), prefix="b", follow=False)
        await ops.consume(store.for_tenant("another"), "tenant", Recorder(), follow=False)
        await ops.consume(store, "forgotten", Recorder(), follow=False)
        await write(store, ["a"])
        await write(store.for_tenant("another"), ["a"])
        await refused(store, "a", "forgotten")
        await ops.forget(store, "forgotten")
        assert await drop(store, "a") == 17


async def test_a_sweeper_waits_for_consumers() -> None:
    """A sweeper says `unread` and drops nothing that a consumer has still to read; later it does."""
    async with perdure.open("memory:") as store:
        await write(store, ["a"], 40)
        await store.configure("a", keep=5, drop=True)
        await ops.consume(store, "indexer", Recorder(), types={"none"}, follow=False)
        await ops.consume(store, "slow", Recorder(bad={("a", 30)}), attempts=1, follow=False)
        done: list[ops.Action] = []
        swept = await ops.sweep(store, once=True, notify=done.append)
        assert (swept.unread, swept.trimmed) == (1, 0)
        assert [(one.session, one.action, one.detail) for one in done] == [("a", "unread", "consumers have not read it: 'slow'")]
        assert len([commit async for commit in store.history("a")]) == 41
        await ops.drop(store, "slow")
        await store.configure("a", keep=4)  # Looked at again at once.
        swept = await ops.sweep(store, once=True)
        assert (swept.unread, swept.trimmed) == (0, 1)


async def test_what_a_consumer_has_not_read_is_not_archived(tmp_path: Path) -> None:
    """Neither `compact` nor `archive`, nor a sweeper, moves what a consumer has still to read: one that goes on after a cursor would not
    see that something is missing. Consumers that are new get it from the archive."""
    async with perdure.open("memory:", archive=f"file://{tmp_path}/archive") as store:
        await write(store, ["a", "b"])
        seen = Recorder()
        await ops.consume(store, "indexer", seen, types={"n"}, follow=False)
        await write(store, ["a", "b"])
        for move in (store.compact("a", keep=3), store.archive("b")):
            with pytest.raises(perdure.Busy, match=r"consumers have not read it up to version (17|20): 'indexer'"):
                await move
        await store.configure("a", keep=3)
        assert (await ops.sweep(store, once=True)).unread == 1
        assert [info async for info in store.list(status="archived")] == []
        await ops.consume(store, "indexer", seen, types={"n"}, follow=False)
        await store.compact("a", keep=3)
        await store.archive("b")
        fresh = Recorder()
        await ops.consume(store, "fresh", fresh, types={"n"}, follow=False)
        for recorder in (seen, fresh):
            assert {session: sorted(found) for session, found in versions(recorder.changes).items()} == {
                "a": list(range(1, 21)),
                "b": list(range(1, 21)),
            }


async def test_a_consumer_that_is_out_of_place_has_read_nothing() -> None:
    """A consumer whose cursor does not fit the store any more stops a drop until somebody looks at it: it may have to begin again."""
    async with perdure.open("memory:") as store:
        await write(store, ["a"])
        await ops.consume(store, "indexer", Recorder(), follow=False)
        await system_store(store).append("consumer/indexer", Event("broken", None, (op.set("/cursor", "nonsense"),)))
        await refused(store, "a", "indexer")


async def test_one_that_is_far_behind_has_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above so many sessions with unread commits they are not told apart."""
    monkeypatch.setattr("perdure.engine.archive.unread.SESSIONS_MAX", 2)
    async with perdure.open("memory:") as store:
        await write(store, ["a", "b", "c", "d"])
        await ops.consume(store, "indexer", Recorder(), follow=False)
        assert await drop(store, "a") == 7
        await write(store, ["b", "c", "d"])
        await refused(store, "d", "indexer")
        await ops.consume(store, "indexer", Recorder(), follow=False)
        assert await drop(store, "d") == 17


async def test_the_feed_is_read_once_for_many_sessions() -> None:
    """A sweeper that looks at many sessions does not follow the feed anew for each."""

    class Counts(MemoryBackend):
        records = 0

        async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[Change]:
            page = await super().feed(cursor, limit)
            self.records += len(page.items)
            return page

    backend = Counts(SystemClock())
    async with on(backend) as store:
        await ops.consume(store, "indexer", Recorder(), types={"none"}, follow=False)
        sessions = [f"s{number}" for number in range(40)]
        await write(store, sessions)
        for session in sessions:
            await store.configure(session, keep=2, drop=True)
        backend.records = 0
        swept = await ops.sweep(store, once=True)
        assert swept.trimmed == 40
        written = 40 * (10 + 1)
        assert written <= backend.records <= written + 40 * 4, "Each record is read once, and so are the commits of the sweeper."
