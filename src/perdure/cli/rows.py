"""Rows that several commands answer with: commits, events and operations as JSON and as people read them."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.cli.common import rfc3339
from perdure.cli.terminal import clean
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.model.ids import uuid_text
from perdure.model.ops import Op

PREVIEW = 100
"""Characters of a preview."""


class OpRow(msgspec.Struct, frozen=True):
    """An operation."""

    op: str
    """Its kind: set, remove, init, append, splice, add, union, merge or test."""
    path: str
    """JSON Pointer of what it changes."""
    value: Any = None
    """What the kind needs; null for remove."""

    @classmethod
    def of(cls, op: Op) -> OpRow:
        return cls(op.kind, op.path, op.value)


class EventRow(msgspec.Struct, frozen=True):
    """An event."""

    type: str
    """Its name."""
    data: Any
    """Its data, any JSON value."""
    ops: list[OpRow]
    """The operations by which it changed the state."""

    @classmethod
    def of(cls, event: Event) -> EventRow:
        return cls(event.type, event.data, [OpRow.of(op) for op in event.ops])


class CommitRow(msgspec.Struct, frozen=True):
    """A commit."""

    version: int
    """Its place in the chain, from 1."""
    at: str
    """When, RFC 3339 in UTC."""
    kind: str
    """data, or a control commit: configure, pin, lease, anchor, tombstone, moved."""
    actor: str | None
    """Who did it."""
    key: str | None
    """Its idempotency key."""
    trace: str | None
    """The W3C traceparent of the caller."""
    events: list[EventRow]
    """What happened (with --types: only those)."""
    epoch: int
    """The fencing token in force."""
    id: str
    """A UUIDv7."""
    prev: str
    """The hash of the commit before, hexadecimal."""
    hash: str
    """Its hash, hexadecimal."""

    @classmethod
    def of(cls, commit: Commit) -> CommitRow:
        return cls(
            version=commit.version,
            at=rfc3339(commit.at),
            kind=commit.kind.name,
            actor=commit.actor,
            key=commit.key,
            trace=commit.trace,
            events=[EventRow.of(event) for event in commit.events],
            epoch=commit.epoch,
            id=uuid_text(commit.id),
            prev=commit.prev.hex(),
            hash=commit.hash.hex(),
        )


def preview(event: EventRow) -> str:
    """An event in a few words: a message as `role: text`, else its data, else its operations."""
    text = _message(event.data)
    if text is None and event.data is not None:
        text = compact(event.data)
    if text is None:
        text = "; ".join(describe(op) for op in event.ops[:4])
    return shorten(text)


def _message(data: Any) -> str | None:
    if not isinstance(data, dict):
        return None
    message = next((data[name] for name in ("message", "content") if isinstance(data.get(name), dict)), data)
    role = data.get("author", message.get("role"))
    content = next((message[name] for name in ("content", "parts", "contents") if name in message), None)
    if not isinstance(role, str):
        return None
    said = _said(content)
    calls = [call.get("function", call).get("name", "?") for call in message.get("tool_calls") or () if _is_call(call)]
    return f"{role}: {' '.join([said, *[f'{name}(…)' for name in calls]]).strip()}"


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("function", call), dict)


def _said(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(map(_part, content))
    return compact(content)


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return compact(part)
    call = part.get("function_call", part)
    if call is not part or any(name in call for name in ("arguments", "args", "input")):
        return f"{call.get('name', call.get('tool_name', '?')) if isinstance(call, dict) else '?'}(…)"
    for name in ("text", "content", "result", "thinking"):
        if name in part:
            return _said(part[name])
    return compact(part)


def describe(op: OpRow) -> str:
    """An operation in one line."""
    where = op.path or "(all)"
    match op.op:
        case "remove":
            return f"remove {where}"
        case "splice":
            index, out, items = op.value
            return f"splice {where} at {index}: {out} out, {compact(items)} in"
        case "append" | "union" if len(op.value) == 1:
            return f"{op.op} {where} {compact(op.value[0])}"
        case _:
            return f"{op.op} {where} {compact(op.value)}"


def compact(value: Any) -> str:
    """A JSON value on one line, cut where nobody would read on."""
    return msgspec.json.encode(value).decode()[: PREVIEW * 4]


def shorten(text: str, width: int = PREVIEW) -> str:
    """One line of at most `width` characters, without control characters."""
    line = clean(" ".join(text[: width * 4].split()))
    return line if len(line) <= width and len(text) <= width * 4 else line[: width - 1] + "…"
