"""Rows that several commands answer with: commits, events and operations as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.cli.common import rfc3339
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.model.ids import uuid_text
from perdure.model.ops import Op


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
