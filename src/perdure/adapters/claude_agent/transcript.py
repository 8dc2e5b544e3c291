"""Transcript lines as events of the log: each line of the CLI's JSONL is an event, whose data is the line.

    message, tool_call, tool_result   a user's or an assistant's turn, by what it is made of
    entry                             every other line: titles, tags, modes, metadata

Text is escaped (see `surrogates`). What the SDK sees as JSON but Perdure's values cannot hold, nesting beyond 100, is kept as its JSON
text, in an event whose data is a string. Older versions did so with half of a surrogate pair, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.adapters.common.surrogates import escape, unescape
from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.values import check, same

MESSAGE, CALL, RESULT, OTHER = "message", "tool_call", "tool_result", "entry"
TYPES = frozenset({MESSAGE, CALL, RESULT, OTHER})
COMMIT_BYTES = 8 << 20
"""How much JSON one commit takes before the next begins. The SDK's own batches end at 500 lines or about 1 MiB."""
COMMIT_LINES = 5_000
"""How many lines one commit takes."""


class Line(NamedTuple):
    """A line of a transcript: as the SDK gave it, as an event, and the id by which it is there once, if it has one."""

    entry: Mapping[str, Any]
    event: Event
    id: str | None


class Batch(NamedTuple):
    """Lines for one commit. `digest` is of them all, in their order, in 128 bits."""

    lines: list[Line]
    digest: str

    @property
    def marked(self) -> bool:
        """Whether a line has an id: two such batches that are equal are one that was sent twice."""
        return any(line.id is not None for line in self.lines)


def batches(entries: Sequence[Mapping[str, Any]]) -> Iterator[Batch]:
    """The lines, cut into commits if they are too many for one: the same cuts whenever they are the same lines. Raises `Invalid`."""
    lines: list[Line] = []
    size, digest = 0, hashlib.sha256()
    for line in [_line(entry) for entry in entries]:
        text = msgspec.json.encode(line.event.data)
        if lines and (size + len(text) > COMMIT_BYTES or len(lines) == COMMIT_LINES):
            yield Batch(lines, digest.hexdigest()[:32])
            lines, size, digest = [], 0, hashlib.sha256()
        lines.append(line)
        size += len(text)
        digest.update(text + b"\n")
    if lines:
        yield Batch(lines, digest.hexdigest()[:32])


def entry_of(event: Event) -> dict[str, Any] | None:
    """The line that an event holds, or `None` for an event that something else added."""
    if event.type not in TYPES:
        return None
    data = event.data
    data = json.loads(data) if event.type == OTHER and isinstance(data, str) else unescape(data)
    return data if isinstance(data, dict) else None


def id_of(entry: Mapping[str, Any]) -> str | None:
    """The id by which a line is there once; `None` for one that the CLI gave none."""
    id = entry.get("uuid")
    return id if isinstance(id, str) and id else None


def _line(entry: Mapping[str, Any]) -> Line:
    if not isinstance(entry, dict):
        raise Invalid(f"A line of a transcript is a dict, not {type(entry).__name__}.")
    stored = escape(entry)
    try:
        check(stored, what="a line of the transcript")
    except Invalid:
        text = _exact_text(entry)
        if text is None:
            raise
        event = Event(OTHER, text)
    else:
        event = Event(_kind(entry), stored)
    return Line(entry, event, id_of(entry))


def _exact_text(entry: dict[str, Any]) -> str | None:
    """The line's JSON text, if it gives exactly that line again."""
    try:
        text = json.dumps(entry, allow_nan=False, separators=(",", ":"))
        return text if same(json.loads(text), entry) else None
    except (TypeError, ValueError, RecursionError):
        return None


def _kind(entry: Mapping[str, Any]) -> str:
    message = entry.get("message")
    if not isinstance(message, dict):
        return OTHER
    content = message.get("content")
    kinds = {part.get("type") for part in content if isinstance(part, dict)} if isinstance(content, list) else ()
    return CALL if "tool_use" in kinds else RESULT if "tool_result" in kinds else MESSAGE
