"""uvicorn's HTTP/1.1 protocol with bounds: for the time and size of a request's head, for requests sent ahead, for connections."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from perdure.errors import Error, Invalid, TooLarge, Unavailable, Unsupported
from perdure.service.options import ServeOptions
from perdure.service.problems import answer_for
from perdure.service.refusals import RequestTimeout

PIPELINE_MAX = 32
"""Most requests that a client may send ahead of the answers."""


class HeadTooLarge(TooLarge):
    """The head of the request is too large and nothing was done. Send fewer or shorter headers, or a shorter URL."""

    code, http_status = "head_too_large", 431


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A subclass names its `limits`."""

    limits: ClassVar[ServeOptions] = ServeOptions()
    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(Unavailable("This node has as many connections as it takes."))
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.max_headers:
            self._refuse(HeadTooLarge(f"The head has more than {self.limits.max_headers:,} bytes.", limit=self.limits.max_headers))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self._timer is None:
            self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # Trailers are no headers: what a proxy in front has checked came before the body.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        if (error := self._wrong_head()) is not None:
            self._refuse(error)
            return
        super().on_headers_complete()
        if self.parser.should_upgrade():  # Bytes after it would be of another protocol: this is the connection's last request.
            self.cycle.keep_alive = False

    def _wrong_head(self) -> Error | None:
        """Why a request whose head has come is not answered by the application."""
        names = {name for name, _ in self.headers}
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.max_headers:
            return HeadTooLarge(f"The head has more than {self.limits.max_headers:,} bytes.", limit=self.limits.max_headers)
        if len(self.pipeline) >= PIPELINE_MAX:
            return Invalid(f"At most {PIPELINE_MAX} requests may be sent ahead of the answers.", advice="")
        if b"#" in self.url:
            return Invalid("A request's target has no fragment: write a '#' of an id as %23.", advice="")
        if b"host" not in names and self.parser.get_http_version() != "1.0":
            return Invalid("A request of HTTP/1.1 names its Host.", advice="")
        if codings not in ([], [b"chunked"]):
            return Unsupported("The only transfer coding here is chunked: send the body as it is.", advice="")
        if self.parser.should_upgrade() and names & {b"content-length", b"transfer-encoding"}:
            return Invalid("A request with a body asks for no other protocol here: send it without Upgrade.", advice="")
        return None

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self._refuse(Invalid(f"{msg.rstrip('.')}: it is not HTTP/1.1 as RFC 9112 has it.", advice=""))

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.limits.header_timeout, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(RequestTimeout(f"The head of a request did not arrive within {self.limits.header_timeout:g} seconds."))

    def _refuse(self, error: Error) -> None:
        """Answer and close. While a whole request waits for its answer it is only closed: the client would take this for that answer."""
        self._stop_timer()
        cycle = self.cycle
        half = cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline
        if cycle is None or cycle.response_complete or half:
            answer, _ = answer_for(error, None)
            lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode()]
            headers: list[tuple[str, Any]] = [*answer.headers, ("content-type", answer.media), ("content-length", len(answer.body))]
            lines += [f"{name}: {value}".encode("latin-1") for name, value in headers if name != "connection"]
            self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", answer.body]))
        if half:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()
