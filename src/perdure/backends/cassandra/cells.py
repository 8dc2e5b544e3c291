"""The cells of an index row: one value, a map in a static column of the newest bucket. Fields that a later version put there are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.backends.cassandra.layout import BucketHeader
from perdure.backends.common.stored import make_cells
from perdure.backends.spi import NEVER, Index, Row
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

DUE_AT, DUE_ROW = "due_at", "due_row"
_CONTROL, _SIZE, _DROPS = "control", "size_bytes", "snapshot_drops"
_KNOWN = (DUE_AT, DUE_ROW, _CONTROL, _SIZE, _DROPS)
Fields = dict[str, Any]


def decode(blob: bytes | None) -> Fields:
    """The fields by name. Raises `Corrupt`."""
    try:
        return {} if blob is None else msgspec.msgpack.decode(blob, type=Fields)
    except (msgspec.DecodeError, ValueError) as error:
        raise Corrupt(f"The cells of a session in Cassandra are not what was written: {error}.") from error


def index_row(session: SessionKey, header: BucketHeader) -> Row:
    """The index row that a bucket's header is. Raises `Corrupt`."""
    if header.head is None:
        raise Corrupt("A bucket in Cassandra has records and no head.")
    fields = decode(header.cells)
    try:
        cells = make_cells(fields.get(DUE_AT), fields.get(_CONTROL, b""), fields.get(_SIZE, 0))
    except ValueError as error:
        raise Corrupt(f"The cells of session {session.id!r} in Cassandra are not what was written: {error}.") from error
    return Row(session, header.head, header.tags, header.created, *cells)


def due_row(blob: bytes | None) -> tuple[int, bytes] | None:
    """When a session is due, and the name of the row that says so."""
    fields = decode(blob)
    return (fields[DUE_AT], fields[DUE_ROW]) if DUE_AT in fields else None


def snapshot_drops(blob: bytes | None) -> int:
    """How often all snapshots of a session were dropped."""
    return int(decode(blob).get(_DROPS, 0))


def drop_snapshots(fields: Fields) -> Fields:
    """With one more of these."""
    return {**fields, _DROPS: fields.get(_DROPS, 0) + 1}


def without_due(blob: bytes | None) -> bytes | None:
    """What a purge leaves: fields of later versions."""
    left = {name: value for name, value in decode(blob).items() if name not in _KNOWN}
    return msgspec.msgpack.encode(left) if left else None


def touches(index: Index | None) -> bool:
    """Whether an append changes cells beside the tags."""
    return index is not None and (index.due_at, index.control, index.size_bytes) != (None, None, None)


def changed(fields: Mapping[str, Any], index: Index | None) -> Fields:
    """The fields after a change; the name of the row of what is due is not among them where `due_at` changed."""
    after = dict(fields)
    if index is None:
        return after
    if index.due_at is not None and index.due_at != after.get(DUE_AT):
        after.pop(DUE_ROW, None)
    for name, value, none in ((DUE_AT, index.due_at, NEVER), (_CONTROL, index.control, b""), (_SIZE, index.size_bytes, 0)):
        if value == none:
            after.pop(name, None)
        elif value is not None:
            after[name] = value
    return after
