"""Stored heads, records and cells of index rows: types and ranges are checked, always. Raises `ValueError` for what was not written so.

Each engine turns that into `Corrupt` with the place. What fits its range is compared elsewhere with what it is a copy of.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from perdure.backends.spi import CONTROL_BYTES_MAX, Head, Record
from perdure.model.commit import Kind, Status

HASH_BYTES = 32
"""Bytes of a commit's hash."""
_STATUSES = frozenset(map(int, Status))
_KINDS = frozenset(map(int, Kind))
_INTS = frozenset({int})


def make_head(version: Any, hash: Any, at: Any, epoch: Any, status: Any, data: Any) -> Head:
    """A head from its six parts."""
    if type(hash) is not bytes or {type(version), type(at), type(epoch), type(status), type(data)} != _INTS:
        raise ValueError(f"a head has parts of other types: {(version, hash, at, epoch, status, data)!r:.200}")
    if len(hash) != HASH_BYTES or version < 1 or epoch < 0 or status not in _STATUSES or not 0 <= data <= version:
        raise ValueError(f"a head has parts that were not written so: {(version, hash, at, epoch, status, data)!r:.200}")
    return Head(version, hash, at, epoch, status, data)


def make_record(head: Head, id: Any, kind: Any, key: Any, request: Any, meta: Any, body: Any) -> Record:
    """A record from its head and its other parts."""
    if {type(id), type(request), type(meta), type(body)} != {bytes} or type(key) not in (str, NoneType):
        raise ValueError(f"version {head.version} has parts of other types: {(id, kind, key, request)!r:.200}")
    if type(kind) is not int or kind not in _KINDS:
        raise ValueError(f"version {head.version} is of a kind that there is not: {kind!r:.200}")
    return Record(head, id, kind, key, request, meta, body)


def make_cells(due_at: Any, control: Any, size_bytes: Any) -> tuple[int | None, bytes, int]:
    """When a session is due, its control cell and its size."""
    if type(due_at) not in (int, NoneType) or type(control) is not bytes or type(size_bytes) is not int:
        raise ValueError(f"an index row has cells of other types: {(due_at, control, size_bytes)!r:.200}")
    if (due_at is not None and due_at < 0) or len(control) > CONTROL_BYTES_MAX or size_bytes < 0:
        raise ValueError(f"an index row has cells that were not written so: {(due_at, control, size_bytes)!r:.200}")
    return due_at, control, size_bytes
