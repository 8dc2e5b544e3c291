"""The bytes of a segment and of a checkpoint: a magic word, SHA-256 of what follows, MessagePack. Damage is `Corrupt`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from perdure.backends.spi import Head, Record
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

APPEND, TRUNCATE, PURGE = 0, 1, 2
"""What an entry does. Numbers are stored: never reuse one."""
_SEGMENT, _CHECKPOINT = b"PERDURE\x01", b"PERDURE\x02"
_DIGEST = 32


class Written(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record as it is stored. One that was truncated or purged keeps its position; its `meta` is `None`, its content is gone."""

    version: int
    hash: bytes
    at: int
    epoch: int
    status: int
    data: int
    id: bytes
    kind: int
    key: str | None
    request: bytes
    meta: bytes | None
    body: bytes

    @property
    def head(self) -> Head:
        return Head(self.version, self.hash, self.at, self.epoch, self.status, self.data)

    def record(self) -> Record | None:
        """The record, unless it was dropped."""
        if self.meta is None:
            return None
        return Record(self.head, self.id, self.kind, self.key, self.request, self.meta, self.body)


def written(record: Record) -> Written:
    """A record in the form that is stored."""
    head = record.head
    return Written(
        head.version, head.hash, head.at, head.epoch, head.status, head.data,
        record.id, record.kind, record.key, record.request, record.meta, record.body,
    )  # fmt: skip


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One session's part of a segment: its records and new tags, or what is dropped of it: all below a version."""

    kind: int
    tenant: str
    session: str
    records: tuple[Written, ...] = ()
    tags: dict[str, str] | None = None
    below: int = 0

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.tenant, self.session)


class Segment(msgspec.Struct, array_like=True, frozen=True):
    """Many sessions' entries, and an id that no other segment has: by it a writer knows its own after a lost answer."""

    id: bytes
    entries: tuple[Entry, ...]


class Chain(msgspec.Struct, array_like=True):
    """What the index knows of one session. `positions` are the segments of the versions from `first` to the head; the body of version
    `blank` is empty (the stub of a purged life; 0: none). `unclean` are segments that may still hold what was dropped."""

    head: Head
    created: int
    tags: dict[str, str]
    keys: dict[str, tuple[int, bytes]]
    first: int
    positions: list[int]
    blank: int = 0
    unclean: list[int] = []


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """The index of a shard as of a position."""

    position: int
    chains: tuple[tuple[str, str, Chain], ...]


_ENCODER = msgspec.msgpack.Encoder()
_SEGMENTS = msgspec.msgpack.Decoder(Segment)
_CHECKPOINTS = msgspec.msgpack.Decoder(Checkpoint)


def encode_segment(segment: Segment) -> bytes:
    """A segment's bytes."""
    return _seal(_SEGMENT, _ENCODER.encode(segment))


def decode_segment(data: bytes, name: str) -> Segment:
    """A segment. Raises `Corrupt` naming the object."""
    try:
        return _SEGMENTS.decode(_unseal(_SEGMENT, data))
    except (ValueError, msgspec.DecodeError) as error:
        raise Corrupt(f"The object {name} is damaged or none of Perdure's: {error}.") from error


def encode_checkpoint(position: int, chains: Sequence[tuple[SessionKey, Chain]]) -> bytes:
    """A checkpoint's bytes."""
    rows = tuple([(key.tenant, key.id, chain) for key, chain in chains])
    return _seal(_CHECKPOINT, _ENCODER.encode(Checkpoint(position, rows)))


def decode_checkpoint(data: bytes) -> tuple[int, dict[SessionKey, Chain]]:
    """The position and the index. Raises `ValueError` or `msgspec.DecodeError`: a damaged checkpoint is done without."""
    found = _CHECKPOINTS.decode(_unseal(_CHECKPOINT, data))
    chains = {SessionKey(tenant, id): chain for tenant, id, chain in found.chains}
    return found.position, chains


def _seal(magic: bytes, payload: bytes) -> bytes:
    return magic + hashlib.sha256(payload).digest() + payload


def _unseal(magic: bytes, data: bytes) -> bytes:
    payload = data[len(magic) + _DIGEST :]
    if not data.startswith(magic):
        raise ValueError("it does not start as it should")
    if hashlib.sha256(payload).digest() != data[len(magic) : len(magic) + _DIGEST]:
        raise ValueError("its checksum differs")
    return payload
