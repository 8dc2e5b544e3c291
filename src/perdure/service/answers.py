"""Answers: a status, headers, and a body that is there or one that comes in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from perdure.wire import JSON

Headers = list[tuple[str, str]]
_ENCODER = msgspec.json.Encoder()


class Answer:
    """A whole answer."""

    def __init__(self, status: int = 200, body: bytes = b"", media: str = "", headers: Headers | None = None) -> None:
        self.status, self.body, self.media, self.headers = status, body, media, headers or []


class Stream:
    """An answer in pieces. The generator is closed when the client goes away, when the node drains, and at the end."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media: str,
        headers: Headers | None = None,
        status: int = 200,
        stop: Callable[[], None] | None = None,
    ) -> None:
        """`stop` is called when the client has gone away, for a generator that waits."""
        self.status, self.pieces, self.media, self.headers = status, pieces, media, headers or []
        self.stop = stop or _nothing


def _nothing() -> None:
    pass


def json_answer(value: Any, status: int = 200, headers: Headers | None = None, media: str = JSON) -> Answer:
    """An answer in JSON."""
    return Answer(status, encode(value), media, headers)


def encode(value: Any) -> bytes:
    """A value as JSON."""
    return _ENCODER.encode(value)
