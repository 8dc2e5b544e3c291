"""The bytes of a segment and of a checkpoint: a magic word, SHA-256 of what follows, MessagePack. Damage is `Corrupt`.

Later versions of Perdure may write entries of other kinds, and longer arrays. Readers pass over both, and `cleaned` keeps them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from perdure.backends.spi import Head, Index, Record
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

APPEND, TRUNCATE, PURGE, CHANGE, REQUIRE = 0, 1, 2, 3, 4
"""What an entry does. Numbers are stored: never reuse one. `CHANGE` changes cells of the index row without a commit; `REQUIRE` says which
writers the shard takes. Both came with schema 2."""
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
    """One session's part of a segment: its records and new cells, or what is dropped of it. No segment has two of one session."""

    kind: int
    tenant: str
    session: str
    records: tuple[Written, ...] = ()
    tags: dict[str, str] | None = None
    below: int = 0
    """Everything below this version is dropped; of `REQUIRE`: the least writer version."""
    due_at: int | None = None
    """This and the cells after it are as in `Index`. They came with schema 2, and are stored where one of them is set."""
    control: bytes | None = None
    size_bytes: int | None = None

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.tenant, self.session)

    @property
    def has_cells(self) -> bool:
        """Whether it changes cells of schema 2."""
        return self.due_at is not None or self.control is not None or self.size_bytes is not None


def change(session: SessionKey, index: Index) -> Entry:
    """The entry that changes these cells without a commit."""
    return Entry(CHANGE, *session, due_at=index.due_at, control=index.control, size_bytes=index.size_bytes)


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


class Cells(msgspec.Struct, array_like=True):
    """The cells that came with schema 2, as in `Row`, of a session that has any. `changes` are the segments that changed them without a
    commit."""

    due_at: int | None = None
    control: bytes = b""
    size_bytes: int = 0
    changes: list[int] = []


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """The index of a shard as of a position. What comes after `chains` came with schema 2."""

    position: int
    chains: tuple[tuple[str, str, Chain], ...]
    schema: int = 1
    """The newest schema that its writer knew: what a later one put into the log is not in this index."""
    min_writer: int = 1
    cells: tuple[tuple[str, str, Cells], ...] = ()


_ENCODER = msgspec.msgpack.Encoder()
_SEGMENTS = msgspec.msgpack.Decoder(Segment)
_CHECKPOINTS = msgspec.msgpack.Decoder(Checkpoint)
_KEY, _META, _BODY = (Written.__struct_fields__.index(name) for name in ("key", "meta", "body"))
_RECORDS, _TAGS, _CELLS = (Entry.__struct_fields__.index(name) for name in ("records", "tags", "due_at"))


def encode_segment(segment: Segment) -> bytes:
    """A segment's bytes."""
    entries = [entry if entry.has_cells else _narrow(entry) for entry in segment.entries]
    return _seal(_SEGMENT, _ENCODER.encode((segment.id, entries)))


def _narrow(entry: Entry) -> tuple[object, ...]:
    return entry.kind, entry.tenant, entry.session, entry.records, entry.tags, entry.below


def decode_segment(data: bytes, name: str) -> Segment:
    """A segment. Raises `Corrupt` naming the object."""
    found: Segment = _opened(_SEGMENTS, data, name)
    return found


def _opened(decoder: msgspec.msgpack.Decoder[Any], data: bytes, name: str) -> Any:
    try:
        return decoder.decode(_unseal(_SEGMENT, data))
    except (ValueError, msgspec.DecodeError) as error:
        raise Corrupt(f"The object {name} is damaged or none of Perdure's: {error}.") from error


def cleaned(data: bytes, name: str, session: SessionKey, first: int, blank: int) -> bytes:
    """A segment without what was dropped of a session below `first`; of a life that ended with the purge of `blank`, also without its keys,
    cells and last body. What this version does not know stays as it is. Raises `Corrupt`."""
    decode_segment(data, name)
    id, entries, *others = _opened(msgspec.msgpack.Decoder(), data, name)
    new = [_cleaned(entry, first, blank) if entry[1:3] == [*session] else entry for entry in entries]
    return data if new == entries else _seal(_SEGMENT, _ENCODER.encode([id, new, *others]))


def _cleaned(entry: list[Any], first: int, blank: int) -> list[Any]:
    """An entry as it was read, without a type: only so are unknown fields kept."""
    if entry[0] == APPEND:
        new = [*entry]
        new[_RECORDS] = [_cleaned_record(record, first, blank) for record in entry[_RECORDS]]
        if entry[_RECORDS][-1][0] > blank:
            return new
        new[_TAGS] = None
    elif entry[0] == CHANGE and blank:
        new = [*entry]
    else:
        return entry
    new[_CELLS : _CELLS + 3] = [None] * len(new[_CELLS : _CELLS + 3])
    return new


def _cleaned_record(record: list[Any], first: int, blank: int) -> list[Any]:
    new = [*record]
    if record[0] < first:
        new[_META], new[_BODY] = None, b""
    if record[0] <= blank:
        new[_KEY], new[_BODY] = None, b""
    return new


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A checkpoint's bytes."""
    whole = checkpoint if checkpoint.schema > 1 else (checkpoint.position, checkpoint.chains)
    return _seal(_CHECKPOINT, _ENCODER.encode(whole))


def decode_checkpoint(data: bytes) -> Checkpoint:
    """A checkpoint. Raises `ValueError` or `msgspec.DecodeError`: a damaged one is done without."""
    return _CHECKPOINTS.decode(_unseal(_CHECKPOINT, data))


def _seal(magic: bytes, payload: bytes) -> bytes:
    return magic + hashlib.sha256(payload).digest() + payload


def _unseal(magic: bytes, data: bytes) -> bytes:
    payload = data[len(magic) + _DIGEST :]
    if not data.startswith(magic):
        raise ValueError("it does not start as it should")
    if hashlib.sha256(payload).digest() != data[len(magic) : len(magic) + _DIGEST]:
        raise ValueError("its checksum differs")
    return payload
