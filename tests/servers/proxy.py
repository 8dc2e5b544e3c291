"""A proxy on loopback that lets a request through and cuts its answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from tests.servers.process import HOST


class Proxy:
    """Passes bytes both ways. `cut()` makes the next answer vanish: the server has worked, the client sees its connection close."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._cutting = 0
        self._streams: set[asyncio.StreamWriter] = set()
        self.cuts = 0
        """How many answers have vanished."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for stream in self._streams:
            stream.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self, answers: int = 1) -> None:
        """Cut the next answers."""
        self._cutting = answers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            there, back = await asyncio.open_connection(HOST, self._target)
            self._streams.add(back)
            requests = asyncio.create_task(self._pass(reader, back))
            while data := await there.read(1 << 16):
                if self._cutting:
                    self._cutting -= 1
                    self.cuts += 1
                    break
                writer.write(data)
                await writer.drain()
            requests.cancel()
            back.close()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
