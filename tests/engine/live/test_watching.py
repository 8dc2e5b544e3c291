"""Following a session: every commit once, in order, from wherever it is written."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Head, Record
from perdure.clock import SystemClock
from perdure.engine.store import Store
from perdure.errors import Invalid, NotFound
from perdure.model.ids import SessionKey
from tests.support.engine.watchers import no_polling, on, until, versions

__all__ = ["no_polling"]


class Deaf(MemoryBackend):
    """An engine that tells nothing, and counts how often it is asked for heads, and for how many."""

    capabilities = MemoryBackend.capabilities
    listen = None
    hears = None

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.asked: list[int] = []

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        self.asked.append(len(sessions))
        return await super().heads(sessions)


async def test_every_commit_comes_once_and_in_order(url: str) -> None:
    """Watchers that start at different versions see, while tasks write, all later commits, each once and in order."""

    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(versions(store, 301 - after, after=after)) for after in (0, 0, 1, 1)]

            async def write(number: int) -> None:
                for turn in range(30):
                    await store.append("s", Event("turn", number, (op.add("/count", 1),) if turn % 3 else ()))
                    if turn % 7 == 0:
                        watches.append(group.create_task(versions(store, 301 - (after := turn + 1), after=after)))

            for number in range(10):
                group.create_task(write(number))
        for watch in watches:
            found = watch.result()
            assert found == list(range(found[0], 302))


async def test_another_handle_is_heard(file_url: str) -> None:
    """What another store writes into the same file comes too: a watcher in one process, a writer in another."""

    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        await other.append("s", Event("start"))
        watch = asyncio.create_task(versions(store, 40))
        for _ in range(39):
            await other.append("s", Event("turn"))
            await asyncio.sleep(0.001)
        assert await watch == list(range(1, 41))


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("late", ["a commit", "a tombstone"])
async def test_what_comes_between_reading_and_waiting_is_not_missed(late: str, nth: int) -> None:
    """A commit, or a tombstone, that is stored right after the watcher has read, and before it waits, comes next: behind the commits that
    it read at first, or when it was woken and there was nothing."""

    class Late(MemoryBackend):
        store: Store | None = None
        empty = 0

        async def read(self, session: SessionKey, **options: Any) -> Sequence[Record]:
            found = await super().read(session, **options)
            if not found and self.store is not None:
                self.empty += 1
                if self.empty < nth:
                    self.store._core.watchers.notify(None, 0)
                elif self.empty == nth:
                    await (self.store.delete("s") if late == "a tombstone" else self.store.append("s", Event("late")))
            return found

    backend = Late(SystemClock())
    async with on(backend) as store:
        await store.append("s", Event("start"))
        backend.store = store
        assert await versions(store, 2) == [1, 2]


async def test_one_request_looks_for_all_watchers_of_a_silent_engine() -> None:
    """Where an engine tells nothing, the heads of all watched sessions are asked for together, not once for each watcher."""

    backend = Deaf()
    async with on(backend, watch_every=0.05) as store, on(backend) as other:
        for number in range(40):
            await other.append(f"s{number}", Event("start"))
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(versions(store, 2, f"s{number % 40}")) for number in range(80)]
            await until(lambda: len(store._core.watchers._watched()) == 40)
            await asyncio.sleep(0.3)
            backend.asked.clear()
            for number in range(40):
                await other.append(f"s{number}", Event("turn"))
        assert all(watch.result() == [1, 2] for watch in watches)
        looks = [count for count in backend.asked if count > 1]
        assert looks
        assert len(backend.asked) - len(looks) <= 1  # The last session may be looked for alone.


async def test_many_watchers_look_no_more_often_than_one() -> None:
    """Of forty who began to wait at different times, one looks for all each `watch_every`, not each for all."""
    every = 0.05

    backend = Deaf()
    async with on(backend, watch_every=every) as store:
        watches = []
        for number in range(40):
            await store.append(f"s{number}", Event("start"))
            watches.append(asyncio.create_task(versions(store, 2, f"s{number}")))
            await asyncio.sleep(0.003)
        await until(lambda: backend.asked.count(40) > 1)
        backend.asked.clear()
        start = time.monotonic()
        await asyncio.sleep(20 * every)
        assert len(backend.asked) <= (time.monotonic() - start) / every + 1
        for number in range(40):
            await store.append(f"s{number}", Event("turn"))
        await asyncio.gather(*watches)


async def test_what_an_engine_failed_to_tell_is_found_by_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine tells is a hint: a commit that it says nothing of comes all the same."""
    monkeypatch.setattr("perdure.engine.live.watch.POLL_SELDOM", 0.05)

    backend = MemoryBackend(SystemClock())
    async with on(backend) as store, on(backend) as other:
        await store.append("s", Event("start"))
        watch = asyncio.create_task(versions(store, 2))
        await until(lambda: backend.hears)
        backend._ears.clear()
        monkeypatch.setattr(MemoryBackend, "hears", True)
        await other.append("s", Event("turn"))
        assert await watch == [1, 2]


async def test_types_and_upcasters(url: str) -> None:
    """Only commits with one of the types come, with those events alone, as they read today."""

    async with perdure.open(url, upcasters={"old": lambda event: Event("new", event.data)}) as store:
        for number in range(6):
            await store.append("s", Event("a", number), Event("old" if number % 2 else "b", number))
        found = []
        async for commit in store.watch("s", types={"new"}):
            found.append([(event.type, event.data) for event in commit.events])
            if commit.version == 6:
                break
        assert found == [[("new", 1)], [("new", 3)], [("new", 5)]]


async def test_a_fork_is_followed_through_its_parent(url: str) -> None:
    """Watching a fork from the beginning gives the parent's commits, then its own, not what the parent writes later."""

    async with perdure.open(url) as store:
        for _ in range(3):
            await store.append("s", Event("parent"))
        fork = await store.fork("s", at=2)
        watch = asyncio.create_task(versions(store, 4, fork))
        await store.append("s", Event("parent later"))
        await store.append(fork, Event("own"))
        assert await watch == [1, 2, 3, 4]


async def test_tenants_are_apart(url: str) -> None:
    """A session of the same id in another tenant is another session: its commits do not come, nor does its absence pass for mine."""

    async with perdure.open(url, tenant="a") as store:
        other = store.for_tenant("b")
        await other.append("s", Event("theirs"))
        with pytest.raises(NotFound):
            await versions(store, 1)
        await store.append("s", Event("mine"))
        watch = asyncio.create_task(_first(store.watch("s", after=1)))
        for _ in range(5):
            await other.append("s", Event("theirs"))
        await store.append("s", Event("mine too"))
        assert (await watch).events[0].type == "mine too"


async def _first(commits: AsyncIterator[perdure.Commit]) -> perdure.Commit:
    async for commit in commits:
        return commit
    raise AssertionError("nothing came")


@pytest.mark.parametrize(
    "bad", [{"after": -1}, {"after": None}, {"after": True}, {"after": 1.5}, {"types": "message"}, {"types": 3}], ids=str
)
async def test_bad_input_is_refused(bad: dict[str, Any]) -> None:
    """A version that is none, and types that are no collection, are `Invalid`."""

    async with perdure.open("memory:") as store:
        await store.append("s", Event("start"))
        with pytest.raises(Invalid):
            await versions(store, 1, **bad)


async def test_an_idle_watcher_asks_nothing() -> None:
    """While nothing happens, a watcher of an engine that tells sends no request, however many commits came before."""

    class Asked(MemoryBackend):
        asked = 0

        async def read(self, session: SessionKey, **options: Any) -> Sequence[Record]:
            self.asked += 1
            return await super().read(session, **options)

        async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
            self.asked += 1
            return await super().heads(sessions)

    backend = Asked(SystemClock())
    async with on(backend) as store:
        await store.append("s", Event("start"))
        watch = asyncio.create_task(versions(store, 3))
        await until(lambda: backend.asked > 0)
        await store.append("s", Event("turn"))
        await asyncio.sleep(0.1)
        before = backend.asked
        await asyncio.sleep(0.3)
        assert backend.asked == before
        await store.append("s", Event("turn"))
        assert await watch == [1, 2, 3]


def test_the_blocking_api_follows_from_threads(file_url: str) -> None:
    """Threads without a loop follow a session that other threads write, through the same store and through another."""
    with perdure.sync.open(file_url) as store, perdure.sync.open(file_url) as other:
        store.append("s", Event("start"))
        found: dict[int, list[int]] = {}

        def follow(number: int) -> None:
            found[number] = [commit.version for commit in (store, other)[number % 2].watch("s")]

        threads = [threading.Thread(target=follow, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for number in range(20):
            (store, other)[number % 2].append("s", Event("turn"))
        store.delete("s")
        for thread in threads:
            thread.join(30)
    assert found == {number: list(range(1, 23)) for number in range(6)}
