"""The envelope of a body that lies elsewhere: what a record holds in its place. The commit's hash covers the body's digest in any case.

byte 0   magic: 0xD8
byte 1   envelope version, 1
byte 2   format of the body: 1 JSON, 2 MessagePack
byte 3   0
then     SHA-256 of the body (32 bytes)
         the first 16 bytes of SHA-256 over all other bytes of this envelope
         MessagePack [size of the body, life, whether it has operations, its event types or nil]
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from perdure.errors import Corrupt
from perdure.model.events import Event

REFERENCE = 0xD8
TYPES_BYTES_MAX = 4 << 10
"""Most bytes of event types that a reference names: of a body with more it names none, and a reader who wants a type fetches it."""
_VERSION = 1
_PREFIX, _DIGEST, _SEAL = 4, 32, 16
_FACTS = _PREFIX + _DIGEST + _SEAL
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[int, int, bool, tuple[str, ...] | None])


class BodyReference(msgspec.Struct, frozen=True):
    """What a record says of its body, which lies elsewhere.

    `life` is the session's grant when it was stored (see `model.commit.raised`); `types` are those of its events, each once, sorted;
    `None`: not said.
    """

    digest: bytes
    format: int
    size: int
    life: int
    has_ops: bool
    types: tuple[str, ...] | None

    def has_any(self, types: frozenset[str]) -> bool:
        """Whether the body may have an event of one of these types."""
        return self.types is None or not types.isdisjoint(self.types)


def is_reference(body: bytes) -> bool:
    """Whether this stands for a body that lies elsewhere."""
    return body[:1] == b"\xd8"


def refer(body: bytes, format: int, life: int, events: Sequence[Event]) -> BodyReference:
    """The reference to a body that has these events."""
    types: tuple[str, ...] | None = tuple(sorted({event.type for event in events}))
    if sum(len(type.encode()) for type in types or ()) > TYPES_BYTES_MAX:
        types = None
    return BodyReference(hashlib.sha256(body).digest(), format, len(body), life, any(event.ops for event in events), types)


def wrap_reference(reference: BodyReference) -> bytes:
    """What a record holds in place of the body."""
    prefix = bytes((REFERENCE, _VERSION, reference.format, 0)) + reference.digest
    facts = _ENCODER.encode((reference.size, reference.life, reference.has_ops, reference.types))
    return prefix + _seal(prefix, facts) + facts


def unwrap_reference(body: bytes) -> BodyReference:
    """The reference. Raises `Corrupt` if it was damaged, or is of a version that is not known."""
    prefix, facts = body[: _PREFIX + _DIGEST], body[_FACTS:]
    if body[_PREFIX + _DIGEST : _FACTS] != _seal(prefix, facts):
        _damaged("its checksum differs")
    if prefix[1] != _VERSION:
        _damaged("its version is not one that this version of Perdure knows")
    try:
        size, life, has_ops, types = _DECODER.decode(facts)
    except msgspec.DecodeError as error:
        _damaged(str(error))
    return BodyReference(prefix[_PREFIX:], prefix[2], size, life, has_ops, types)


def check_body(reference: BodyReference, body: bytes) -> None:
    """Raise `Corrupt` unless this is the body that was stored."""
    if len(body) != reference.size or hashlib.sha256(body).digest() != reference.digest:
        raise Corrupt(f"It has {len(body):,} bytes that are not the {reference.size:,} that were written.")


def check_events(reference: BodyReference, events: Sequence[Event]) -> None:
    """Raise `Corrupt` unless the reference says what the events are."""
    made = tuple(sorted({event.type for event in events}))
    if reference.types not in (None, made) or reference.has_ops != any(event.ops for event in events):
        _damaged("it names other events than its body has")


def _seal(prefix: bytes, facts: bytes) -> bytes:
    return hashlib.sha256(prefix + facts).digest()[:_SEAL]


def _damaged(why: str) -> NoReturn:
    raise Corrupt(f"The reference to a body out of line is damaged: {why}.")
