"""Rows that several commands answer with: commits, events and operations as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.commit import Commit


class OpRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operation."""

    op: str
    """Its kind: set, remove, init, append, splice, add, union, merge or test."""
    path: str
    """JSON Pointer of what it changes."""
    value: Any
    """What the kind needs; null for remove."""
    taken: bool = False
    """Whether what it takes out is kept by somebody, and so must still be there; left out where it is not."""


class EventRow(msgspec.Struct, frozen=True):
    """An event."""

    type: str
    """Its name."""
    data: Any
    """Its data, any JSON value."""
    ops: list[OpRow]
    """The operations by which it changed the state."""


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
        return msgspec.convert(commit.to_dict(), cls)
