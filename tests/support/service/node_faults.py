"""What befalls the nodes of a service while clients work. Each step goes on once the clients have got on.

killed      with -9; the node comes back
paused      stopped for longer than clients wait; the node wakes with its old requests
restarted   drained, and started again
cut off     from the clients, or from the engine; or an answer ends in the middle
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.servers.node import Nodes
from tests.servers.process import HOST
from tests.servers.proxy import Proxy

More = Callable[[int], Awaitable[object]]
"""Waits until clients have got on by so much."""
TIMEOUTS = "timeout=4&connect_timeout=2"
PAUSE = 6.0
"""Seconds: longer than the time-outs."""
CUTS = 6
"""Answers that are cut, one after another."""
STEP = 30


async def kill_and_pause(nodes: Nodes, more: More, step: int = STEP) -> None:
    """Each node is killed and comes back, then stands still and wakes."""
    for node in nodes.nodes:
        nodes.kill(node)
        await more(step)
        await asyncio.to_thread(nodes.start_node, node)
        await more(step)
        nodes.pause(node)
        await asyncio.sleep(PAUSE)
        await more(step)
        nodes.resume(node)
        await more(step)


async def restart_in_turn(nodes: Nodes, more: More, step: int = STEP) -> None:
    """Each node drains and ends with 0, and starts again."""
    for node in nodes.nodes:
        nodes.send(signal.SIGTERM, node)
        assert await asyncio.to_thread(nodes.wait_for_end, node) == 0
        await more(step)
        await asyncio.to_thread(nodes.start_node, node)
        await more(step)


class Lines:
    """Nodes, each of which speaks to its clients through one proxy, and to the engine through another one."""

    def __init__(self, nodes: Nodes, outer: Sequence[Proxy], inner: Sequence[Proxy]) -> None:
        self.nodes, self.outer, self.inner = nodes, outer, inner
        self.urls = [f"http://{HOST}:{proxy.port}" for proxy in outer]
        """Of each node, as clients reach it."""
        self.url = "http://" + ",".join(f"{HOST}:{proxy.port}" for proxy in outer)


@asynccontextmanager
async def on_lines(store_url: str, engine_port: int, folder: Path, count: int) -> AsyncIterator[Lines]:
    """So many nodes on a store, whose engine listens on that port."""
    async with AsyncExitStack() as stack:
        inner = [await stack.enter_async_context(Proxy(engine_port)) for _ in range(count)]
        stores = [f"{store_url.replace(f':{engine_port}', f':{proxy.port}')}&{TIMEOUTS}" for proxy in inner]
        nodes = Nodes(folder, stores)
        try:
            await asyncio.to_thread(nodes.start)
            outer = [await stack.enter_async_context(Proxy(nodes.port(node))) for node in nodes.nodes]
            yield Lines(nodes, outer, inner)
        finally:
            await asyncio.to_thread(nodes.stop)


async def cut_off(lines: Lines, more: More, step: int = STEP) -> None:
    """Clients hear nothing of one node, which works on; another node hears nothing of the engine, which works on; answers of each node and
    answers to each node end in the middle."""
    for silent in (lines.outer[0], lines.inner[1], lines.outer[2], lines.inner[0]):
        silent.silent = True
        await asyncio.sleep(PAUSE)
        await more(step)
        silent.silent = False
        await more(step)
        assert silent.dropped
    for cut in (*lines.outer, *lines.inner):
        for number in range(CUTS):
            cut.cut(keep=number * 70)
            while cut.cuts <= number:  # A node that was left alone is asked again within half a minute.
                await more(1)
