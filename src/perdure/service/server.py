"""Runs a node: uvicorn, and what it lacks: time-outs and bounds for heads of requests, a drain that takes no new requests at its end.

SIGTERM or Ctrl-C: `/readyz` says no; after `drain_delay` seconds streams end and no connection is taken; requests in progress have
`drain_timeout` seconds. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from perdure.errors import Invalid
from perdure.service.app import App
from perdure.service.node import Node
from perdure.service.options import ServeOptions
from perdure.service.protocol import BoundedProtocol

LOG = logging.getLogger("perdure.service")


class Server(uvicorn.Server):
    """A uvicorn server that drains as a node does."""

    def __init__(self, config: uvicorn.Config, node: Node, started: Callable[[list[str]], None] | None = None) -> None:
        """`started` is called with the URLs that it listens on."""
        super().__init__(config)
        self._node, self._notify_started = node, started
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._notify_started is not None:
            self._notify_started(addresses(self, self._node.options))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._node.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._drain is not None:
            self.should_exit = self.force_exit = True
            return
        LOG.info("%s: draining, then the node ends.", signal.Signals(sig).name)
        self._node.draining.set()
        self._drain = asyncio.ensure_future(self._end_later())

    async def _end_later(self) -> None:
        await asyncio.sleep(self._node.options.drain_delay)
        self._node.close()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals start the drain; unlike in uvicorn they are not raised again after it, so that the exit code is 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for each in signals:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)


def make_server(node: Node, started: Callable[[list[str]], None] | None = None) -> Server:
    """A server for a node, not started yet. Raises `Invalid` for certificates that cannot be read."""
    options = node.options
    known: dict[str, Any] = {} if options.uds is not None else {"host": options.host, "port": options.port}
    config = uvicorn.Config(
        App(node),
        uds=options.uds,
        http=_protocol(options),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=None,
        access_log=False,
        proxy_headers=options.forwarded_allow_ips is not None,
        forwarded_allow_ips=options.forwarded_allow_ips,
        server_header=False,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
        timeout_keep_alive=int(options.keep_alive) or 1,
        timeout_graceful_shutdown=max(1, round(options.drain_timeout)),
        backlog=2048,
        **known,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise Invalid(f"The certificate or its key cannot be read: {error}.", advice="") from None
    return Server(config, node, started)


def _protocol(options: ServeOptions) -> type[BoundedProtocol]:
    class Protocol(BoundedProtocol):
        limits = options

    return Protocol


def addresses(server: Server, options: ServeOptions) -> list[str]:
    """The URLs that a started server listens on."""
    if options.uds is not None:
        return [f"unix:{options.uds}"]
    scheme = "https" if options.ssl_certfile is not None else "http"
    found = []
    for each in server.servers:
        for sock in each.sockets:
            host, port = sock.getsockname()[:2]
            found.append(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{options.root_path}")
    return found


async def run(node: Node, started: Callable[[list[str]], None] | None = None) -> None:
    """Serve until a signal ends it. The node's store stays open. Raises `Invalid` where the address cannot be listened on."""
    server = make_server(node, started)
    try:
        await server.serve()
    except SystemExit:  # uvicorn's answer to an address that it cannot bind; it has logged why.
        place = node.options.uds or f"{node.options.host}:{node.options.port}"
        raise Invalid(f"Nothing can listen on {place}: see the line above.", advice="") from None
