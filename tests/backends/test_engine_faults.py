"""Every engine while its server is killed, paused, cut off: what clients saw has one order, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from perdure.backends.conformance import expecting
from perdure.backends.registry import open_backend
from perdure.backends.spi import Append, Appended, Backend, Head, Known
from perdure.clock import SystemClock
from perdure.errors import Unavailable, Unknown
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.process import HOST, Server
from tests.servers.proxy import Proxy
from tests.support.backends.engines import ENGINES, Engine
from tests.support.backends.load import Load, whole

TIMEOUTS = "&timeout=2&connect_timeout=1"
PAUSE = 3.0
"""Seconds: longer than the time-out."""
CUTS = 20


@asynccontextmanager
async def handles(url: str, count: int) -> AsyncIterator[list[Backend]]:
    """Several processes' worth of engines on one URL."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(await open_backend(url, clock=SystemClock()))
            stack.push_async_callback(opened[-1].close)
        yield opened


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine.survives], ids=str)
async def test_one_kill(engine: Engine, server_of_my_own: Servers[Server]) -> None:
    """Two handles and twelve clients on sixteen sessions, while the first node is killed with -9 and comes back."""
    server = server_of_my_own(engine.server)
    url = engine.url(server) + TIMEOUTS

    async with handles(url, 2) as opened:
        load = Load(opened)
        await load.more(100)
        server.kill(server.nodes[0])
        await asyncio.to_thread(server.start)
        await load.more(100)
        await load.stop()
        await load.check()


@pytest.mark.slow("every node in turn is killed and paused past the time-out")
@pytest.mark.parametrize("engine", ENGINES, ids=str)
async def test_faults(engine: Engine, server_of_my_own: Servers[Server]) -> None:
    """Three handles and twelve clients on sixteen sessions, while nodes are killed with -9, come back, and pause past the time-out.

    An emulator that keeps its data in memory alone is paused only.
    """
    server = server_of_my_own(engine.server)
    url = engine.url(server) + TIMEOUTS

    async with handles(url, 3) as opened:
        load = Load(opened)
        await load.more(200)
        for nodes in _victims(server):
            if engine.survives:
                server.kill(*nodes)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(server.start)
                await load.more(100)
            server.pause(*nodes)
            await asyncio.sleep(PAUSE)
            server.resume(*nodes)
            await load.more(100)
        await load.stop()
        await load.check()


def _victims(server: Server) -> list[list[str]]:
    """Which nodes go together: each alone where there are several, and all at once."""
    nodes = server.nodes
    return [[node] for node in nodes[:3]] + [nodes] if len(nodes) > 1 else [nodes]


async def settled(backend: Backend, append: Append, outcome: object) -> Head:
    """The head behind an append that is sent again until it is told as stored. `Unavailable` alone means that no try before was."""
    lost = False
    async with asyncio.timeout(30):
        while not isinstance(outcome, Appended | Known):
            assert isinstance(outcome, Unknown | Unavailable), outcome
            lost = lost or isinstance(outcome, Unknown)
            await asyncio.sleep(0.05)
            (outcome,) = await backend.append([append])
    assert lost or isinstance(outcome, Appended), "It was stored, though every try before was told as not sent."
    return outcome.head


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine.one_address], ids=str)
async def test_answers_that_are_cut(engine: Engine, servers: Servers[Server]) -> None:
    """A connection cut after the write was sent ends as what truly happened; a caller who retries under its key writes once."""
    server = servers(engine.server)
    url = engine.url(server) + TIMEOUTS
    session = SessionKey("acme", "cut")

    port = server.port(server.nodes[0])
    async with Proxy(port) as proxy, handles(url.replace(f"{HOST}:{port}", f"{HOST}:{proxy.port}"), 1) as (backend,):
        head: Head | None = None
        for number in range(CUTS):
            append = expecting(session, head, key=f"k{number}")
            append = msgspec.structs.replace(append, durability=backend.capabilities.durability)
            proxy.cut(1 + number % 3)
            (outcome,) = await backend.append([append])
            proxy.cut(0)
            head = await settled(backend, append, outcome)
        assert proxy.cuts >= CUTS
        assert [record.key for record in await whole(backend, session)] == [f"k{number}" for number in range(CUTS)]
