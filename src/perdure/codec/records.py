"""Commits to records and back: a proposal is encoded once; its position and hash are set where the head is certain."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.codec import envelope
from perdure.errors import Corrupt, Invalid
from perdure.model.commit import GENESIS, Commit, Kind, Status, commit_hash, raised, static_header
from perdure.model.events import Event
from perdure.model.ids import SessionKey, plain_key

_META = msgspec.msgpack.Encoder()
_META_DECODER = msgspec.msgpack.Decoder(tuple[str | None, str | None, int])


Position = tuple[int, bytes, int, int, int, int]
"""Where a commit stands in its chain, as the fields of an engine's head: version, hash, at, epoch, status, data."""


AT_MAX = (1 << 63) - 1
"""Latest time of a commit, in nanoseconds since 1970."""
Base = tuple[int, bytes, int, int]
"""What a fork's chain goes on from: the version, hash, time and epoch of its parent's commit."""


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

    def finish(self, head: Any, now: int, *, status: int | None = None, base: Base | None = None, step: int = 0) -> tuple[Position, bytes]:
        """The position after `head` (`None`: the first of a chain, after `base` for a fork) and the record's `meta`.

        `at` is `max(now, head.at + 1)`, so time rises along a chain. `step` raises the grant: a life ends here.
        """
        if head is None:
            version, prev, since, epoch = base or (0, GENESIS, 0, 0)
            at, epoch, before, data = max(now, since + 1), raised(epoch, 0), int(Status.active), version
        else:
            version, prev, at = head.version, head.hash, max(now, head.at + 1)
            epoch, before, data = head.epoch, head.status, head.data
        version += 1
        if step:
            epoch = raised(epoch, step)
        if not -AT_MAX <= at <= AT_MAX:
            raise Invalid(f"The clock says {now} ns since 1970, or a commit before did: a commit's time ends in the year 2262.")
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
    if prev is None and is_stub(record):
        return Commit(
            head.version, record.id, head.at, Kind.tombstone, None, plain_key(record.key), None, (), head.epoch, record.meta[:32], head.hash
        )
    behind = check_record(session, record)
    if prev is not None and behind != prev:
        raise Corrupt(f"Version {head.version} of session {session.id!r} does not follow the commit before it.", session=session.id)
    actor, trace, _ = _META_DECODER.decode(record.meta[32:])
    try:
        kind = Kind(record.kind)
        events = envelope.decode_events(record.body)
    except (Corrupt, ValueError) as error:
        raise Corrupt(f"Version {head.version} of session {session.id!r} cannot be decoded: {error}", session=session.id) from error
    return Commit(head.version, record.id, head.at, kind, actor, plain_key(record.key), trace, events, head.epoch, behind, head.hash)


def is_stub(record: Any) -> bool:
    """Whether this is what a purge leaves of a session: the tombstone's place in the chain, without its body."""
    return bool(record.kind == Kind.tombstone and not record.body)


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
