"""A store that watches sessions while another one writes: each commit has to come once, in order, brought by the engine's news alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import count
from typing import Any

import pytest

import perdure
from perdure import Commit, Event
from perdure.backends.spi import Notifying
from perdure.model.ids import SessionKey
from tests.support.backends.scenarios import until

NEVER = 3600.0
"""Seconds, longer than any test."""


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watchers of an engine that tells do not look at heads meanwhile."""
    monkeypatch.setattr("perdure.engine.live.watch.POLL_SELDOM", NEVER)


class Watcher:
    """What came of the sessions that one store watches, and a second store that writes them."""

    def __init__(self, watching: perdure.Store, writing: perdure.Store, ids: Sequence[str]) -> None:
        self._watching, self._writing = watching, writing
        self.seen: dict[str, list[Commit]] = {id: [] for id in ids}
        self._came = asyncio.Event()
        self._numbers, self._stopping = count(), False
        self._written = dict.fromkeys(ids, 0)
        self._pens = {id: asyncio.Lock() for id in ids}
        self._wrong: perdure.Error | None = None

    @property
    def hears(self) -> bool:
        """Whether the watching store would be told of a commit now."""
        backend = self._watching._core.backend
        return isinstance(backend, Notifying) and backend.hears

    async def until_hears(self, *, hears: bool = True) -> None:
        """Until it is so."""
        async with asyncio.timeout(60):
            while self.hears is not hears:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.05)

    async def follow(self, id: str) -> None:
        """Watch one session."""
        try:
            async with aclosing(self._watching.watch(id)) as commits:
                async for commit in commits:
                    self.seen[id].append(commit)
                    self._came.set()
        except perdure.Error as error:
            self._wrong = error
            self._came.set()

    async def write(self, id: str) -> None:
        """One commit, sent again under its key until it is told as stored."""
        number = next(self._numbers)
        async with asyncio.timeout(60):
            while True:
                try:
                    await self._writing.append(id, Event("n", number), key=f"k{number}")
                except (perdure.Unavailable, perdure.Unknown):
                    await asyncio.sleep(0.05)
                else:
                    self._written[id] += 1
                    return

    async def write_on(self) -> None:
        """Write each session again and again, until `all_told`."""
        await asyncio.gather(*[self._write_on(id) for id in self.seen])

    async def _write_on(self, id: str) -> None:
        while not self._stopping:
            async with self._pens[id]:
                await self.write(id)
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """Inside nothing is written, and all that was has come."""
        async with AsyncExitStack() as stack:
            for pen in self._pens.values():
                await stack.enter_async_context(pen)
            await self._until(self._all_came)
            yield

    def _all_came(self) -> bool:
        return all(len(seen) >= self._written[id] for id, seen in self.seen.items())

    async def more(self, commits: int) -> None:
        """Until that many more commits came of each session."""
        aims = {id: len(seen) + commits for id, seen in self.seen.items()}
        await self._until(lambda: all(len(self.seen[id]) >= aim for id, aim in aims.items()))

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not reached():
                self._came.clear()
                await self._came.wait()
                if self._wrong is not None:
                    raise self._wrong

    async def all_told(self, writing: asyncio.Future[None] | None = None) -> None:
        """Stop writing; every commit came, once and in order, as it is in the chain."""
        self._stopping = True
        if writing is not None:
            await writing
        await self._until(self._all_came)
        for id, seen in self.seen.items():
            assert seen == [commit async for commit in self._writing.history(id)]


@asynccontextmanager
async def watcher_of(url: str, ids: Sequence[str], *, watch_every: float = NEVER) -> AsyncIterator[Watcher]:
    """Two stores on one URL; the first one watches these sessions, each of which has a commit, and has heard of it."""
    async with (
        perdure.open(url, watch_every=watch_every, watch_outage=NEVER) as watching,
        perdure.open(url) as writing,
    ):
        news = Watcher(watching, writing, ids)
        for id in ids:
            await news.write(id)
        followers = [asyncio.create_task(news.follow(id)) for id in ids]
        try:
            await news.more(1)
            yield news
        finally:
            for task in followers:
                task.cancel()
            await asyncio.gather(*followers, return_exceptions=True)


async def a_watch_polls(url: str) -> None:
    """Where nothing is heard, though the engine could notify, appends are stored, and a watch misses nothing."""
    async with perdure.open(url) as store, perdure.open(url) as other:
        backend: Any = store._core.backend
        await other.append("s", Event("a"))
        commits = store.watch("s")
        for version in range(1, 6):
            assert (await anext(commits)).version == version
            assert (await other.append("s", Event("a"))).version == version + 1
        assert backend.capabilities.notification
        assert not backend.hears
        await commits.aclose()


async def many_watches_share_one_subscription(url: str, check: Callable[[], None]) -> None:
    """Two hundred watches of fifty sessions hear of each session's next commit. `check` is called while they listen."""
    async with perdure.open(url) as store:
        backend: Any = store._core.backend
        await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(50)))
        watches = [store.watch(f"s{number % 50}") for number in range(200)]
        await asyncio.gather(*map(anext, watches))
        following = [asyncio.create_task(anext(watch)) for watch in watches]
        await until(lambda: backend.hears)
        check()
        await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(50)))
        assert {commit.version for commit in await asyncio.gather(*following)} == {2}
        for watch in watches:
            await watch.aclose()


@asynccontextmanager
async def writing(news: Watcher) -> AsyncIterator[None]:
    """Inside, each session is written again and again; in the end all was told."""
    task = asyncio.create_task(news.write_on())
    try:
        await news.more(3)
        yield
        await news.more(3)
        await news.all_told(task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def key(id: str) -> SessionKey:
    """A session of the tenant that a store has without one."""
    return SessionKey("default", id)
