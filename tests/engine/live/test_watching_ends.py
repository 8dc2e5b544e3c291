"""What ends or interrupts a watch: tombstones, lost commits, outages, purges, closing, breaking off."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Record
from perdure.clock import SystemClock
from perdure.errors import Closed, Deleted, Rewound, Truncated, Unavailable
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey
from tests.support.engine.watchers import S, no_polling, on, until, versions

__all__ = ["no_polling"]


async def test_a_tombstone_ends_it_and_a_new_life_goes_on_behind(url: str) -> None:
    """The tombstone is the last that comes; later calls raise `Deleted` until the session is made anew, and go on from there."""

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


async def _all(commits: AsyncIterator[perdure.Commit]) -> list[perdure.Commit]:
    return [commit async for commit in commits]


async def test_a_version_that_the_session_has_not_reached_is_rewound(url: str) -> None:
    """To go on behind a version that is not there would wait for commits that are not the next ones."""

    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        with pytest.raises(Rewound):
            await versions(store, 1, after=2)


@pytest.mark.parametrize(("lost", "new"), [(1, 0), (1, 1), (1, 2), (2, 2), (2, 5)])
async def test_a_store_that_lost_what_was_seen_is_rewound(lost: int, new: int) -> None:
    """After the newest commits were lost and others took their place, the watcher is told, and not given those as if they came next."""

    backend = MemoryBackend(SystemClock())
    async with on(backend) as store, on(backend) as other:
        for _ in range(4):
            await other.append("s", Event("start"))
        watch = asyncio.create_task(versions(store, 99))
        await until(lambda: [mine.version for mine in store._core.watchers._of([S])] == [4])
        del backend._chains[S].records[-lost:]
        for number in range(new):
            await other.append("s", Event("another", number))
        store._core.watchers.notify(None, 0)
        with pytest.raises(Rewound):
            await watch


class Away(MemoryBackend):
    """An engine whose next reads fail, so many."""

    away = 0

    async def read(self, session: SessionKey, **options: Any) -> Sequence[Record]:
        if self.away:
            self.away -= 1
            raise Unavailable("no connection")
        return await super().read(session, **options)


async def test_an_engine_that_is_away_is_waited_for() -> None:
    """While the engine is away a watch waits, and then skips nothing; behind `watch_outage` it is `Unavailable`."""

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


async def test_outages_are_not_added_up() -> None:
    """An engine that was back in between has the whole `watch_outage` again."""

    class Slow(SystemClock):
        seconds = 0.0

        def monotonic(self) -> float:  # type: ignore[override]
            return self.seconds

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


async def test_what_is_purged_under_a_watcher_is_deleted() -> None:
    """A watcher that meets the stub of a purged session, and no more the commits it had not seen, is told that it was deleted."""

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


async def test_what_was_truncated_is_told() -> None:
    """To watch from below the first commit that is left is `Truncated`, not a silent skip."""

    async with on(MemoryBackend(SystemClock())) as store:
        for _ in range(3):
            await store.append("s", Event("start"))
        del store._core.backend._chains[S].records[:2]  # type: ignore[attr-defined]
        with pytest.raises(Truncated):
            await versions(store, 1)
        assert await versions(store, 1, after=2) == [3]


async def test_closing_wakes_those_who_wait(url: str) -> None:
    """A watch of a store that is closed raises `Closed`, at once."""

    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        watch = asyncio.create_task(versions(store, 2))
        await asyncio.sleep(0.1)
    async with asyncio.timeout(2):
        with pytest.raises(Closed):
            await watch


async def test_whoever_breaks_off_leaves_nothing(url: str) -> None:
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
    await scenario()
    assert threading.active_count() == before


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
