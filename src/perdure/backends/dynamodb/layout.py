"""The items of one namespace in a table of string keys `pk` and `sk`, and what is in them.

    pk                       sk           attributes
    NS/m                     m            v, store, min_writer: the schema's version, the store's id, the least version of a writer
    NS/s/TENANT␟ID           t            the header: h head, f first version, x newest records, c made at, g tags, z purged,
                                          q the version up to which the feed's log has it, d where it is in the index below;
                                          from schema 2 on, where they are set: u due at, o control, w size
    NS/u/SHARD               DUE/TENANT␟ID   a session that is due at DUE; from schema 2 on
    NS/s/TENANT␟ID           rVERSION     x: up to 16 records, dense; VERSION is the last one's
    NS/s/TENANT␟ID           sVERSION     h hash, b body or p how many parts and n their name: a snapshot
    NS/s/TENANT␟ID           kKEY         v version, r request: an idempotency key
    NS/i/TENANT␟SHARD        ID           g: the listing, by id
    NS/p/TENANT␟ID           rVERSION-ID-NUMBER, sVERSION-…   b: a piece of a commit or a snapshot that is too large for one item
    NS/f                     NUMBER       e: the feed's log, which its readers write; swept when its records are gone
    NS/f                     n, w         n: the number of the log's next entry; that from which the next sweep looks
    NS/d/SHARD               NS/s/…       the index `perdure-feed` (keys d and pk): sessions that the log does not hold up to their head

Strings sort by their bytes in UTF-8, as ids do. Names hold no control characters, so ␟ (U+001F) ends each. Versions, times and numbers
are 16 hexadecimal digits. A query of `r` to `t`, backwards, meets the header, the snapshots and then the newest records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import msgspec

from perdure.backends.common import packing
from perdure.backends.common.packing import Reading
from perdure.backends.common.pieces import PiecedRecord
from perdure.backends.common.stored import make_cells
from perdure.backends.remote import change_log
from perdure.backends.remote.change_log import Ranges
from perdure.backends.spi import Head, Record, Row, Snapshot
from perdure.model.ids import SessionKey

Item = dict[str, Any]

FEED_INDEX = "perdure-feed"
SHARDS = 8
"""Partitions that a tenant's listing, and the feed's index, are spread over. Part of the layout: never change it."""
SEGMENT_RECORDS = 16
"""Most records in one item: the item of a version may be named by one that is so much later. Part of the layout."""
TABLE: dict[str, Any] = {
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "d")],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": FEED_INDEX,
            "KeySchema": [{"AttributeName": "d", "KeyType": "HASH"}, {"AttributeName": "pk", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
    "BillingMode": "PAY_PER_REQUEST",
}
"""How a table is made."""

ROW = "h,c,g,u,o,w"
"""The attributes of a header item that its index row is made of."""
_ENCODER = msgspec.msgpack.Encoder()
_TAGS = msgspec.msgpack.Decoder(dict[str, str])


class SessionHeader(msgspec.Struct, frozen=True):
    """A session's header item. `tail`: its newest records, encoded, oldest first; older ones are in items of their own, from `floor` on."""

    head: Head
    floor: int
    created: int
    tags: Mapping[str, str]
    tail: Sequence[bytes]
    purged: bool
    due_at: int | None = None
    control: bytes = b""
    size_bytes: int = 0

    def row(self, session: SessionKey) -> Row:
        """The session's index row."""
        return Row(session, self.head, self.tags, self.created, self.due_at, self.control, self.size_bytes)

    @property
    def tail_bytes(self) -> int:
        return sum(map(len, self.tail))


class Layout:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._ns = namespace

    @property
    def meta(self) -> Item:
        return key(f"{self._ns}/m", "m")

    @property
    def log(self) -> str:
        """The partition of the feed's log."""
        return f"{self._ns}/f"

    @property
    def sessions(self) -> str:
        """What the partitions of all sessions begin with."""
        return f"{self._ns}/s/"

    def session(self, session: SessionKey) -> str:
        """The partition of a session."""
        return f"{self._ns}/s/{session.tenant}\x1f{session.id}"

    def session_of(self, partition: str) -> SessionKey:
        """The session of a partition."""
        tenant, _, id = partition.removeprefix(self.sessions).partition("\x1f")
        return SessionKey(tenant, id)

    def header(self, session: SessionKey) -> Item:
        return key(self.session(session), "t")

    def record(self, session: SessionKey, last: int) -> Item:
        return key(self.session(session), at("r", last))

    def snapshot(self, session: SessionKey, version: int) -> Item:
        return key(self.session(session), at("s", version))

    def idempotency(self, session: SessionKey, name: str) -> Item:
        return key(self.session(session), f"k{name}")

    def parts(self, session: SessionKey) -> str:
        """The partition of the pieces of a session's commits and snapshots."""
        return f"{self._ns}/p/{session.tenant}\x1f{session.id}"

    def listing(self, tenant: str, shard: int) -> str:
        return f"{self._ns}/i/{tenant}\x1f{shard}"

    def listed(self, session: SessionKey) -> Item:
        """The key of a session in the listing."""
        return key(self.listing(session.tenant, crc32(session.id.encode()) % SHARDS), session.id)

    def due_in(self, shard: int) -> str:
        """A partition of what is due."""
        return f"{self._ns}/u/{shard}"

    def due(self, session: SessionKey, due_at: int) -> Item:
        """The key, and all there is, of the item that says when a session is due."""
        return key(self.due_in(crc32(f"{session.tenant}\x1f{session.id}".encode()) % SHARDS), due_name(due_at, session))

    def unsequenced(self, shard: int) -> str:
        return f"{self._ns}/d/{shard}"

    def unsequenced_of(self, session: SessionKey) -> Item:
        return text(self.unsequenced(crc32(f"{session.tenant}\x1f{session.id}".encode()) % SHARDS))


def due_start(due_at: int) -> str:
    """What the names of all items begin with that are due at a time."""
    return f"{max(due_at, 0):016x}/"


def due_name(due_at: int, session: SessionKey) -> str:
    """The sort key of an item that is due."""
    return f"{due_start(due_at)}{session.tenant}\x1f{session.id}"


def due_of(name: str) -> tuple[int, SessionKey]:
    """Back from `due_name`."""
    due_at, _, session = name.partition("/")
    tenant, _, id = session.partition("\x1f")
    return int(due_at, 16), SessionKey(tenant, id)


def at(kind: str, version: int) -> str:
    """The sort key of a version."""
    return f"{kind}{version:016x}"


def pieces(record: Record) -> str:
    """What the sort keys of a commit's pieces begin with."""
    return f"{at('r', record.head.version)}-{record.id.hex()}"


def key(pk: str, sk: str) -> Item:
    """The key of an item. These and the next: values as the API spells them."""
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def text(value: str) -> Item:
    """A string."""
    return {"S": value}


def binary(value: bytes) -> Item:
    """Bytes; the client puts them in base64."""
    return {"B": value}


def number(value: int) -> Item:
    """A number."""
    return {"N": str(value)}


def binaries(values: Sequence[bytes]) -> Item:
    """A list of bytes."""
    return {"L": [{"B": value} for value in values]}


def _where(item: Item) -> str:
    return f"{item['pk']['S']!r}, {item['sk']['S']!r}" if "pk" in item and "sk" in item else "the index"


def _reading(item: Item) -> Reading:
    return Reading(lambda: f"The item of DynamoDB at {_where(item)}")


encode_head, encode_record = packing.encode_head, packing.encode_record


def decode_head(item: Item) -> Head:
    """Raises `Corrupt`, as all of these do."""
    with _reading(item):
        return packing.decode_head(item["h"]["B"])


def encode_tags(tags: Mapping[str, str]) -> Item:
    """A session's tags."""
    return binary(_ENCODER.encode(dict(sorted(tags.items()))))


def decode_tags(item: Item) -> dict[str, str]:
    """The tags of a header or of the listing."""
    with _reading(item):
        return _TAGS.decode(item["g"]["B"])


def created(item: Item) -> int:
    """When a session was made, in nanoseconds."""
    with _reading(item):
        return int(item["c"]["N"])


def decode_row(session: SessionKey, item: Item) -> Row:
    """The index row in a session's header item, of which the attributes `ROW` were read."""
    with _reading(item):
        return Row(session, decode_head(item), decode_tags(item), created(item), *_cells(item))


def _cells(item: Item) -> tuple[int | None, bytes, int]:
    return make_cells(
        int(item["u"]["N"]) if "u" in item else None,
        item["o"]["B"] if "o" in item else b"",
        int(item["w"]["N"]) if "w" in item else 0,
    )


def decode_header(item: Item) -> SessionHeader:
    """A session's header item."""
    with _reading(item):
        return SessionHeader(
            decode_head(item),
            int(item["f"]["N"]),
            created(item),
            decode_tags(item),
            [one["B"] for one in item["x"]["L"]],
            "z" in item,
            *_cells(item),
        )


def sequenced(item: Item) -> int:
    """The version up to which the feed's log has a session."""
    with _reading(item):
        return int(item["q"]["N"])


def decode_record(blob: bytes, item: Item) -> PiecedRecord:
    """`item`: where it was found, for the message."""
    with _reading(item):
        return packing.decode_record(blob)


def decode_segment(item: Item) -> list[PiecedRecord]:
    """The records of an item, oldest first."""
    with _reading(item):
        return [decode_record(one["B"], item) for one in item["x"]["L"]]


def version_of(item: Item) -> int:
    """The version in the sort key of a record item or a snapshot."""
    with _reading(item):
        return int(item["sk"]["S"][1:], 16)


def decode_snapshot(item: Item) -> tuple[Snapshot, str, int]:
    """A snapshot; its parts' name and how many they are (0: its body is here)."""
    with _reading(item):
        parts = int(item["p"]["N"])
        return Snapshot(version_of(item), item["h"]["B"], item["b"]["B"]), item["n"]["S"] if parts else "", parts


def decode_idempotency(item: Item) -> tuple[int, bytes]:
    """Version and request of an idempotency key."""
    with _reading(item):
        return int(item["v"]["N"]), item["r"]["B"]


def encode_ranges(ranges: Ranges) -> Item:
    """An entry of the feed's log: sessions with versions after and up to."""
    return binary(change_log.encode_ranges(ranges))


def decode_ranges(item: Item) -> tuple[int, Ranges]:
    """An entry of the feed's log, with its number."""
    with _reading(item):
        return int(item["sk"]["S"], 16), change_log.decode_ranges(item["e"]["B"])


def decode_count(item: Item | None) -> int:
    """The number in `LOGGED` or `SWEPT`; 0 where there is none."""
    if item is None:
        return 0
    with _reading(item):
        return int(item["n"]["N"])
