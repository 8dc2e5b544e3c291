"""A front before a gRPC server on loopback that passes calls on as they are, and says itself what a test wants it to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from tests.servers.process import HOST

Answer = Callable[[bytes], bytes]
"""What is said to a request."""
CLIENTS = 16
"""Calls at once."""


class GrpcFront:
    """Listens on `port` and knows no message of its server's."""

    def __init__(self, target: int) -> None:
        self._target = f"{HOST}:{target}"
        self._said: dict[str, tuple[grpc.StatusCode, str] | Answer] = {}

    def __enter__(self) -> Self:
        self._channel = grpc.insecure_channel(self._target)
        self._server = grpc.server(ThreadPoolExecutor(CLIENTS), handlers=[_Any(self._serve)])
        self.port = self._server.add_insecure_port(f"{HOST}:0")
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self._channel.close()

    def say(self, what: grpc.StatusCode | Answer | bytes | None, text: str = "", *, to: str = "") -> None:
        """Answer calls of methods whose names have `to` in them with this status and text, or with these bytes; `None`: no more."""
        if what is None:
            self._said.pop(to, None)
        elif isinstance(what, grpc.StatusCode):
            self._said[to] = (what, text)
        else:
            self._said[to] = (lambda _: what) if isinstance(what, bytes) else what

    def _serve(self, method: str, request: bytes, context: Any) -> Iterator[bytes]:
        for part, said in self._said.items():
            if part in method:
                if isinstance(said, tuple):
                    context.abort(*said)
                else:
                    yield said(request)
                    return
        try:
            yield from self._channel.unary_stream(method)(request, metadata=context.invocation_metadata(), timeout=30)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())


class _Any(grpc.GenericRpcHandler):
    """Every method takes one message and gives some: to a caller that expects one, one is the same."""

    def __init__(self, serve: Any) -> None:
        self._serve = serve

    def service(self, call: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(lambda request, context: self._serve(call.method, request, context))
