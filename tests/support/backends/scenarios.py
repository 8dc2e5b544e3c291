"""What the engines' own tests share: scenarios that end in time, engines opened and closed, and what many claim in the same words."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind
from perdure.backends.registry import open_backend
from perdure.backends.spi import Appended
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey
from tests.servers.process import Server

Requests = Callable[[Any], int]
"""How many requests an engine has made so far."""


def run(scenario: Coroutine[Any, Any, None], seconds: float = 150) -> None:
    """Run it to its end, for so long at most."""
    asyncio.run(asyncio.wait_for(scenario, seconds))


async def engine(url: str) -> Any:
    """An engine, as a store has one."""
    return await open_backend(url, clock=SystemClock())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    """An engine, closed in the end."""
    backend = await engine(url)
    try:
        yield backend
    finally:
        await backend.close()


class Handles(AsyncExitStack):
    """Engines that are closed in the end."""

    async def open(self, url: str) -> Any:
        """One more."""
        return await self.enter_async_context(opened(url))


async def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait, for so long at most, for what only asking tells; asked in a thread, so it may block."""

    def ask() -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            time.sleep(0.02)

    await asyncio.to_thread(ask)


async def visit(url: str) -> None:
    """Open a store and close it."""
    await (await perdure.open(url)).close()


async def retrying(call: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """What a call gives once its server is reached again: it is made anew for so long after it was `Unavailable` or `Unknown`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(perdure.Unavailable, perdure.Unknown):
            return await call()
        await asyncio.sleep(0.1)
    return await call()


async def group_is_one_request(backend: Any, requests: Requests, *, turns: int = 3, keys: bool = True) -> None:
    """64 sessions, new and then known, are appended to in one request a turn."""
    sessions = [SessionKey("acme", f"s{number}") for number in range(64)]
    for turn in range(turns):
        before = requests(backend)
        outcomes = await backend.append([behind(session, key=f"k{turn}" if keys else None) for session in sessions])
        assert all(isinstance(outcome, Appended) and outcome.head.version == turn + 1 for outcome in outcomes)
        assert requests(backend) == before + 1


async def warm_read_is_one_request(url: str, requests: Requests) -> None:
    """A read of a session in memory asks for its head alone."""
    async with perdure.open(url) as store:
        backend = store._core.backend
        async with store.edit("warm") as draft:
            draft.state["n"] = 1
        before = requests(backend)
        assert (await store.read("warm")).state == {"n": 1}
        assert requests(backend) == before + 1


async def large_ones_come_back_whole(url: str) -> None:
    """A commit of 5 MiB and a state of 3 MiB with its snapshot, in session `s`, come back whole to another process; above 16 MiB a commit
    is `TooLarge` and nothing of it is stored."""
    text = "".join(f"{number:08x}" for number in range(655_360))
    async with perdure.open(url) as store:
        await store.append("s", Event("page", {"text": text}))
        for number in range(6):
            async with store.edit("s") as draft:
                draft.state[f"part{number}"] = text[number * 500_000 : number * 500_000 + 500_000]
        with pytest.raises(perdure.TooLarge):
            await store.append("s", Event("book", {"text": text * 4}))
    async with perdure.open(url) as store:
        commits = [commit async for commit in store.history("s")]
        assert commits[0].events[0].data == {"text": text}
        assert sum(map(len, (await store.read("s")).state.values())) == 3_000_000
        proven = await store.verify("s")
        assert (proven.commits, proven.version) == (7, 7)
        assert proven.snapshots >= 1


async def pause_ends_in_time(server: Server, store: perdure.Store, *nodes: str, seconds: float = 30) -> None:
    """While nodes are frozen an append under the key `k` ends within its time-outs, as one that may be sent again. They wake in the end."""
    server.pause(*nodes)
    start = time.monotonic()
    with pytest.raises((perdure.Unknown, perdure.Unavailable)):
        await store.append("s", Event("b"), key="k")
    assert time.monotonic() - start < seconds
    server.resume(*nodes)


@contextmanager
def nothing_left(within: float = 0) -> Iterator[None]:
    """Behind it no thread and no socket is there that was not before, `within` seconds at most after its end."""
    threads, before = _threads(), sockets()
    yield
    end = time.monotonic() + within
    while time.monotonic() < end and (_threads() - threads or sockets() > before):
        time.sleep(0.05)
    assert _threads() <= threads, threading.enumerate()
    assert sockets() <= before


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def sockets() -> int:
    """How many sockets this process has."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(link.readlink()).startswith("socket:")
    return found
