"""An event of which only the shape is known, as people read it: messages, members of its data, operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from perdure.cli.output.rows import EventRow, OpRow
from perdure.cli.output.speech import WORDS_MAX, Speech, answered, compact, is_message, speech
from perdure.cli.output.text import one_line

SHOWN = 4
"""Operations or fields that are shown of many."""
_OPAQUE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{24,}|\d{4}-\d\d-\d\dT.*|\d{10}\.\d+", re.IGNORECASE)
"""Ids, hashes and times: left out where something else is there to be said."""
_INNER = re.compile(r"/values/(__|branch:)|^/writes/")
"""Places where a graph keeps what a step works with, and not what was said."""


class Line(NamedTuple):
    """What one line says: in front who or what, then the words."""

    label: str
    text: str

    def __str__(self) -> str:
        return f"{self.label}: {self.text}" if self.text else self.label


def said(event: EventRow) -> Iterator[Speech]:
    """The messages of an event: its data, or what it put into the lists of messages of a state."""
    if event.type == "writes":
        return
    message = speech(event.data) if event.type != "checkpoint" else None
    if message is not None:
        yield message
        return
    for value in put(event):
        found = speech(value)
        if found is not None:
            yield found


def put(event: EventRow) -> Iterator[Any]:
    """The messages that an event's operations put into the state, as they are stored."""
    for op in event.ops:
        if _INNER.search(op.path):
            continue
        match op.op:
            case "append" | "union":
                yield from _messages(op.value, 0)
            case "splice" if isinstance(op.value, (list, tuple)) and len(op.value) == 3:
                yield from _messages(op.value[2], 0)
            case "set" | "init":
                yield from _messages(op.value, 0)


def _messages(value: Any, depth: int) -> Iterator[Any]:
    if is_message(value):
        yield value
    elif depth < 6 and isinstance(value, (list, tuple)):
        for item in value:
            yield from _messages(item, depth + 1)
    elif depth < 6 and isinstance(value, dict):
        for name, item in value.items():
            if not (isinstance(name, str) and name.startswith("__")):
                yield from _messages(item, depth + 1)


def any_event(event: EventRow) -> list[Line]:
    """What its shape says."""
    lines = list(map(_line, said(event)))
    if lines:
        return lines
    text = fields(event.data)
    if text or (event.data is not None and not event.ops):
        return [Line(words(event.type), text)]
    return [Line(words(event.type), operations(event.ops))]


def words(type: str) -> str:
    """An event's type as words."""
    return type.replace("_", " ") if type.islower() else type


def fields(data: Any) -> str:
    """An event's data: of an object its members, without ids and times where there is more to say."""
    if data is None or data == {}:
        return ""
    if not isinstance(data, dict):
        return answered(data)
    members = {name: value for name, value in data.items() if not _is_empty(value)}
    readable = {
        name: value
        for name, value in members.items()
        if name not in ("timestamp", "idempotency_key") and not (isinstance(value, str) and _OPAQUE.fullmatch(value))
    }
    return ", ".join(f"{name}={_value(value)}" for name, value in (readable or members).items() if name != "timestamp")


def _is_empty(value: Any) -> bool:
    return (
        value is None
        or value == ""
        or (isinstance(value, (list, dict)) and not value)
        or (isinstance(value, dict) and all(map(_is_empty, value.values())))
    )


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) > SHOWN:
        return f"[{len(value)} items]"
    if isinstance(value, str) and re.fullmatch(r"[\w./:@+-]+", value):
        return value
    return one_line(compact(value), 80)


def operations(ops: list[OpRow]) -> str:
    """Operations in words; guards and what is beyond the first few are left out."""
    lines = [line for op in ops for line in _operation(op)]
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _operation(op: OpRow) -> Iterator[str]:
    match op.op:
        case "test":
            return
        case "merge" if isinstance(op.value, dict):
            yield from _merged(op.path, op.value)
        case "splice" if op.path.endswith("/messages") and isinstance(op.value, (list, tuple)) and not op.value[2]:
            yield f"remove {op.value[1]} of {op.path}"
        case "set" if not op.path and isinstance(op.value, dict):
            yield f"begin with {', '.join(op.value) or 'nothing'}"
        case _:
            yield change(op)


def _merged(path: str, patch: dict[str, Any]) -> Iterator[str]:
    for name, value in patch.items():
        place = f"{path}/{name}"
        if isinstance(value, dict) and value:
            yield from _merged(place, value)
        else:
            yield f"remove {place}" if value is None else f"set {place} {compact(value)}"


def change(op: OpRow, most: int | None = WORDS_MAX) -> str:
    """An operation in one line."""
    where = op.path or "(all)"
    if op.taken:
        return f"take: {change(OpRow(op.op, op.path, op.value), most)}"
    match op.op:
        case "remove":
            return f"remove {where}"
        case "splice" if isinstance(op.value, (list, tuple)) and len(op.value) == 3:
            index, out, items = op.value
            return f"splice {where} at {index}: {out} out, {compact(items, most)} in"
        case "append" | "union" if isinstance(op.value, (list, tuple)) and len(op.value) == 1:
            return f"{op.op} {where} {compact(op.value[0], most)}"
        case _:
            return f"{op.op} {where} {compact(op.value, most)}"


def found_messages(value: Any) -> Iterator[Any]:
    """The messages in a value, as they are stored."""
    return _messages(value, 0)


def speeches(values: Iterable[Any]) -> list[Line]:
    """A line for each of these messages."""
    return [_line(message) for message in map(speech, values) if message is not None]


def _line(message: Speech) -> Line:
    """A message; of one answer of a tool that is named, the name stands in front."""
    if len(message.parts) == 1 and message.parts[0].kind == "answer" and message.parts[0].name:
        return Line(f"{message.who} {message.parts[0].name}", answered(message.parts[0].value))
    return Line(message.who, message.line)
