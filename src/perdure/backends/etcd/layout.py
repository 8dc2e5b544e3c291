"""Keys and values in etcd: names never hold control characters, so a zero byte ends each of them.

    NS/m                              schema and store id
    NS/h/TENANT 0 ID 0                the head: the value that every append compares
    NS/i/TENANT 0 ID 0                the index row's rest: created, tags
    NS/r/TENANT 0 ID 0 VERSION        a record; a body over 256 KiB lies in chunks, written before it
    NS/k/TENANT 0 ID 0 KEY            an idempotency key: version and request
    NS/s/TENANT 0 ID 0 VERSION        a snapshot, likewise in chunks
    NS/c/TENANT 0 ID 0 NAME 0 NUMBER  a chunk

Keys sort by bytes, as ids do. Versions are 16 hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from perdure.backends.common import packing
from perdure.backends.etcd.gateway import Json, data
from perdure.backends.spi import Head, Record
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

T = TypeVar("T")
SCHEMA = 1
"""The version of this layout."""

_ENCODER = msgspec.msgpack.Encoder()
_INDEX = msgspec.msgpack.Decoder(tuple[int, dict[str, str]])
_RECORD = msgspec.msgpack.Decoder(tuple[bytes, int, int, int, int, bytes, int, str | None, bytes, bytes, int, bytes])
_SNAPSHOT = msgspec.msgpack.Decoder(tuple[bytes, int, bytes])


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

    def session(self, item: Json) -> SessionKey:
        """The session that a key belongs to."""
        tenant, id = data(item, "key")[len(self._prefix) + 2 :].split(b"\0")[:2]
        return SessionKey(tenant.decode(), id.decode())


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


def encode_index(created: int, tags: Mapping[str, str]) -> bytes:
    """The index row's rest: when the session was made (ns) and its tags."""
    return _ENCODER.encode((created, tags))


def decode_index(item: Json) -> tuple[int, dict[str, str]]:
    """When the session was made, and its tags."""
    created, tags = _decoded(_INDEX.decode, item, "An index row")
    return created, tags


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
    hash, at, epoch, status, last, id, kind, key, request, meta, chunks, body = _decoded(_RECORD.decode, item, "A record")
    return Record(Head(version_of(item), hash, at, epoch, status, last), id, kind, key, request, meta, body), chunks


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
