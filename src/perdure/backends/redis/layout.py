"""Keys and values in Redis. `functions.lua` names the keys of a shard and says what lies in each.

Sessions are spread over 16 shards by a hash of tenant and id. All keys of a shard begin with `{NS.SHARD}`, so in a Cluster they share a
slot, and one function can change a session, the listing and the feed at once. U+001F parts tenant and id: no name holds a control
character.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn
from zlib import crc32

import msgspec

from perdure.backends.common import packing
from perdure.backends.common.stored import make_cells, make_head, make_record
from perdure.backends.spi import NEVER, Head, Index, Record, Row, Snapshot
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

LIBRARY = 2
"""The version of the functions; part of their names."""
SHARDS = 16
"""Part of the layout: never change it."""

_ENCODE = msgspec.msgpack.Encoder().encode
_REST = msgspec.msgpack.Decoder(tuple[int, int, int, int, int, bytes, str | None, bytes, bytes, bytes])
_TAGS = msgspec.json.Decoder(dict[str, str])
_SNAPSHOT = msgspec.msgpack.Decoder(tuple[bytes, bytes])


def shard_of(session: SessionKey) -> int:
    """In which shard a session lies."""
    return crc32(name_of(session)) % SHARDS


def prefix(namespace: str, shard: int) -> str:
    """What the names of a shard's keys begin with."""
    return f"{{{namespace}.{shard}}}"


def name_of(session: SessionKey) -> bytes:
    """A session's name in its shard."""
    return f"{session.tenant}\x1f{session.id}".encode()


def session_of(name: bytes) -> SessionKey:
    """Back from its name."""
    tenant, _, id = name.decode().partition("\x1f")
    return SessionKey(tenant, id)


def encode_head(head: Head | None) -> bytes:
    """A head as the functions compare it; nothing for none."""
    return b"" if head is None else packing.encode_head(head)


def decode_head(data: bytes | None) -> Head | None:
    """Raises `Corrupt`."""
    try:
        return None if data is None else packing.decode_head(data)
    except (ValueError, msgspec.DecodeError) as error:
        _damaged("A head", error)


def proof(hash: bytes, kind: int | None = None) -> bytes:
    """What the record of a commit with this hash, and this kind, begins with: the functions compare it."""
    return bytes([len(hash)]) + hash + (b"" if kind is None else bytes([kind]))


def encode_record(record: Record) -> bytes:
    """A record of a log."""
    head = record.head
    rest = (head.version, head.at, head.epoch, head.status, head.data, record.id, record.key, record.request, record.meta, record.body)
    return proof(head.hash, record.kind) + _ENCODE(rest)


def decode_record(data: bytes) -> Record:
    """Raises `Corrupt`."""
    try:
        size = data[0] + 1
        hash, kind = data[1:size], data[size]
        version, at, epoch, status, last, id, key, request, meta, body = _REST.decode(data[size + 1 :])
        return make_record(make_head(version, hash, at, epoch, status, last), id, kind, key, request, meta, body)
    except (IndexError, ValueError, msgspec.DecodeError) as error:
        _damaged("A record", error)


encode_key = packing.encode_key


def decode_key(data: bytes) -> tuple[int, bytes]:
    """Raises `Corrupt`."""
    try:
        return packing.decode_key(data)
    except msgspec.DecodeError as error:
        _damaged("An idempotency key", error)


def encode_tags(tags: Any) -> bytes:
    """Tags; `{}` for none, which the functions know."""
    return msgspec.json.encode(dict(tags))


def decode_tags(data: bytes) -> dict[str, str]:
    """Raises `Corrupt`."""
    try:
        return _TAGS.decode(data) if data else {}
    except msgspec.DecodeError as error:
        _damaged("A session's tags", error)


def encode_due(due_at: int | None) -> bytes:
    """When a session is due, so that bytes sort as times do; nothing for never."""
    return b"" if due_at is None else due_at.to_bytes(8, "big")


def encode_cells(index: Index | None) -> tuple[bytes, bytes, bytes]:
    """The cells of schema 2 as the functions take them."""
    if index is None:
        return b"", b"", b""
    due = b"" if index.due_at is None else b"-" if index.due_at == NEVER else encode_due(index.due_at)
    control = b"" if index.control is None else b"+" + index.control if index.control else b"-"
    return due, control, b"" if index.size_bytes is None else b"%d" % index.size_bytes


def decode_row(session: SessionKey, found: Sequence[bytes | None]) -> Row:
    """A session's index row. Raises `Corrupt`."""
    head, created, tags, due, control, size = found
    decoded = decode_head(head)
    if decoded is None or created is None:
        raise Corrupt(f"The head of session {session.id!r} is gone from Redis.", session=session.id)
    try:
        due_at = int.from_bytes(due, "big") if due else None
        return Row(session, decoded, decode_tags(tags or b""), int(created), *make_cells(due_at, control or b"", int(size or 0)))
    except ValueError as error:
        _damaged("An index row", error)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """A snapshot without its version, under which it lies."""
    return _ENCODE((snapshot.hash, snapshot.body))


def decode_snapshot(version: bytes, data: bytes) -> Snapshot | None:
    """Nothing for no version. Raises `Corrupt`."""
    try:
        return Snapshot(int(version), *_SNAPSHOT.decode(data)) if version else None
    except (ValueError, msgspec.DecodeError) as error:
        _damaged("A snapshot", error)


def _damaged(what: str, error: Exception) -> NoReturn:
    raise Corrupt(f"{what} in Redis was changed by hand: {error}.") from error
