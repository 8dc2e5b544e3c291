"""Following sessions on every engine that needs a server, whether it tells of news or is asked: nothing is skipped, nothing comes twice."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

import perdure
from perdure import Event
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.engines import ENGINES, Engine
from tests.support.backends.scenarios import run, sockets

EVERY_ENGINE = pytest.mark.parametrize("engine", ENGINES, ids=str)
SESSIONS, WATCHERS = 20, 3
LONGEST = 240.0
"""Seconds that a test may take where the machine is slow and the server was killed."""


async def versions(store: perdure.Store, session: str, *, upto: int, after: int = 0) -> list[int]:
    """The versions that a watch gives, until it has given this one."""
    seen = []
    async with aclosing(store.watch(session, after=after)) as commits:  # type: ignore[type-var]
        async for commit in commits:
            seen.append(commit.version)
            if commit.version >= upto:
                break
    return seen


def threads() -> list[str]:
    """The threads of stores."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("perdure")]


@EVERY_ENGINE
def test_what_another_store_writes_is_followed(engine: Engine, servers: Servers[Server]) -> None:
    """A watch gives every commit of another store exactly once and in order, whole, and ends behind the tombstone of a deleted session."""
    url = engine.url(servers(engine.server))

    async def scenario() -> None:
        async with perdure.open(url) as mine, perdure.open(url) as other:
            await other.append("s", Event("n", 1))
            seen = []
            caught_up = asyncio.Event()

            async def follow() -> None:
                async for commit in mine.watch("s"):
                    seen.append((commit.version, [event.data for event in commit.events]))
                    caught_up.set()

            following = asyncio.create_task(follow())
            await caught_up.wait()
            for number in range(2, 21):
                await other.append("s", Event("n", number))
            deleted = await other.delete("s")
            await following
            assert seen == [*((number, [number]) for number in range(1, 21)), (deleted.version, [None])]

    run(scenario(), LONGEST)


@EVERY_ENGINE
def test_many_watchers_share_one_store(engine: Engine, servers: Servers[Server]) -> None:
    """Several watchers on each of many sessions, through one store, miss nothing of what two other stores write at the same time."""
    url = engine.url(servers(engine.server))
    sessions = [f's{number} ü:/{{}}%"\\' for number in range(SESSIONS)]

    async def scenario() -> None:
        async with perdure.open(url) as mine, perdure.open(url) as one, perdure.open(url) as two:
            await asyncio.gather(*(one.append(session, Event("a")) for session in sessions))
            following = [asyncio.create_task(versions(mine, session, upto=5)) for session in sessions for _ in range(WATCHERS)]
            for _ in range(2):
                await asyncio.gather(*(store.append(session, Event("b")) for session in sessions for store in (one, two)))
            assert await asyncio.gather(*following) == [[1, 2, 3, 4, 5]] * (SESSIONS * WATCHERS)

    run(scenario(), LONGEST)


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine.survives], ids=str)
def test_a_watch_goes_on_when_the_server_was_killed(engine: Engine, server_of_my_own: Servers[Server]) -> None:
    """While the whole server is killed with -9 and started again, twice, a watch goes on by itself and skips nothing."""
    server = server_of_my_own(engine.server)
    url = engine.url(server) + "&timeout=2&connect_timeout=1"

    async def append(store: perdure.Store, number: int) -> int:
        while True:
            try:
                return (await store.append("s", Event("n", number), key=f"k{number}")).version
            except (perdure.Unavailable, perdure.Unknown):
                await asyncio.sleep(0.1)

    async def scenario() -> None:
        async with perdure.open(url) as mine, perdure.open(url) as other:
            assert await append(other, 1) == 1
            following = asyncio.create_task(versions(mine, "s", upto=31))
            for kill in range(3):
                for number in range(10):
                    assert await append(other, 2 + kill * 10 + number) == 2 + kill * 10 + number
                if kill < 2:
                    server.kill()
                    await asyncio.sleep(0.5)
                    await asyncio.to_thread(server.start)
            assert await following == list(range(1, 32))

    run(scenario(), LONGEST)


@EVERY_ENGINE
def test_what_was_watched_leaves_nothing_behind(engine: Engine, servers: Servers[Server]) -> None:
    """A watch that is cancelled, or broken off, while it reads or waits ends at once, and no task is left of it; after the store was
    closed, with watches under way that then meet `Closed`, no socket and no thread is left of listening."""
    url = engine.url(servers(engine.server))
    gc.collect()
    before = sockets()

    async def scenario() -> None:
        tasks = asyncio.all_tasks()
        async with perdure.open(url) as store:
            await store.append("s", Event("a"))
            assert await versions(store, "s", upto=1) == [1]
            for delay in (0, 0.001, 0.01, 0.1, 0.5):
                following = asyncio.create_task(versions(store, "s", upto=99))
                await asyncio.sleep(delay)
                following.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await following
                assert asyncio.all_tasks() == tasks
            left = [asyncio.create_task(versions(store, "s", upto=99)) for _ in range(3)]
            await asyncio.sleep(0.1)
            await store.close()
            for outcome in await asyncio.gather(*left, return_exceptions=True):
                assert isinstance(outcome, perdure.Closed)
            assert asyncio.all_tasks() == tasks

    run(scenario(), LONGEST)
    gc.collect()
    assert not threads()
    assert sockets() <= before


@EVERY_ENGINE
def test_blocking_code_follows_too(engine: Engine, servers: Servers[Server]) -> None:
    """`perdure.sync` watches in a thread what another store writes, each commit once and in order, until the session is deleted."""
    url = engine.url(servers(engine.server))
    with perdure.sync.open(url) as mine, perdure.sync.open(url) as other:
        other.append("s", Event("a"))
        seen: list[int] = []
        caught_up = threading.Event()

        def follow(commits: Iterator[perdure.Commit]) -> None:
            for commit in commits:
                seen.append(commit.version)
                caught_up.set()

        following = threading.Thread(target=follow, args=(mine.watch("s"),), daemon=True)
        following.start()
        assert caught_up.wait(LONGEST)
        for _ in range(9):
            other.append("s", Event("a"))
        other.delete("s")
        following.join(LONGEST)
        assert not following.is_alive()
    assert seen == list(range(1, 12))
