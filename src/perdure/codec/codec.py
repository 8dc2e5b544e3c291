"""One object for all that a store writes and reads: format, compression and upcasters are chosen once, where it is made.

propose          events to a proposal, which becomes a record where the head is certain
open_record      a record to a commit, after its hash was computed again
encode_snapshot  a state to a snapshot, sealed to its place in the chain
upcast           a commit with its events as they would be written today
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from perdure.codec import envelope, formats, out_of_line
from perdure.codec.records import PREV_BYTES, Proposal, decode_meta, encode_meta
from perdure.codec.upcast import Upcaster, Upcasters
from perdure.errors import Corrupt, Invalid, TooLarge
from perdure.model.commit import Commit, Kind, commit_hash, static_header
from perdure.model.events import Event
from perdure.model.ids import SessionKey, plain_key
from perdure.model.record import Record, Snapshot

BODY_BYTES_MAX = 16 << 20
"""Largest encoded body of a commit, before compression: 16 MiB."""
STATE_BYTES_MAX = 256 << 20
"""Largest encoded state in a snapshot, before compression: 256 MiB."""

Payload = tuple[bytes, int]
"""Events as bytes, and the code of the format."""


class Codec:
    """Commits and states to stored bytes and back. It keeps nothing of a session, so all threads may share it."""

    def __init__(self, format: str = "json", upcasters: Mapping[str, Upcaster] = MappingProxyType({})) -> None:
        """`format` is what is written, one of `formats.NAMES`; every format is read. `upcasters` are for `upcast`. Raises `Invalid`."""
        if format not in formats.NAMES:
            raise Invalid(f"format must be one of {', '.join(formats.NAMES)}, not {format!r}.")
        self._format = formats.NAMES[format]
        self._upcasters = Upcasters(upcasters)

    def propose(
        self,
        session: SessionKey,
        events: Sequence[Event],
        *,
        id: bytes,
        kind: Kind = Kind.data,
        actor: str | None = None,
        key: str | None = None,
        request: bytes = b"",
        trace: str | None = None,
    ) -> Proposal:
        """Encode a commit's events and the fixed part of its header. Raises `TooLarge`, `Invalid`."""
        payload = self.encode(events)
        return self.propose_encoded(session, payload, id=id, kind=kind, actor=actor, key=key, request=request, trace=trace)

    def propose_encoded(
        self,
        session: SessionKey,
        payload: Payload,
        *,
        id: bytes,
        kind: Kind = Kind.data,
        actor: str | None = None,
        key: str | None = None,
        request: bytes = b"",
        trace: str | None = None,
    ) -> Proposal:
        """As `propose`, for events that are encoded already."""
        body, format = envelope.wrap_events(*payload), payload[1]
        static = static_header(session.tenant, session.id, id, kind, actor, key, request, trace, format)
        return Proposal(id, kind, key, request, body, hashlib.sha256(body).digest(), static, encode_meta(actor, trace, format))

    def open_record(
        self, session: SessionKey, record: Record, prev: bytes | None = None, *, body: bytes | None = None, partial: bool = False
    ) -> Commit:
        """Check a record's hash (and that it follows `prev`, when given) and decode it. Raises `Corrupt` naming session and version.

        `body` is that of a record that refers to one elsewhere. Without it, and with `partial`, such a commit comes without events.
        """
        head = record.head
        if prev is None and record.is_stub:
            key, prev = plain_key(record.key), self.prev(record)
            return Commit(head.version, record.id, head.at, Kind.tombstone, None, key, None, (), head.epoch, prev, head.hash)
        before = self.check_record(session, record)
        if prev is not None and before != prev:
            raise Corrupt(f"Version {head.version} of session {session.id!r} does not follow the commit before it.", session=session.id)
        actor, trace, _ = decode_meta(record.meta)
        try:
            kind = Kind(record.kind)
            events = self._events_of(record.body, body, partial=partial)
        except (Corrupt, ValueError) as error:
            raise Corrupt(f"Version {head.version} of session {session.id!r} cannot be decoded: {error}", session=session.id) from error
        return Commit(head.version, record.id, head.at, kind, actor, plain_key(record.key), trace, events, head.epoch, before, head.hash)

    def _events_of(self, stored: bytes, body: bytes | None, *, partial: bool) -> tuple[Event, ...]:
        if not out_of_line.is_reference(stored):
            return self.decode_events(stored)
        reference = out_of_line.unwrap_reference(stored)
        if body is None:
            if not partial:
                raise ValueError("its body lies elsewhere and was not fetched")
            return ()
        events = self.decode_events(body)
        out_of_line.check_events(reference, events)
        return events

    def check_record(self, session: SessionKey, record: Record) -> bytes:
        """Compute a record's hash from its columns, without decoding the body, and return `prev`. Raises `Corrupt`."""
        head = record.head
        try:
            prev = self.prev(record)
            actor, trace, format = decode_meta(record.meta)
            static = static_header(session.tenant, session.id, record.id, record.kind, actor, record.key, record.request, trace, format)
            found = commit_hash(prev, head.version, head.at, head.epoch, static, envelope.body_digest(record.body))
        except (msgspec.DecodeError, IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise Corrupt(f"Version {head.version} of session {session.id!r} is damaged: {error}.", session=session.id) from error
        if found != head.hash:
            raise Corrupt(
                f"Version {head.version} of session {session.id!r} is not what was written: its hash differs.", session=session.id
            )
        return prev

    def prev(self, record: Record) -> bytes:
        """The hash of the commit that this record says it follows. Nothing is checked."""
        return record.meta[:PREV_BYTES]

    def encode(self, events: Sequence[Event]) -> Payload:
        """What a commit's body holds, not compressed. Raises `TooLarge` over `BODY_BYTES_MAX`, `Invalid` for what no format can hold."""
        payload, format = formats.encode(events, self._format)
        if len(payload) > BODY_BYTES_MAX:
            message = f"This commit has {len(payload):,} bytes; the limit is {BODY_BYTES_MAX:,}."
            raise TooLarge(message, size=len(payload), limit=BODY_BYTES_MAX)
        return payload, format

    def encode_events(self, events: Sequence[Event]) -> bytes:
        """A commit's body. Raises as `encode`."""
        return envelope.wrap_events(*self.encode(events))

    def decode_events(self, body: bytes) -> tuple[Event, ...]:
        """The events of a body; none of an erased one. Raises `Corrupt`."""
        return () if envelope.is_erased(body) else envelope.unwrap_events(body, BODY_BYTES_MAX, formats.decode_events)

    def encode_snapshot(self, session: SessionKey, version: int, hash: bytes, state: Any) -> Snapshot:
        """The state at a version of a session's chain, sealed to that place. Raises `TooLarge` over `STATE_BYTES_MAX`."""
        payload, format = formats.encode(state, self._format)
        if len(payload) > STATE_BYTES_MAX:
            message = f"This state has {len(payload):,} bytes; the limit is {STATE_BYTES_MAX:,}."
            raise TooLarge(message, size=len(payload), limit=STATE_BYTES_MAX)
        return Snapshot(version, hash, envelope.wrap_snapshot(session, version, hash, payload, format))

    def state_bytes(self, state: Any) -> int:
        """How many bytes a state has, encoded. Raises `Invalid`."""
        return len(formats.encode(state, self._format)[0])

    def decode_snapshot(self, session: SessionKey, snapshot: Snapshot) -> Any:
        """The state. Raises `Corrupt` if the snapshot was damaged, or belongs to another place or session."""
        return envelope.unwrap_snapshot(session, snapshot, STATE_BYTES_MAX, formats.decode_value)

    def needs(self, types: Collection[str] | None) -> Callable[[out_of_line.BodyReference], bool]:
        """Whether a body out of line may have events that read as one of these types today (`None`: of any)."""
        if types is None:
            return lambda _: True
        stored = frozenset(type for type in (*types, *self._upcasters.types) if isinstance(type, str))
        return lambda reference: reference.has_any(stored)

    def upcast(self, commit: Commit) -> Commit:
        """The commit with its events as they would be written today. See `Upcasters`."""
        return self._upcasters.commit(commit)
