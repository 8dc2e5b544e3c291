"""Keys and values in etcd: names never hold control characters, so a zero byte ends each of them.

    NS/m                              schema, store id and the least writer version: the value that every write compares
    NS/h/TENANT 0 ID 0                the head: the value that every append compares
    NS/i/TENANT 0 ID 0                the index row's rest: created, tags; from schema 2 on also due_at, control, size_bytes
    NS/d/DUE/TENANT 0 ID 0            empty: the session is due at DUE; from schema 2 on
    NS/r/TENANT 0 ID 0 VERSION        a record; a body over 256 KiB lies in chunks, written before it
    NS/k/TENANT 0 ID 0 KEY            an idempotency key: version and request
    NS/s/TENANT 0 ID 0 VERSION        a snapshot, likewise in chunks
    NS/c/TENANT 0 ID 0 NAME 0 NUMBER  a chunk

Keys sort by bytes, as ids do. Versions and times that are due are 16 hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from perdure.backends.common import packing
from perdure.backends.common.stored import make_cells, make_head, make_record
from perdure.backends.etcd.gateway import Json, data
from perdure.backends.spi import NEVER, Head, Index, Record, Row
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

T = TypeVar("T")

_ENCODER = msgspec.msgpack.Encoder()
_RECORD = msgspec.msgpack.Decoder(tuple[bytes, int, int, int, int, bytes, int, str | None, bytes, bytes, int, bytes])
_SNAPSHOT = msgspec.msgpack.Decoder(tuple[bytes, int, bytes])


class _Known(msgspec.Struct, frozen=True, array_like=True):
    created: int
    tags: Mapping[str, str]
    due_at: int | None = None
    control: bytes = b""
    size_bytes: int = 0


class IndexCells(_Known, frozen=True):
    """A session's index row but for its head. `rest` is what a later version of Perdure added, and stays as it is."""

    rest: tuple[Any, ...] = ()

    def changed(self, index: Index | None) -> IndexCells:
        """The row after a change of its cells."""
        if index is None:
            return self
        return IndexCells(
            self.created,
            self.tags if index.tags is None else index.tags,
            self.due_at if index.due_at is None else None if index.due_at == NEVER else index.due_at,
            self.control if index.control is None else index.control,
            self.size_bytes if index.size_bytes is None else index.size_bytes,
            self.rest,
        )

    def row(self, session: SessionKey, head: Head) -> Row:
        """The whole row."""
        return Row(session, head, self.tags, self.created, self.due_at, self.control, self.size_bytes)


_KNOWN = msgspec.msgpack.Decoder(_Known)
_KNOWN_LENGTH = b"\x95"
"""How MessagePack begins an array of five; longer ones begin with larger bytes."""
_NO_CELLS = (None, b"", 0)


class Layout:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._prefix = namespace.encode() + b"/"

    @property
    def meta(self) -> bytes:
        return self._prefix + b"m"

    def all(self, kind: bytes) -> bytes:
        """What all keys of a kind begin with."""
        return self._prefix + kind + b"/"

    def of(self, kind: bytes, session: SessionKey) -> bytes:
        """The key of a session, or what its keys of that kind begin with."""
        return b"%b%b/%b\0%b\0" % (self._prefix, kind, session.tenant.encode(), session.id.encode())

    def rows(self, kind: bytes, tenant: str, prefix: str) -> bytes:
        """What the keys of a tenant's sessions with this id prefix begin with."""
        return b"%b%b/%b\0%b" % (self._prefix, kind, tenant.encode(), prefix.encode())

    def at(self, kind: bytes, session: SessionKey, version: int) -> bytes:
        """The key of a record or a snapshot."""
        return self.of(kind, session) + b"%016x" % version

    def key(self, session: SessionKey, key: str) -> bytes:
        """The key of an idempotency key."""
        return self.of(b"k", session) + key.encode()

    def chunks(self, session: SessionKey, name: str) -> bytes:
        """What the chunks of a record (named by its commit's id) or a snapshot (by its version) begin with."""
        return self.of(b"c", session) + name.encode() + b"\0"

    def due(self, due_at: int, session: SessionKey | None = None) -> bytes:
        """The key that says when a session is due, or what all keys of that time begin with."""
        start = b"%bd/%016x/" % (self._prefix, due_at)
        return start if session is None else start + b"%b\0%b\0" % (session.tenant.encode(), session.id.encode())

    def due_of(self, item: Json) -> tuple[int, SessionKey]:
        """When a session is due, of a key that says so."""
        due_at, _, name = data(item, "key")[len(self._prefix) + 2 :].partition(b"/")
        tenant, id = name.split(b"\0")[:2]
        return int(due_at, 16), SessionKey(tenant.decode(), id.decode())

    def session(self, item: Json) -> SessionKey:
        """The session that a key belongs to."""
        tenant, id = data(item, "key")[len(self._prefix) + 2 :].split(b"\0")[:2]
        return SessionKey(tenant.decode(), id.decode())


def row_gone(session: SessionKey) -> Corrupt:
    """The error for a session that has a head and no index row."""
    return Corrupt(f"The index row of session {session.id!r} is gone from etcd.", session=session.id)


def version_of(item: Json) -> int:
    """The version that ends a key."""
    return int(data(item, "key")[-16:], 16)


def _decoded(decode: Callable[[bytes], T], item: Json, what: str) -> T:
    try:
        return decode(data(item, "value"))
    except (msgspec.DecodeError, ValueError) as error:
        raise Corrupt(f"{what} in etcd at {data(item, 'key')!r} is not what was written: {error}.") from error


encode_head, encode_key = packing.encode_head, packing.encode_key


def decode_head(item: Json) -> Head:
    """Raises `Corrupt`, as all of these do."""
    return _decoded(packing.decode_head, item, "A head")


def encode_index(row: IndexCells) -> bytes:
    """The index row's rest; without the cells of schema 2 while none is set, as schema 1 has it."""
    cells = (row.due_at, row.control, row.size_bytes, *row.rest)
    return _ENCODER.encode((row.created, row.tags, *(() if cells == _NO_CELLS else cells)))


def decode_index(item: Json) -> IndexCells:
    """The index row's rest."""
    return _decoded(_index_cells, item, "An index row")


def _index_cells(blob: bytes) -> IndexCells:
    known = _KNOWN.decode(blob)
    rest = tuple(msgspec.msgpack.decode(blob)[len(_Known.__struct_fields__) :]) if blob[:1] > _KNOWN_LENGTH else ()
    return IndexCells(known.created, known.tags, *make_cells(known.due_at, known.control, known.size_bytes), rest)


def encode_record(record: Record, body: bytes, chunks: int) -> bytes:
    """A record whose body is `body`, or lies in that many chunks."""
    head = record.head
    return _ENCODER.encode(
        (
            head.hash, head.at, head.epoch, head.status, head.data,
            record.id, record.kind, record.key, record.request, record.meta, chunks, body,
        )
    )  # fmt: skip


def decode_record(item: Json) -> tuple[Record, int]:
    """The record and how many chunks its body lies in (0: it is here)."""
    version = version_of(item)

    def decode(blob: bytes) -> tuple[Record, int]:
        hash, at, epoch, status, last, id, kind, key, request, meta, chunks, body = _RECORD.decode(blob)
        return make_record(make_head(version, hash, at, epoch, status, last), id, kind, key, request, meta, body), chunks

    return _decoded(decode, item, "A record")


def decode_key(item: Json) -> tuple[int, bytes]:
    """Version and digest."""
    return _decoded(packing.decode_key, item, "An idempotency key")


def encode_snapshot(hash: bytes, chunks: int, body: bytes) -> bytes:
    """A snapshot whose body is here, or lies in that many chunks."""
    return _ENCODER.encode((hash, chunks, body))


def decode_snapshot(item: Json) -> tuple[bytes, int, bytes]:
    """Hash, chunks and body."""
    hash, chunks, body = _decoded(_SNAPSHOT.decode, item, "A snapshot")
    return hash, chunks, body
