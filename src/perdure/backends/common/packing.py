"""The bytes of heads, idempotency keys and records, where they are the same on several engines.

They are stored, and heads are compared: the same value always gives the same bytes. What cannot be read raises one of `UNREADABLE`, which
`Reading` turns into `Corrupt` with the place where it was found.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from perdure.backends.common.pieces import PiecedRecord
from perdure.backends.common.stored import make_head, make_record
from perdure.backends.spi import Head, Record
from perdure.errors import Corrupt

UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, msgspec.DecodeError)
"""What is raised by taking apart a value that has another shape."""

_ENCODE = msgspec.msgpack.Encoder().encode
_HEAD = msgspec.msgpack.Decoder(tuple[int, bytes, int, int, int, int])
_KEY = msgspec.msgpack.Decoder(tuple[int, bytes])
_RECORD = msgspec.msgpack.Decoder(tuple[int, bytes, int, int, int, int, bytes, int, str | None, bytes, int, int, bytes])


class Reading:
    """`with Reading(where):` around what takes a stored value apart. Whatever goes wrong there becomes `Corrupt`, with the place that
    `where` gives: the value was changed by hand, or by another program."""

    __slots__ = ("_where",)

    def __init__(self, where: Callable[[], str]) -> None:
        self._where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, UNREADABLE):
            raise Corrupt(f"{self._where()} is not what was written: {error!r}.") from error


def encode_head(head: Head) -> bytes:
    """A head's bytes."""
    return _ENCODE((head.version, head.hash, head.at, head.epoch, head.status, head.data))


def decode_head(blob: bytes) -> Head:
    """The head that these bytes are."""
    return make_head(*_HEAD.decode(blob))


def encode_key(version: int, request: bytes) -> bytes:
    """Where an idempotency key was applied, and the digest of the request."""
    return _ENCODE((version, request))


def decode_key(blob: bytes) -> tuple[int, bytes]:
    """Version and digest."""
    return _KEY.decode(blob)


def encode_record(record: Record, pieces: int) -> bytes:
    """A record with its meta and body, or without them where they lie in that many pieces."""
    head = record.head
    payload = b"" if pieces else record.meta + record.body
    return _ENCODE(
        (
            head.version, head.hash, head.at, head.epoch, head.status, head.data,
            record.id, record.kind, record.key, record.request, pieces, len(record.meta), payload,
        )
    )  # fmt: skip


def decode_record(blob: bytes) -> PiecedRecord:
    """The record that these bytes are."""
    version, hash, at, epoch, status, data, id, kind, key, request, pieces, size, payload = _RECORD.decode(blob)
    head = make_head(version, hash, at, epoch, status, data)
    record = make_record(head, id, kind, key, request, payload[:size], payload[size:])
    return PiecedRecord(record, pieces, size)
