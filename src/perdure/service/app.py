"""The ASGI application. A request is matched to its route, then credential, scope and limits are asked, then the handler answers.

Each failure becomes a problem document here, whatever raised it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from perdure.errors import Error, Invalid, Unavailable
from perdure.service.answers import Answer, Stream
from perdure.service.call import Call, ClientGoneError, Receive, read_headers
from perdure.service.hooks import Admission, Anonymous, Credential, NoSpan, RequestHead, Scope, Span
from perdure.service.node import Node
from perdure.service.openapi import make_route
from perdure.service.origin import check_origin
from perdure.service.problems import answer_for
from perdure.service.records import ROUTES as RECORDS
from perdure.service.refusals import ExpectationFailed, Forbidden, shutting_down
from perdure.service.routes import ROUTES
from perdure.service.table import NoQuery, Route, Table
from perdure.wire import HEADER_STORE

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
CLIENT_GONE = 499
"""What is noted of a request whose client went away."""
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z")
_BINDING = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "idempotency-key", "perdure-lease")
"""Headers by which a write asks to be done once, or under a condition only."""
_HEADERS = ((b"x-content-type-options", b"nosniff"),)
"""Headers of every answer, besides the store's id."""


class App:
    """Answers the requests of one node."""

    def __init__(self, node: Node, routes: Sequence[Route] = (*ROUTES, *RECORDS)) -> None:
        self.node = node
        self.table = Table((*routes, make_route(routes, version("perdure"))))
        self._common = ((HEADER_STORE.lower().encode(), node.store.id.encode()), *_HEADERS)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)

    async def _request(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """From a request to its answer."""
        loop = asyncio.get_running_loop()
        began, method = loop.time(), scope["method"]
        path, client = _raw_path(scope, self.node.options.root_path), (scope.get("client") or ("",))[0]
        headers: Mapping[str, str] = {}
        head, credential, call = RequestHead(method, "", headers, client, None), None, None
        status, code = CLIENT_GONE, ""
        admission, span = _NO_ADMISSION, _NO_SPAN
        self.node.open_requests += 1
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    headers = read_headers(scope["headers"])
                    trace = _TRACEPARENT.match(headers.get("traceparent", ""))
                    head = RequestHead(method, "", headers, client, trace and trace[1])
                    route, names = self.table.find(method, path)
                    head = RequestHead(method, route.path, headers, client, trace and trace[1], route.watches)
                    self.node.observer.began(head)
                    span = stack.enter_context(self.node.observer.span(head))
                    if span.trace_id != head.trace_id:
                        head = msgspec.structs.replace(head, trace_id=span.trace_id)
                    credential = await self._credential(route, head)
                    admission = await self._admit(route, head, credential, stack)
                    call = Call(self.node, head, names, scope["query_string"], receive, credential or _NOBODY, admission)
                    span.admitted(call.credential, names.get("id"))
                    if route.query is NoQuery and route.scope is not None:
                        call.query(NoQuery)
                    if method in ("GET", "HEAD") or not _brings_body(headers):
                        await admission.start()
                    answer = await route.handle(call)
                except ClientGoneError:
                    return
                except Exception as error:  # noqa: BLE001 - whatever was raised, the client gets a problem document
                    answer, code = answer_for(error, head.trace_id)
                admission.done()
                if isinstance(answer, Stream):
                    status = answer.status
                    code = await self._stream(answer, method, receive, send, admission)
                else:
                    admission.sent(len(answer.body))
                    await self._send(answer, method, send, close=_has_more(headers, call))
                    status = answer.status
                span.answered(status, code)
        finally:
            self.node.open_requests -= 1
            self.node.observer.finished(head, credential, status, code, loop.time() - began)

    async def _credential(self, route: Route, head: RequestHead) -> Credential | None:
        """Ask who it is; `None`: the route does not ask."""
        node = self.node
        if isinstance(node.authenticator, Anonymous) and node.options.uds is None and node.options.loopback:
            check_origin(head.headers, node.options)
        if route.scope is None:
            return None
        if node.closing.is_set():
            raise shutting_down()
        return await node.authenticator.credential(head)

    async def _admit(self, route: Route, head: RequestHead, credential: Credential | None, stack: contextlib.AsyncExitStack) -> Admission:
        """Ask whether they may, and whether it is too much."""
        if route.scope is None or credential is None:
            return _NO_ADMISSION
        _check_headers(route, head.headers)
        if (meant := head.headers.get(HEADER_STORE.lower())) is not None and meant.encode("latin-1") != self._common[0][1]:
            raise Unavailable("This node serves another store than the one that the client opened.")
        if route.scope not in credential.scopes:
            raise Forbidden(f"This route asks for the scope {route.scope.value!r}, which these credentials do not have.")
        admission = await stack.enter_async_context(self.node.limits.admit(head, credential))
        if route.method != "GET" and route.scope is not Scope.read and not route.charges:
            admission.charge(commits=1)
        return admission

    async def _send(self, answer: Answer, method: str, send: Send, *, close: bool) -> None:
        headers = self._headers(answer)
        if answer.body or answer.status not in (204, 304):
            headers.append((b"content-length", str(len(answer.body)).encode()))
        if close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})

    async def _stream(self, answer: Stream, method: str, receive: Receive, send: Send, admission: Admission) -> str:
        """Send the pieces until they end, or the client goes away. The code of the error that ended them, if one did: then the answer stays
        without its end, so that nobody takes it for whole."""
        await send({"type": "http.response.start", "status": answer.status, "headers": self._headers(answer)})
        if method != "HEAD":
            gone = asyncio.ensure_future(_gone(receive))
            gone.add_done_callback(lambda _: answer.stop())
            try:
                async for piece in answer.pieces:
                    if gone.done():
                        return "client_gone"
                    admission.sent(len(piece))
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                if gone.done():
                    return "client_gone"
            except Error as error:
                return error.code
            finally:
                gone.cancel()
                await answer.pieces.aclose()
        await send({"type": "http.response.body", "body": b""})
        return ""

    def _headers(self, answer: Answer | Stream) -> list[tuple[bytes, bytes]]:
        headers = [*self._common, *((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers)]
        if answer.media:
            headers.append((b"content-type", answer.media.encode()))
        if self.node.draining.is_set():
            headers.append((b"connection", b"close"))
        return headers


_NOBODY = Credential("default", frozenset())
"""The credential of routes that ask for none."""
_NO_ADMISSION = Admission()
_NO_SPAN: Span = NoSpan(None)


def _check_headers(route: Route, headers: Mapping[str, str]) -> None:
    """Raise `Invalid` for a condition that the client relies on and that this route does not look at, `ExpectationFailed`."""
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise ExpectationFailed(f"Nobody here meets the expectation {headers['expect'][:40]!r}.")
    if route.method == "GET":
        return
    known = {header.name.lower() for header in route.headers}
    for name in _BINDING:
        if name in headers and name not in known:
            why = f" {route.keyless}" if name == "idempotency-key" else ""
            raise Invalid(f"{route.method} {route.path} takes no {name}: nothing was done.{why}", advice="")


def _raw_path(scope: MutableMapping[str, Any], root_path: str) -> str:
    """The path as it came, without what a proxy in front has put before it."""
    raw = scope.get("raw_path") or scope["path"].encode()
    path: str = raw.decode("latin-1")
    return path.removeprefix(root_path) if root_path and path.startswith(root_path + "/") else path


def _has_more(headers: Mapping[str, str], call: Call | None) -> bool:
    """Whether a body, or a part of it, was not read: the connection is of no more use then."""
    return _brings_body(headers) and (call is None or not call.complete)


def _brings_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    """The store is opened and closed by the one who made the node: nothing is to be done here."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
