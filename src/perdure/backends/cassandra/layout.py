"""How a session lies in Cassandra: buckets, and what the blobs hold. The tables are in schema.cql.

A bucket is a partition of the log. Which one an append goes to follows from the head it expects alone, so that all who race for that
head meet in one partition. An append that crosses a multiple of the bucket's size is its bucket's last: it seals it, in the same write,
by making a head that nothing expects there any more. A session's first append goes to bucket 0, whatever its version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import msgspec

from perdure.backends.common import packing
from perdure.backends.common.stored import make_head, make_record
from perdure.backends.spi import Head, Record
from perdure.errors import Corrupt

T = TypeVar("T")
KEY_SLOTS = 16
"""Partitions of a session's sealed keys."""
SESSION_SLOTS = 16
"""Partitions of a tenant's list of sessions."""

DROPS_MAX = 1 << 16
"""Timestamps of snapshots of one version, from schema 2 on; in schema 1 it is the version itself."""

_ENCODER = msgspec.msgpack.Encoder()
_RECORD = msgspec.msgpack.Decoder(tuple[bytes, int, int, int, int, bytes, int, str | None, bytes, bytes, int])
_STATE = msgspec.msgpack.Decoder(tuple[bytes, int, bytes])


class Buckets(NamedTuple):
    """The arithmetic of one store. `size`: versions a bucket."""

    size: int

    def of(self, version: int, base: int) -> int:
        """The bucket in which an append on the head of this version goes; `base` is the version before the session's first."""
        return max(0, version // self.size - base // self.size)

    def end(self, bucket: int, base: int) -> int:
        """The last version that an append of one record may have in a bucket."""
        return (bucket + base // self.size + 1) * self.size

    def seals(self, version: int, base: int, bucket: int) -> bool:
        """Whether a bucket whose head has this version is sealed."""
        return self.of(version, base) > bucket


class BucketHeader(NamedTuple):
    """What stands once in a bucket. `newest` and `dropped` are hints, and stand in bucket 0. `cells` as they are stored, see `cells`."""

    head: Head | None
    tags: Mapping[str, str]
    created: int
    base: int
    fence: int | None
    newest: int
    dropped: int
    cells: bytes | None = None


class Row(NamedTuple):
    """A record, how many pieces its body lies in (0: it is here), and when it was announced to the feed (ns)."""

    record: Record
    pieces: int
    announced: int


def slot(text: str, slots: int) -> int:
    """Which of some partitions a text goes to."""
    return crc32(text.encode()) % slots


def snapshot_time(schema: int, version: int, drops: int | None = None) -> int:
    """The timestamp of a snapshot that is put after all were dropped so often; without `drops`, of what drops it for good."""
    if schema < 2:
        return version
    return min(version * DROPS_MAX + (DROPS_MAX - 1 if drops is None else min(drops, DROPS_MAX - 2)), (1 << 63) - 1)


def decode_bucket_header(row: Sequence[Any]) -> BucketHeader:
    """From the columns as the queries name them. Raises `Corrupt`, as all of these do."""
    blob, tags, created, base, fence, newest, dropped, *cells = row
    head = None if blob is None else decode_head(blob)
    return BucketHeader(head, dict(tags or {}), created or 0, base or 0, fence, newest or 0, dropped or 0, *cells)


def _decoded(decode: Callable[[bytes], T], blob: bytes | None, what: str) -> T:
    try:
        return decode(b"" if blob is None else blob)
    except (msgspec.DecodeError, ValueError) as error:
        raise Corrupt(f"{what} in Cassandra is not what was written: {error}.") from error


def encode_head(head: Head | None) -> bytes | None:
    """The same bytes for the same head: they are compared."""
    return None if head is None else packing.encode_head(head)


def decode_head(blob: bytes) -> Head:
    """The head that these bytes are."""
    return _decoded(packing.decode_head, blob, "A head")


def encode_record(record: Record, pieces: int) -> bytes:
    """A record without its body."""
    head = record.head
    return _ENCODER.encode(
        (
            head.hash, head.at, head.epoch, head.status, head.data,
            record.id, record.kind, record.key, record.request, record.meta, pieces,
        )
    )  # fmt: skip


def decode_row(row: Sequence[Any]) -> Row:
    """From the columns `version`, `record`, `body` and `told`."""
    version, blob, body, announced = row

    def decode(blob: bytes) -> Row:
        hash, at, epoch, status, last, id, kind, key, request, meta, pieces = _RECORD.decode(blob)
        head = make_head(version, hash, at, epoch, status, last)
        return Row(make_record(head, id, kind, key, request, meta, body or b""), pieces, announced or 0)

    return _decoded(decode, blob, f"Record {version}")


encode_key = packing.encode_key


def decode_key(blob: bytes) -> tuple[int, bytes]:
    """Version and digest."""
    return _decoded(packing.decode_key, blob, "An idempotency key")


def encode_state(hash: bytes, pieces: int, body: bytes) -> bytes:
    """A snapshot whose body is here, or lies in that many pieces."""
    return _ENCODER.encode((hash, pieces, body))


def decode_state(blob: bytes) -> tuple[bytes, int, bytes]:
    """Hash, pieces and body."""
    hash, pieces, body = _decoded(_STATE.decode, blob, "A snapshot")
    return hash, pieces, body
