"""Server-Sent Events: messages out, messages in (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

import msgspec

HEARTBEAT = b":\n\n"
"""A comment, which says that the connection lives."""


class Message(msgspec.Struct, frozen=True):
    """One message. Without data only the position has moved on."""

    id: str | None
    event: str
    data: str


def message(data: bytes = b"", *, id: str | None = None, event: str = "") -> bytes:
    """A message whose data is one line, as JSON is. `id` is where a client goes on that was cut off after it."""
    lines = []
    if event:
        lines.append(f"event: {event}\n".encode())
    if id is not None:
        lines.append(f"id: {id}\n".encode())
    if data:
        lines.append(b"data: " + data + b"\n")
    return b"".join(lines) + b"\n"


class MessageReader:
    """Makes messages of the bytes of a stream, in whatever pieces they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._id: str | None = None
        self._event, self._data = "", list[str]()
        self.retry: int | None = None
        """Milliseconds after which the server wants a client to come back."""

    def feed(self, piece: bytes) -> list[Message]:
        """The messages that this piece completes. A message without data and without an id is none."""
        found: list[Message] = []
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._line(line.rstrip(b"\r").decode(errors="replace"), found)
        return found

    def _line(self, line: str, found: list[Message]) -> None:
        if not line:
            if self._data or self._id is not None:
                found.append(Message(self._id, self._event or "message", "\n".join(self._data)))
            self._id, self._event, self._data = None, "", []
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdecimal():
                self.retry = int(value)
            case _:
                pass
