"""A node that listens on a port, in this process and on this event loop; and connections to it, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import perdure
from perdure.service.node import Node
from perdure.service.options import ServeOptions
from perdure.service.server import Server, make_server
from tests.servers.process import HOST


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the test's own end is the limit."""
    while not condition():  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0.005)


class Listening:
    """A server that runs, and its node."""

    def __init__(self, node: Node, server: Server, task: asyncio.Task[None]) -> None:
        self.node, self.server, self.task = node, server, task
        self.port: int = server.servers[0].sockets[0].getsockname()[1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await asyncio.open_connection(HOST, self.port)

    async def send(self, data: bytes) -> bytes:
        """All that is answered to these bytes, until the server closes the connection."""
        reader, writer = await self.connect()
        writer.write(data)
        found = b""
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                found += piece
        writer.close()
        return found


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[Listening]:
    """A node on an empty store, on a free port."""
    async with perdure.open("memory:") as store:
        node = Node(store, ServeOptions(port=0, **{"drain_delay": 0.0, **options}))
        server = make_server(node)
        task = asyncio.ensure_future(server._serve())
        await until(lambda: server.started)
        try:
            yield Listening(node, server, task)
        finally:
            server.should_exit = True
            await task


def request(method: str, target: str, body: bytes | None = None, *headers: str, close: bool = False) -> bytes:
    """A request as bytes."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
