"""Messages of the record face: appends of finished records, reads, and notices, in MessagePack. Pure.

POST to a path below `/v1/records`, a message as the body, a message as the answer. Heads, records and snapshots are those of the model, as
maps of their fields. An answer to `append` has one entry for each attempt, in order: `Stored`, `Mismatch`, `KeyApplied` or `Refusal`.
`notices` answers with frames, without an end: four bytes of length, then a message.

What a message says of a head's status and data version, and of an index row, only a relay takes from a client. See `service.records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from perdure.errors import Error, Invalid, Unavailable
from perdure.model.ids import SessionKey
from perdure.model.record import Head, Record, Snapshot
from perdure.wire.problem import error_of, problem

ROOT = "/v1/records"
ABOUT, APPEND, HEADS, LOAD = f"{ROOT}/about", f"{ROOT}/append", f"{ROOT}/heads", f"{ROOT}/load"
READ, FIND_KEY, SCAN, FEED, NOTICES = f"{ROOT}/read", f"{ROOT}/find_key", f"{ROOT}/scan", f"{ROOT}/feed", f"{ROOT}/notices"

RECORDS_MAX = 8
"""Most records in one attempt."""
HEADS_MAX = 1_024
"""Most sessions in one request for heads."""
PAGE_MAX = 1_024
"""Most items of one page."""
WATCHED_MAX = 100_000
"""Most sessions that one client watches by name."""
FRAME_BYTES_MAX = 4 << 20
"""Largest frame of notices."""
_LENGTH_BYTES = 4

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""A version, or a time in nanoseconds since 1970: what every engine can hold."""

M = TypeVar("M")


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message. Fields that the other end does not know are ignored there, so a later version may have more of them."""


class About(Message, frozen=True):
    """What a node says of itself and of the engine that it serves."""

    wire: tuple[int, ...]
    """The wire versions that it speaks."""
    store_id: str
    schema: int
    capabilities: Mapping[str, Any]
    """The engine's, by the names of `spi.Capabilities`."""
    tenant: str | None = None
    """The only tenant whose sessions these credentials reach; `None`: there is no such bound."""
    archive: bool = False
    """Whether the node has a place for archived commits."""


class IndexCells(Message, frozen=True):
    """See `spi.Index`."""

    tags: Mapping[str, str] | None = None
    due_at: int | None = None
    control: bytes | None = None
    size_bytes: int | None = None


class Attempt(Message, frozen=True):
    """Store these records if the head is the expected one: its version and hash; `None`: there is no record."""

    session: SessionKey
    expected: tuple[Number, bytes] | None
    records: tuple[Record, ...]
    key: str | None = None
    index: IndexCells | None = None
    """For a relay. A node derives it from the commits."""
    durability: int = 0


class Append(Message, frozen=True):
    """Up to `BATCH_ATTEMPTS_MAX` attempts, each of another session."""

    attempts: tuple[Attempt, ...]


class Stored(Message, frozen=True, tag="stored", tag_field="is"):
    """The records are in the chain, safe to this level."""

    durability: int


class Mismatch(Message, frozen=True, tag="head", tag_field="is"):
    """The head is another, this one; nothing was stored."""

    head: Head | None


class KeyApplied(Message, frozen=True, tag="known", tag_field="is"):
    """The key was applied before, at this version. Also the answer to `find_key`."""

    version: int
    request: bytes
    head: Head


class Refusal(Message, frozen=True, tag="error", tag_field="is"):
    """An error that concerns one attempt: a problem document."""

    problem: Mapping[str, Any]


Answer = Stored | Mismatch | KeyApplied | Refusal


class Appended(Message, frozen=True):
    """An entry for each attempt."""

    answers: tuple[Answer, ...]


class Heads(Message, frozen=True):
    """Asks for heads."""

    sessions: tuple[SessionKey, ...]


class HeadsFound(Message, frozen=True):
    """In their order; `None` where there is no record."""

    heads: tuple[Head | None, ...]


class Load(Message, frozen=True):
    """See `spi.Backend.load`."""

    session: SessionKey
    at: Number | None = None


class Row(Message, frozen=True):
    """See `spi.Row`."""

    session: SessionKey
    head: Head
    tags: Mapping[str, str]
    created_at: int
    due_at: int | None = None
    control: bytes = b""
    size_bytes: int = 0


class Loaded(Message, frozen=True):
    """See `spi.Loaded`. `row` of `None`: there is no such session."""

    row: Row | None = None
    snapshot: Snapshot | None = None
    records: tuple[Record, ...] = ()


class Read(Message, frozen=True):
    """See `spi.Backend.read`."""

    session: SessionKey
    after: Number = 0
    before: Number | None = None
    limit: int = 256
    reverse: bool = False
    held: bool = False
    """Of what the engine itself holds alone: nothing from the archive."""


class RecordsFound(Message, frozen=True):
    """A page of records."""

    records: tuple[Record, ...]


class FindKey(Message, frozen=True):
    """See `spi.Backend.find_key`."""

    session: SessionKey
    key: str


class KeyFound(Message, frozen=True):
    """`None`: it was not applied."""

    known: KeyApplied | None = None


class Scan(Message, frozen=True):
    """See `spi.Query` and `spi.Backend.scan`."""

    tenant: str | None
    prefix: str = ""
    tags: Mapping[str, str] = {}
    status: Number | None = None
    order: str = "id"
    due_before: Number | None = None
    cursor: str | None = None
    limit: int = 100


class RowsFound(Message, frozen=True):
    """A page of index rows; `cursor` of `None`: the last one."""

    rows: tuple[Row, ...]
    cursor: str | None = None


class Feed(Message, frozen=True):
    """See `spi.Backend.feed`."""

    cursor: str | None = None
    limit: int = 256


class Change(Message, frozen=True):
    """See `spi.Change`."""

    session: SessionKey
    record: Record


class ChangesFound(Message, frozen=True):
    """A page of the feed. With `more` it may be empty and not the last: what others wrote was left out."""

    changes: tuple[Change, ...]
    cursor: str | None
    more: bool = False


class Notices(Message, frozen=True):
    """Asks for news of these sessions, and of all those of these tenants. `None`: of everything that these credentials may read."""

    sessions: tuple[SessionKey, ...] | None = None
    tenants: tuple[str, ...] = ()
    fresh: tuple[SessionKey, ...] = ()
    """Those of the sessions of which the newest version is to be said at once."""


class Moved(Message, frozen=True):
    """Which sessions have a record of which version. `lost`: some may have gone unheard. Without anything: the stream is alive."""

    moved: tuple[tuple[SessionKey, int], ...] = ()
    lost: bool = False


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (
        About, Append, Appended, Heads, HeadsFound, Load, Loaded, Read, RecordsFound, FindKey, KeyFound, Scan, RowsFound, Feed,
        ChangesFound, Notices, Moved,
    )
}  # fmt: skip


def encode(message: Message) -> bytes:
    """A message's bytes."""
    return _ENCODER.encode(message)


def decode(kind: type[M], data: bytes) -> M:
    """The message that these bytes are. Raises `Invalid`."""
    try:
        message: M = _DECODERS[kind].decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise Invalid(f"These {len(data):,} bytes are no {kind.__name__} message of wire version 1: {error}.") from error
    return message


def refusal(error: Error) -> Refusal:
    """The entry for an error that concerns one attempt."""
    return Refusal(problem(error))


def refused(entry: Refusal) -> Error:
    """The error again."""
    return error_of(entry.problem) or Unavailable("The node refused this with an error that has no name here.")


def frame(message: Message) -> bytes:
    """A message of a stream."""
    data = encode(message)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


class Frames:
    """Takes a stream apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Moved]:
        """The messages that are whole with these bytes. Raises `Invalid`."""
        buffer = self._buffer
        buffer += data
        found = []
        while len(buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(buffer[:_LENGTH_BYTES], "big")
            if end > FRAME_BYTES_MAX:
                raise Invalid(f"A frame of {end:,} bytes is no frame of notices.")
            if len(buffer) < end:
                break
            found.append(decode(Moved, bytes(buffer[_LENGTH_BYTES:end])))
            del buffer[:end]
        return found
