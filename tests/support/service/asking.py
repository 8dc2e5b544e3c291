"""Requests to an application in this process, byte for byte as they are written here: no client library tidies their paths and headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from perdure.service.app import App

Headers = Sequence[tuple[str, str]]


class Response(msgspec.Struct, frozen=True):
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class Asker:
    """Sends requests to an application."""

    def __init__(self, app: App, headers: Headers = ()) -> None:
        self.app, self.headers = app, list(headers)

    async def __call__(
        self,
        method: str,
        target: str | bytes,
        body: Any = None,
        *,
        headers: Headers = (),
        pieces: Sequence[bytes] | None = None,
        cut: bool = False,
        media: str | None = None,
    ) -> Response:
        """One request and its whole answer. `body`: bytes, or what becomes JSON. `pieces`: the body in parts. `cut`: the client goes away
        before the body's end."""
        scope, data = self._scope(method, target, body, headers, pieces, media)
        messages = _messages(pieces if pieces is not None else [data], cut=cut)
        sent: list[Any] = []

        async def receive() -> Any:
            return await anext(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return Response(0, {}, b"")
        found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Response(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))

    @asynccontextmanager
    async def stream(self, target: str, *, headers: Headers = ()) -> AsyncIterator[Streamed]:
        """A GET whose answer is read as it comes; at the block's end the client goes away."""
        scope, _ = self._scope("GET", target, None, headers, None, None)
        streamed, gone = Streamed(), asyncio.Event()
        first = True

        async def receive() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.ensure_future(self.app(scope, receive, streamed.take))
        task.add_done_callback(lambda _: streamed.end())
        try:
            yield streamed
        finally:
            gone.set()
            await task

    def _scope(
        self, method: str, target: str | bytes, body: Any, headers: Headers, pieces: Sequence[bytes] | None, media: str | None
    ) -> tuple[dict[str, Any], bytes]:
        raw = target if isinstance(target, bytes) else target.encode()
        path, _, query = raw.partition(b"?")
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        said = [*self.headers, *headers]
        names = {name.lower() for name, _ in said}
        if "host" not in names:
            said.append(("host", "localhost"))
        if (data or media) and "content-type" not in names:
            said.append(("content-type", media or "application/json"))
        if pieces is None and "content-length" not in names and body is not None:
            said.append(("content-length", str(len(data))))
        if pieces is not None and "content-length" not in names:
            said.append(("transfer-encoding", "chunked"))
        scope = {
            "type": "http",
            "method": method,
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in said],
            "client": ("127.0.0.1", 1),
        }
        return scope, data


class Streamed:
    """An answer that comes in pieces."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.ended = False
        self._moved = asyncio.Event()

    async def take(self, message: Any) -> None:
        """What the application sends."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.text += message.get("body", b"").decode()
        self._moved.set()

    def end(self) -> None:
        """The application has returned."""
        self.ended = True
        self._moved.set()

    async def until(self, text: str) -> str:
        """All of the answer, once this text is in it."""
        while text not in self.text:
            if self.ended:
                raise AssertionError(f"{text!r} never came; there was {self.text!r}")
            self._moved.clear()
            await self._moved.wait()
        return self.text

    async def to_its_end(self) -> str:
        """All of the answer, once it has ended."""
        while not self.ended:
            self._moved.clear()
            await self._moved.wait()
        return self.text


async def _messages(pieces: Sequence[bytes], *, cut: bool) -> AsyncIterator[Any]:
    for number, part in enumerate(pieces, 1):
        yield {"type": "http.request", "body": part, "more_body": cut or number < len(pieces)}
    if not cut:
        await asyncio.Event().wait()  # The client waits for its answer.
    while True:
        yield {"type": "http.disconnect"}
