"""Attempts and their records as the statement `append` takes them: two lists of numbers, and all bytes and texts in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.backends.remote import Attempt
from perdure.backends.spi import NEVER, Index

ATTEMPT, RECORD = 23, 19
"""How many numbers describe one: its integers, then place (from 1) and length of each piece of bytes; the length -1 stands for null."""
LEAVE, REMOVE = -2, -1
"""As a time that is due: it stays as it is; it goes. A size of `LEAVE` stays as it is."""


_NO_CHANGE = Index()


class _Bytes:
    """Pieces one after another."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.end = 1

    def put(self, numbers: list[int], pieces: Sequence[bytes | None]) -> None:
        """Append pieces, and their places and lengths to `numbers`."""
        for piece in pieces:
            if piece is None:
                numbers += (self.end, -1)
            else:
                size = len(piece)
                numbers += (self.end, size)
                self.pieces.append(piece)
                self.end += size


def pack(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The values of the statement `append`, but for the level."""
    bytes, by_attempt, by_record = _Bytes(), list[int](), list[int]()
    records, keys = 0, False
    for number, attempt in enumerate(attempts):
        last, expected = attempt.records[-1].head, attempt.expected
        created = attempt.records[0].head.at
        index = attempt.index or _NO_CHANGE
        by_attempt += (expected.version if expected else -1, created, *_head(last), due(index), size(index))
        tags = None if index.tags is None else msgspec.json.encode(index.tags)
        key = _text(attempt.key)
        session = attempt.session
        names = session.tenant.encode(), session.id.encode()
        bytes.put(by_attempt, (*names, expected.hash if expected else b"", last.hash, key, tags, index.control))
        keys = keys or key is not None
        for record in attempt.records:
            by_record += (number, *_head(record.head), record.kind)
            key = _text(record.key)
            bytes.put(by_record, (record.head.hash, record.id, key, record.request, record.meta, record.body))
            keys = keys or key is not None
        records += len(attempt.records)
    return {
        "count": len(attempts),
        "attempts": _array(by_attempt),
        "records": records,
        "packed": _array(by_record),
        "bytes": b"".join(bytes.pieces),
        "keys": keys,
    }


def due(index: Index) -> int:
    """What becomes of the time that is due, as a number."""
    return LEAVE if index.due_at is None else REMOVE if index.due_at == NEVER else index.due_at


def size(index: Index) -> int:
    """What becomes of the size."""
    return LEAVE if index.size_bytes is None else index.size_bytes


def _head(head: Any) -> tuple[int, int, int, int, int]:
    return head.version, head.at, head.epoch, head.status, head.data


def _text(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _array(numbers: Sequence[int]) -> str:
    """An array as PostgreSQL spells it: of one type whatever the numbers are, so that one prepared statement serves all."""
    return "{" + ",".join(map(str, numbers)) + "}"
