"""A proxy on loopback that lets requests through, and on demand cuts answers, gives others in their place, drops them, or is not there."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Self

from tests.servers.process import HOST

Reply = Callable[[bytes], bytes | None]
"""What is said to some bytes of a client in place of the server, who does not hear of them; `None`: the server is asked."""


class Listening(ABC):
    """A server of the tests' own on a port of its own, while it is entered; its clients are let go of behind it."""

    _clients: Collection[asyncio.Task[None]]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        for _ in range(3):  # Sockets are closed a turn after their transports.
            await asyncio.sleep(0)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""


class Proxy(Listening):
    """Passes bytes both ways. `cut()` makes the next answer vanish: the server has worked, the client sees its connection close."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._cutting = self._keep = 0
        self._instead = b""
        self._clients: set[asyncio.Task[None]] = set()
        self.cuts = 0
        """How many answers have vanished."""
        self.most = 0
        """Most clients that were connected at once."""
        self.reply: Reply | None = None
        """Answers in the server's place; then the connection is closed."""
        self.silent = False
        """While it is set, answers are dropped and connections stay: the server works, and its clients hear nothing until they give up. A
        connection on which something was dropped gives nothing more later: it closes."""
        self.dropped = 0
        """How many answers were dropped so."""

    def cut(self, answers: int = 1, instead: bytes = b"", keep: int = 0) -> None:
        """Cut the next answers, after `keep` bytes of each; the client is told `instead` of the rest."""
        self._cutting, self._instead, self._keep = answers, instead, keep

    def lead_to(self, port: int) -> None:
        """From now on clients come to another server; those that are connected are cut off."""
        self._target = port
        for client in list(self._clients):
            client.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        self.most = max(self.most, len(self._clients))
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            writer.close()
            self._clients.remove(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._target)
        requests, whole = asyncio.create_task(self._pass(reader, back, writer)), True
        try:
            while data := await there.read(1 << 16):
                if self.silent:
                    self.dropped, whole = self.dropped + 1, False
                    continue
                if not whole:
                    break
                if self._cutting:
                    self._cutting -= 1
                    self.cuts += 1
                    writer.write(data[: self._keep] + self._instead)
                    break
                writer.write(data)
                await writer.drain()
        finally:
            requests.cancel()
            back.close()

    async def _pass(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.reply is not None and (said := self.reply(data)) is not None:
                    writer.write(said)
                    await writer.drain()
                    break
                back.write(data)
                await back.drain()
            back.write_eof()


def answered(status: str, body: bytes) -> bytes:
    """An answer of HTTP, after which the connection closes."""
    return b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)
