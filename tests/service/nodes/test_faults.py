"""Three nodes on one PostgreSQL while they are killed, stand still, restart or are cut off: nothing is lost, nothing is there twice, and
one order explains what clients saw of each session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.support.service.node_faults import TIMEOUTS, cut_off, kill_and_pause, on_lines, restart_in_turn
from tests.support.service.visitors import Visitors

COUNT = 3


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
async def test_nodes_that_are_killed_and_stand_still(three_nodes: Nodes) -> None:
    """Each is killed with -9 and comes back, then is stopped for longer than clients wait and wakes with their old requests. Others go on
    meanwhile. What nobody answered is settled by its key."""
    async with at_work(f"{three_nodes.url}?{TIMEOUTS}") as visitors:
        await kill_and_pause(three_nodes, visitors.more)


@pytest.mark.slow("every node restarts under load")
@pytest.mark.parametrize("delay", [0, 1])
async def test_a_rolling_restart_is_not_seen(store_url: str, tmp_path: Path, delay: int) -> None:
    """Each node in turn drains and ends with 0, and starts again, beside writers and many readers: no client is told of it by any error,
    though none is told that the node drains."""
    nodes = Nodes(tmp_path / "nodes", store_url, count=COUNT, options=("--drain-delay", str(delay)))
    try:
        nodes.start()
        async with at_work(nodes.url, readers=40) as visitors:
            await restart_in_turn(nodes, visitors.more)
        assert not visitors.errors, visitors.errors
    finally:
        nodes.stop()


@pytest.mark.slow("nodes are cut off past every time-out")
async def test_nodes_that_are_cut_off(store_url: str, servers: Servers[Server], tmp_path: Path) -> None:
    """Clients hear nothing of one node, which works on; another node hears nothing of PostgreSQL, which works on; answers of a node and
    answers to a node end in the middle. Others go on meanwhile."""
    async with (
        on_lines(store_url, servers(PostgreSQL).port("primary"), tmp_path / "nodes", COUNT) as lines,
        at_work(f"{lines.url}?{TIMEOUTS}") as visitors,
    ):
        await cut_off(lines, visitors.more)
