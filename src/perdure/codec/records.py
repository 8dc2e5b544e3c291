"""Commits to records and back: a proposal is encoded once; its position and hash are set where the head is certain."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.codec import envelope
from perdure.errors import Corrupt
from perdure.model.commit import GENESIS, Commit, Kind, Status, commit_hash, static_header
from perdure.model.events import Event
from perdure.model.ids import SessionKey

_META = msgspec.msgpack.Encoder()
_META_DECODER = msgspec.msgpack.Decoder(tuple[str | None, str | None, int])


Position = tuple[int, bytes, int, int, int, int]
"""Where a commit stands in its chain, as the fields of an engine's head: version, hash, at, epoch, status, data."""


class Proposal(msgspec.Struct, frozen=True):
    """A commit before it has a position: everything that a lost race does not change, encoded once."""

    session: SessionKey
    id: bytes
    kind: Kind
    actor: str | None
    key: str | None
    request: bytes
    trace: str | None
    body: bytes
    digest: bytes
    static: bytes
    meta: bytes

    def finish(
        self, head: Any, now: int, *, status: int | None = None, base: tuple[int, bytes, int] | None = None
    ) -> tuple[Position, bytes]:
        """The position behind `head` (`None`: the first of a chain, behind `base` for a fork: the parent's version, hash and time)
        and the record's `meta`.

        `at` is `max(now, head.at + 1)`, so time rises along a chain.
        """
        if head is None:
            version, prev, since = base or (0, GENESIS, 0)
            at, epoch, before, data = max(now, since + 1), 0, int(Status.active), version
        else:
            version, prev, at = head.version, head.hash, max(now, head.at + 1)
            epoch, before, data = head.epoch, head.status, head.data
        version += 1
        hash = commit_hash(prev, version, at, epoch, self.static, self.digest)
        data = version if self.kind is Kind.data else data
        return (version, hash, at, epoch, before if status is None else status, data), prev + self.meta


def propose(
    session: SessionKey,
    events: Sequence[Event],
    code: int,
    *,
    id: bytes,
    kind: Kind = Kind.data,
    actor: str | None = None,
    key: str | None = None,
    request: bytes = b"",
    trace: str | None = None,
) -> Proposal:
    """Encode a commit's events and the fixed part of its header. Raises `TooLarge`, `Invalid`."""
    body = envelope.encode_events(events, code)
    static = static_header(session.tenant, session.id, id, kind, actor, key, request, trace, body[2])
    return Proposal(
        session, id, kind, actor, key, request, trace, body, hashlib.sha256(body).digest(), static, _META.encode((actor, trace, body[2]))
    )


def request_digest(events: Sequence[Event]) -> bytes:
    """What a keyed call asked for, in 16 bytes: object order does not count, a changed value does."""
    return hashlib.sha256(msgspec.json.encode(events, order="sorted")).digest()[:16]


def open_record(session: SessionKey, record: Any, prev: bytes | None = None) -> Commit:
    """Check a record's hash (and that it follows `prev`, when given) and decode it. Raises `Corrupt` naming session and version."""
    head = record.head
    behind = check_record(session, record)
    if prev is not None and behind != prev:
        raise Corrupt(f"Version {head.version} of session {session.id!r} does not follow the commit before it.", session=session.id)
    actor, trace, _ = _META_DECODER.decode(record.meta[32:])
    try:
        kind = Kind(record.kind)
        events = envelope.decode_events(record.body)
    except (Corrupt, ValueError) as error:
        raise Corrupt(f"Version {head.version} of session {session.id!r} cannot be decoded: {error}", session=session.id) from error
    return Commit(head.version, record.id, head.at, kind, actor, record.key, trace, events, head.epoch, behind, head.hash)


def check_record(session: SessionKey, record: Any) -> bytes:
    """Recompute a record's hash from its columns, without decoding the body, and return `prev`. Raises `Corrupt`."""
    head, meta, body = record.head, record.meta, record.body
    try:
        actor, trace, code = _META_DECODER.decode(meta[32:])
        static = static_header(session.tenant, session.id, record.id, record.kind, actor, record.key, record.request, trace, code)
        found = commit_hash(meta[:32], head.version, head.at, head.epoch, static, envelope.body_digest(body))
    except (msgspec.DecodeError, IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise Corrupt(f"Version {head.version} of session {session.id!r} is damaged: {error}.", session=session.id) from error
    if found != head.hash:
        raise Corrupt(f"Version {head.version} of session {session.id!r} is not what was written: its hash differs.", session=session.id)
    prev: bytes = meta[:32]
    return prev
