"""Following a session: every commit once, in order, from wherever it is written; and what ends or interrupts it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Durability, Event, op
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Backend, Head, Record
from perdure.clock import Clock, SystemClock
from perdure.codec.upcast import Upcasters
from perdure.config import make_settings
from perdure.engine import watching
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.errors import Closed, Deleted, Invalid, NotFound, Rewound, Truncated, Unavailable
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey

S = SessionKey("default", "s")


@pytest.fixture(autouse=True)
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine tells of news, nothing else may wake a watcher: a look would hide what was not told."""
    monkeypatch.setattr(watching, "LOOK_SELDOM", 600.0)


@asynccontextmanager
async def on(backend: Backend, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Store]:
    """A store on this very backend."""
    core = Core(backend, "test:", clock or SystemClock(), make_settings(**settings), Durability.memory, Upcasters({}))
    try:
        yield Store(core, "default")
    finally:
        await core.close()


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


async def until(holds: Callable[[], bool]) -> None:
    """Wait until this holds; who changes it need not say so."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.001)
            if holds():
                return


async def versions(store: Store, count: int, session: str = "s", **options: Any) -> list[int]:
    """The versions of so many commits."""
    found = []
    async with asyncio.timeout(30), contextlib.aclosing(store.watch(session, **options)) as commits:
        async for commit in commits:
            found.append(commit.version)
            if len(found) == count:
                break
    return found


def test_every_commit_comes_once_and_in_order(url: str) -> None:
    """Watchers that start at different versions see, while tasks write, all later commits, each once and in order."""

    async def scenario() -> None:
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

    asyncio.run(scenario())


def test_another_handle_is_heard(file_url: str) -> None:
    """What another store writes into the same file comes too: a watcher in one process, a writer in another."""

    async def scenario() -> None:
        async with perdure.open(file_url) as store, perdure.open(file_url) as other:
            await other.append("s", Event("start"))
            watch = asyncio.create_task(versions(store, 40))
            for _ in range(39):
                await other.append("s", Event("turn"))
                await asyncio.sleep(0.001)
            assert await watch == list(range(1, 41))

    asyncio.run(scenario())


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("late", ["a commit", "a tombstone"])
def test_what_comes_between_reading_and_waiting_is_not_missed(late: str, nth: int) -> None:
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
                    self.store._core.watchers.tell(None, 0)
                elif self.empty == nth:
                    await (self.store.delete("s") if late == "a tombstone" else self.store.append("s", Event("late")))
            return found

    async def scenario() -> None:
        backend = Late(SystemClock())
        async with on(backend) as store:
            await store.append("s", Event("start"))
            backend.store = store
            assert await versions(store, 2) == [1, 2]

    asyncio.run(scenario())


def test_one_request_looks_for_all_watchers_of_a_silent_engine() -> None:
    """Where an engine tells nothing, the heads of all watched sessions are asked for together, not once for each watcher."""

    async def scenario() -> None:
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

    asyncio.run(scenario())


def test_many_watchers_look_no_more_often_than_one() -> None:
    """Of forty who began to wait at different times, one looks for all each `watch_every`, not each for all."""
    every = 0.05

    async def scenario() -> None:
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

    asyncio.run(scenario())


def test_what_an_engine_failed_to_tell_is_found_by_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine tells is a hint: a commit that it says nothing of comes all the same."""
    monkeypatch.setattr(watching, "LOOK_SELDOM", 0.05)

    async def scenario() -> None:
        backend = MemoryBackend(SystemClock())
        async with on(backend) as store, on(backend) as other:
            await store.append("s", Event("start"))
            watch = asyncio.create_task(versions(store, 2))
            await until(lambda: backend.hears)
            backend._ears.clear()
            monkeypatch.setattr(MemoryBackend, "hears", True)
            await other.append("s", Event("turn"))
            assert await watch == [1, 2]

    asyncio.run(scenario())


def test_types_and_upcasters(url: str) -> None:
    """Only commits with one of the types come, with those events alone, as they read today."""

    async def scenario() -> None:
        async with perdure.open(url, upcasters={"old": lambda event: Event("new", event.data)}) as store:
            for number in range(6):
                await store.append("s", Event("a", number), Event("old" if number % 2 else "b", number))
            found = []
            async for commit in store.watch("s", types={"new"}):
                found.append([(event.type, event.data) for event in commit.events])
                if commit.version == 6:
                    break
            assert found == [[("new", 1)], [("new", 3)], [("new", 5)]]

    asyncio.run(scenario())


def test_a_tombstone_ends_it_and_a_new_life_goes_on_behind(url: str) -> None:
    """The tombstone is the last that comes; later calls raise `Deleted` until the session is made anew, and go on from there."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await store.append("s", Event("start"))
            watch = asyncio.create_task(_all(store.watch("s")))
            await asyncio.sleep(0.05)
            await store.delete("s")
            assert [commit.kind for commit in await watch] == [Kind.data, Kind.tombstone]
            for after in (0, 2):
                with pytest.raises(Deleted):
                    await versions(store, 1, after=after)
            await store.append("s", Event("again"), recreate=True)
            assert await versions(store, 1, after=2) == [3]

    asyncio.run(scenario())


async def _all(commits: AsyncIterator[perdure.Commit]) -> list[perdure.Commit]:
    return [commit async for commit in commits]


def test_a_fork_is_followed_through_its_parent(url: str) -> None:
    """Watching a fork from the beginning gives the parent's commits, then its own, not what the parent writes later."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            for _ in range(3):
                await store.append("s", Event("parent"))
            fork = await store.fork("s", at=2)
            watch = asyncio.create_task(versions(store, 4, fork))
            await store.append("s", Event("parent later"))
            await store.append(fork, Event("own"))
            assert await watch == [1, 2, 3, 4]

    asyncio.run(scenario())


def test_tenants_are_apart(url: str) -> None:
    """A session of the same id in another tenant is another session: its commits do not come, nor does its absence pass for mine."""

    async def scenario() -> None:
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

    asyncio.run(scenario())


async def _first(commits: AsyncIterator[perdure.Commit]) -> perdure.Commit:
    async for commit in commits:
        return commit
    raise AssertionError("nothing came")


@pytest.mark.parametrize(
    "bad", [{"after": -1}, {"after": None}, {"after": True}, {"after": 1.5}, {"types": "message"}, {"types": 3}], ids=str
)
def test_bad_input_is_refused(bad: dict[str, Any]) -> None:
    """A version that is none, and types that are no collection, are `Invalid`."""

    async def scenario() -> None:
        async with perdure.open("memory:") as store:
            await store.append("s", Event("start"))
            with pytest.raises(Invalid):
                await versions(store, 1, **bad)

    asyncio.run(scenario())


def test_a_version_that_the_session_has_not_reached_is_rewound(url: str) -> None:
    """To go on behind a version that is not there would wait for commits that are not the next ones."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await store.append("s", Event("start"))
            with pytest.raises(Rewound):
                await versions(store, 1, after=2)

    asyncio.run(scenario())


@pytest.mark.parametrize(("lost", "new"), [(1, 0), (1, 1), (1, 2), (2, 2), (2, 5)])
def test_a_store_that_lost_what_was_seen_is_rewound(lost: int, new: int) -> None:
    """After the newest commits were lost and others took their place, the watcher is told, and not given those as if they came next."""

    async def scenario() -> None:
        backend = MemoryBackend(SystemClock())
        async with on(backend) as store, on(backend) as other:
            for _ in range(4):
                await other.append("s", Event("start"))
            watch = asyncio.create_task(versions(store, 99))
            await until(lambda: [mine.version for mine in store._core.watchers._of([S])] == [4])
            del backend._chains[S].records[-lost:]
            for number in range(new):
                await other.append("s", Event("another", number))
            store._core.watchers.tell(None, 0)
            with pytest.raises(Rewound):
                await watch

    asyncio.run(scenario())


class Away(MemoryBackend):
    """An engine whose next reads fail, so many."""

    away = 0

    async def read(self, session: SessionKey, **options: Any) -> Sequence[Record]:
        if self.away:
            self.away -= 1
            raise Unavailable("no connection")
        return await super().read(session, **options)


def test_an_engine_that_is_away_is_waited_for() -> None:
    """While the engine is away a watch waits, and then skips nothing; behind `watch_outage` it is `Unavailable`."""

    async def scenario() -> None:
        backend = Away(SystemClock())
        async with on(backend) as store:
            await store.append("s", Event("start"))
            watch = asyncio.create_task(versions(store, 3))
            await asyncio.sleep(0.01)
            backend.away = 2
            await store.append("s", Event("turn"))
            await store.append("s", Event("turn"))
            assert await watch == [1, 2, 3]
            assert not backend.away
        backend._closed = False
        async with on(backend, watch_outage=0) as store:
            backend.away = 1
            with pytest.raises(Unavailable):
                await versions(store, 1)

    asyncio.run(scenario())


def test_outages_are_not_added_up() -> None:
    """An engine that was back in between has the whole `watch_outage` again."""

    class Slow(SystemClock):
        seconds = 0.0

        def monotonic(self) -> float:  # type: ignore[override]
            return self.seconds

    async def scenario() -> None:
        backend, clock = Away(SystemClock()), Slow()
        async with on(backend, clock, watch_outage=60) as store:
            await store.append("s", Event("start"))
            watch = asyncio.create_task(versions(store, 4))
            for version in (2, 3, 4):
                await until(lambda: [mine.version for mine in store._core.watchers._of([S])] == [backend._chains[S].head.version])
                clock.seconds += 50
                backend.away = 1
                await store.append("s", Event("turn", version))
            assert await watch == [1, 2, 3, 4]

    asyncio.run(scenario())


def test_an_idle_watcher_asks_nothing() -> None:
    """While nothing happens, a watcher of an engine that tells sends no request, however many commits came before."""

    class Asked(MemoryBackend):
        asked = 0

        async def read(self, session: SessionKey, **options: Any) -> Sequence[Record]:
            self.asked += 1
            return await super().read(session, **options)

        async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
            self.asked += 1
            return await super().heads(sessions)

    async def scenario() -> None:
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

    asyncio.run(scenario())


def test_what_is_purged_under_a_watcher_is_deleted() -> None:
    """A watcher that meets the stub of a purged session, and no more the commits it had not seen, is told that it was deleted."""

    async def scenario() -> None:
        backend = MemoryBackend(SystemClock())
        async with on(backend) as store:
            for _ in range(3):
                await store.append("s", Event("start"))
            watch = store.watch("s")
            assert (await anext(watch)).version == 1
            await store.delete("s")
            await backend.purge(S)
            with pytest.raises(Deleted):
                async for _ in watch:
                    pass

    asyncio.run(scenario())


def test_what_was_truncated_is_told() -> None:
    """To watch from below the first commit that is left is `Truncated`, not a silent skip."""

    async def scenario() -> None:
        async with on(MemoryBackend(SystemClock())) as store:
            for _ in range(3):
                await store.append("s", Event("start"))
            del store._core.backend._chains[S].records[:2]  # type: ignore[attr-defined]
            with pytest.raises(Truncated):
                await versions(store, 1)
            assert await versions(store, 1, after=2) == [3]

    asyncio.run(scenario())


def test_closing_wakes_those_who_wait(url: str) -> None:
    """A watch of a store that is closed raises `Closed`, at once."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await store.append("s", Event("start"))
            watch = asyncio.create_task(versions(store, 2))
            await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            with pytest.raises(Closed):
                await watch

    asyncio.run(scenario())


def test_whoever_breaks_off_leaves_nothing(url: str) -> None:
    """A watch that is broken off, cancelled or forgotten in mid-wait is not told of anything any more, and no thread is left at the end."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await store.append("s", Event("start"))
            async for _ in store.watch("s"):
                break
            assert await versions(store, 1) == [1]
            watch = asyncio.create_task(versions(store, 2))
            await asyncio.sleep(0.05)
            watch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watch
            await asyncio.sleep(0)
            assert not store._core.watchers._watched()

    before = threading.active_count()
    asyncio.run(scenario())
    assert threading.active_count() == before


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


def test_a_file_that_is_replaced_is_not_followed_in_silence(tmp_path: Path) -> None:
    """A store that was put back to an older copy, as a restore does, is `Rewound` for those who saw more."""
    url, copy = f"sqlite:///{tmp_path}/store.db", tmp_path / "copy"
    with perdure.sync.open(url) as store:
        store.append("s", Event("start"))
    copy.mkdir()
    for file in tmp_path.glob("store.db*"):
        shutil.copy(file, copy)
    with perdure.sync.open(url) as store:
        seen = store.append("s", Event("turn")).version
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    for file in copy.iterdir():
        shutil.copy(file, tmp_path)
    with perdure.sync.open(url) as store, pytest.raises(Rewound):
        next(store.watch("s", after=seen))
