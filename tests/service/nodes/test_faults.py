"""Three nodes on one PostgreSQL while they are killed, stand still, restart or are cut off: nothing is lost, nothing is there twice, and
one order explains what clients saw of each session."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import HOST, Server
from tests.servers.proxy import Proxy
from tests.support.backends.engines import Engine
from tests.support.service.visitors import Visitors

ENGINE = Engine("postgresql", PostgreSQL)
COUNT = 3
TIMEOUTS = "timeout=4&connect_timeout=2"
PAUSE = 6.0
"""Seconds: longer than the time-outs."""
CUTS = 6
"""Answers that are cut, one after another."""


@pytest.fixture
def store_url(servers: Servers[Server]) -> str:
    """A store that no other test sees."""
    return ENGINE.url(servers(PostgreSQL))


@pytest.fixture
def nodes(store_url: str, tmp_path: Path) -> Iterator[Nodes]:
    """Three nodes on it."""
    nodes = Nodes(tmp_path / "nodes", store_url, count=COUNT)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@asynccontextmanager
async def at_work(url: str, **how_many: int) -> AsyncIterator[Visitors]:
    """Clients of three stores, which have written something; in the end all that they saw is checked."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(perdure.open(url)) for _ in range(3)]
        visitors = Visitors(stores, **how_many)
        stack.push_async_callback(visitors.cancel)
        await visitors.more(100)
        yield visitors
        await visitors.stop()
        print(f"{visitors.writes} writes, {visitors.reads} reads, told {dict(visitors.told())}, longest call {visitors.slowest:.1f} s")
        await visitors.check()


@pytest.mark.slow("nodes are killed, and stand still past every time-out")
async def test_nodes_that_are_killed_and_stand_still(nodes: Nodes) -> None:
    """Each is killed with -9 and comes back, then is stopped for longer than clients wait and wakes with their old requests. Others go on
    meanwhile. What nobody answered is settled by its key."""
    async with at_work(f"{nodes.url}?{TIMEOUTS}") as visitors:
        for node in nodes.nodes:
            nodes.kill(node)
            await visitors.more(30)
            await asyncio.to_thread(nodes.start_node, node)
            await visitors.more(30)
            nodes.pause(node)
            await asyncio.sleep(PAUSE)
            await visitors.more(30)
            nodes.resume(node)
            await visitors.more(30)


@pytest.mark.slow("every node restarts under load")
@pytest.mark.parametrize("delay", [0, 1])
async def test_a_rolling_restart_is_not_seen(store_url: str, tmp_path: Path, delay: int) -> None:
    """Each node in turn drains and ends with 0, and starts again, beside writers and many readers: no client is told of it by any error,
    though none is told that the node drains."""
    nodes = Nodes(tmp_path / "nodes", store_url, count=COUNT, options=("--drain-delay", str(delay)))
    try:
        nodes.start()
        async with at_work(nodes.url, readers=40) as visitors:
            for node in nodes.nodes:
                nodes.send(signal.SIGTERM, node)
                assert await asyncio.to_thread(nodes.wait_for_end, node) == 0
                await visitors.more(30)
                await asyncio.to_thread(nodes.start_node, node)
                await visitors.more(30)
        assert not visitors.errors, visitors.errors
    finally:
        nodes.stop()


@pytest.mark.slow("nodes are cut off past every time-out")
async def test_nodes_that_are_cut_off(store_url: str, servers: Servers[Server], tmp_path: Path) -> None:
    """Clients hear nothing of one node, which works on; another node hears nothing of PostgreSQL, which works on; answers of a node and
    answers to a node end in the middle. Others go on meanwhile."""
    engine_port = servers(PostgreSQL).port("primary")
    async with AsyncExitStack() as stack:
        inner = [await stack.enter_async_context(Proxy(engine_port)) for _ in range(COUNT)]
        stores = [f"{store_url.replace(f':{engine_port}', f':{proxy.port}')}&{TIMEOUTS}" for proxy in inner]
        nodes = Nodes(tmp_path / "nodes", stores)
        try:
            await asyncio.to_thread(nodes.start)
            outer = [await stack.enter_async_context(Proxy(nodes.port(node))) for node in nodes.nodes]
            url = "http://" + ",".join(f"{HOST}:{proxy.port}" for proxy in outer)
            async with at_work(f"{url}?{TIMEOUTS}") as visitors:
                for silent in (outer[0], inner[1], outer[2], inner[0]):
                    silent.silent = True
                    await asyncio.sleep(PAUSE)
                    await visitors.more(30)
                    silent.silent = False
                    await visitors.more(30)
                    assert silent.dropped
                for cut in (*outer, *inner):
                    for number in range(CUTS):
                        cut.cut(keep=number * 70)
                        while cut.cuts <= number:  # A node that was left alone is asked again within half a minute.
                            await visitors.more(1)
        finally:
            await asyncio.to_thread(nodes.stop)
