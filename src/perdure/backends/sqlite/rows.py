"""Rows of the file as heads and records: their types and ranges are checked, always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.backends.common import stored
from perdure.backends.spi import Head, Record, Snapshot
from perdure.errors import Corrupt

HEAD = "version, hash, at, epoch, status, data"
RECORD = f"{HEAD}, id, kind, key, request, meta, body"
_CELLS = "due_at, control, size_bytes"
_NO_CELLS = "NULL, x'', 0"


def cells(schema: int, table: str = "") -> str:
    """The columns of the index row that came with schema 2, of this table; on a store of schema 1 what they would be there."""
    return _NO_CELLS if schema < 2 else ", ".join(table + name for name in _CELLS.split(", "))


def make_cells(row: Sequence[Any]) -> tuple[int | None, bytes, int]:
    """When a session is due, its control cell and its size. Raises `Corrupt`."""
    try:
        return stored.make_cells(*row)
    except ValueError:
        raise _not_so("sessions", row) from None


def make_head(row: Sequence[Any]) -> Head:
    """A head from its six columns. Raises `Corrupt` if one is not what it can have been written as."""
    try:
        return stored.make_head(*row)
    except ValueError:
        raise _not_so("log", row) from None


def make_record(row: Sequence[Any]) -> Record:
    """A record from its columns. Raises `Corrupt`."""
    try:
        return stored.make_record(stored.make_head(*row[:6]), *row[6:])
    except ValueError:
        raise _not_so("log", row[:9]) from None


def make_snapshot(row: Sequence[Any]) -> Snapshot:
    """A snapshot from its columns. Raises `Corrupt`."""
    version, hash, body = row
    if type(version) is not int or version < 1 or type(hash) is not bytes or len(hash) != 32 or type(body) is not bytes:
        raise _not_so("snapshots", row[:2])
    return Snapshot(version, hash, body)


def make_known(row: Sequence[Any], head: Head) -> tuple[int, bytes]:
    """Where a key was applied, and its request. Raises `Corrupt`."""
    version, request = row
    if type(version) is not int or type(request) is not bytes or not 1 <= version <= head.version:
        raise _not_so("keys", row)
    return version, request


def make_tags(text: Any) -> dict[str, str]:
    """A session's tags. Raises `Corrupt`."""
    if type(text) is not str:
        raise _not_so("sessions", (text,))
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError):
        raise _not_so("sessions", (text,)) from None


def _not_so(table: str, row: Sequence[Any]) -> Corrupt:
    return Corrupt(f"A row of the {table} has columns that were not written so: {row!r:.200}.")
