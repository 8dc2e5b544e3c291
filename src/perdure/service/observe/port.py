"""`/metrics` on a port of its own: without a credential, so for a network that only the monitoring reaches."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from perdure.errors import Invalid

Exposition = Callable[[str], tuple[bytes, str]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the node's."""
        yield


@asynccontextmanager
async def metrics_port(host: str, port: int, exposition: Exposition) -> AsyncIterator[int]:
    """Inside, metrics are served there; the port, which is a free one for 0. Raises `Invalid` where that is not possible."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=16)
    except OSError as error:
        raise Invalid(f"Metrics cannot be served on {host}:{port}: {error.strerror or error}.", advice="") from None

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:  # noqa: ARG001
        await _answer(scope, send, exposition)

    config = uvicorn.Config(
        app, lifespan="off", ws="none", interface="asgi3", log_config=None, log_level=None, access_log=False, server_header=False,
        timeout_keep_alive=75, timeout_graceful_shutdown=1, limit_concurrency=64,
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listening.close()


async def _answer(scope: MutableMapping[str, Any], send: Send, exposition: Exposition) -> None:
    status, body, media = 404, b"", "text/plain"
    if scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD"):
        accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
        body, media = await asyncio.to_thread(exposition, accept)
        status = 200
    headers = [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
