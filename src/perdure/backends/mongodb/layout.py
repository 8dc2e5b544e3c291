"""Collections and documents in MongoDB. Names never hold control characters, so a tab parts them and strings sort as ids do.

    NS.session   TENANT·ID           the head, the index row and the tail: the newest records. Every append is one update of it
    NS.log       TENANT·ID·BASE      a page: the records from version BASE to BASE + 15, written before they leave the tail
    NS.key       TENANT·ID·KEY       an idempotency key whose record has left the tail: version and request
    NS.snapshot  TENANT·ID·VERSION   a snapshot
    NS.chunk     TENANT·ID·VERSION·WHAT·NUMBER, WHAT a record's id or a snapshot's hash: a piece, written before what refers to it
    NS.feed      1, 2, 3 …           which sessions went on, and how far
    NS.store     store               the layout's version, the store's id, the least version of a writer; the lock of an upgrade

Versions in names are 16 hexadecimal digits. In a session's document `first` is its lowest version, `moved` the lowest that is still
in the tail (0: nothing was moved yet), `purged` the version of a purge's stub, `news` whether the feed has yet to hear of it.
From schema 2 on `due_at`, `control` and `size_bytes` are the cells of the index row; what is not set has no field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.backends.common.refusals import head_differs
from perdure.backends.common.stored import make_cells, make_head, make_record
from perdure.backends.spi import NEVER, Head, Index, Record
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

SESSION, LOG, KEY, SNAPSHOT, CHUNK, FEED, STORE = "session", "log", "key", "snapshot", "chunk", "feed", "store"
COLLECTIONS = (SESSION, LOG, KEY, SNAPSHOT, CHUNK, FEED, STORE)
PAGE = 16
"""Records in a page; a power of two up to 16, for a page's name ends in the digit 0."""
CHUNK_BYTES = 4 << 20
"""Most bytes in one chunk."""
HEAD = {"version": 1, "hash": 1, "at": 1, "epoch": 1, "status": 1, "data": 1}
"""The projection of a head."""

Doc = dict[str, Any]
_PACKED = msgspec.msgpack.Decoder(tuple[bytes, int, int, int, int, bytes, int, bytes, int, int, bytes, bytes])
_ENCODER = msgspec.msgpack.Encoder()


def name_of(session: SessionKey) -> str:
    """What a session's documents are named by."""
    return f"{session.tenant}\t{session.id}"


def session_of(name: str) -> SessionKey:
    """Back from its name."""
    tenant, _, id = name.partition("\t")
    return SessionKey(tenant, id)


def at(name: str, version: int) -> str:
    """The name of what a session has at a version."""
    return f"{name}\t{version:016x}"


def page_at(name: str, version: int) -> str:
    """The name of the page that holds a version."""
    return at(name, base(version))


def base(version: int) -> int:
    """Where the page of a version begins."""
    return version & -PAGE


def below(name: str, version: int | None = None) -> Doc:
    """The condition for names of all that a session has below a version, or of all that it has."""
    return {"$gte": f"{name}\t", "$lt": f"{name}\n" if version is None else at(name, version)}


def key_of(name: str, key: str) -> str:
    """The name of a key."""
    return f"{name}\t{key}"


def version_in(id: str) -> int:
    """The version that a name ends in."""
    return int(id[-16:], 16)


def head_of(doc: Mapping[str, Any]) -> Head:
    """The head in a session's document."""
    try:
        # A number that needs 64 bits comes as BSON's own kind of integer, which other encoders refuse.
        version, at, epoch, status, data = (_int(part_of(doc, name)) for name in ("version", "at", "epoch", "status", "data"))
        return make_head(version, part_of(doc, "hash"), at, epoch, status, data)
    except (TypeError, ValueError) as error:
        raise Corrupt(f"The document of session {doc.get('_id')!r} was changed by hand: {error}.") from error


def _int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} where a number belongs")
    return int(value)


def part_of(doc: Mapping[str, Any], name: str) -> Any:
    """A field of a session's document. Raises `Corrupt` where it has none."""
    found = doc.get(name)
    if found is None:
        raise Corrupt(f"The document of session {doc.get('_id')!r} was changed by hand: it has no {name!r}.")
    return found


def is_proven(doc: Mapping[str, Any], head: Head) -> bool:
    """Whether the newest record, if `newest` is a tail's last entry, repeats the head; false where the record has left the tail. Raises
    `Corrupt` where it says otherwise."""
    for entry in doc.get("newest", ()):
        if entry.get("v") == head.version:
            if decode_entry(doc["_id"], entry).record.head != head:
                raise head_differs(session_of(doc["_id"]))
            return True
    return False


def created_of(doc: Mapping[str, Any]) -> int:
    """When a session was made, in nanoseconds."""
    try:
        return _int(part_of(doc, "created"))
    except TypeError as error:
        raise Corrupt(f"The document of session {doc.get('_id')!r} was changed by hand: {error}.") from error


def put_head(head: Head) -> Doc:
    """A head's fields."""
    return {
        "version": head.version, "hash": head.hash, "at": head.at, "epoch": head.epoch, "status": head.status, "data": head.data
    }  # fmt: skip


CELLS = {"due_at": 1, "control": 1, "size_bytes": 1}
"""The projection of the cells."""
_NOTHING: dict[str, Any] = {"due_at": NEVER, "control": b"", "size_bytes": 0}


def cells_of(doc: Mapping[str, Any]) -> tuple[int | None, bytes, int]:
    """When a session is due, its control cell and its size."""
    due_at = doc.get("due_at")
    try:
        due_at = None if due_at is None else _int(due_at)
        return make_cells(due_at, doc.get("control", b""), _int(doc.get("size_bytes", 0)))
    except (TypeError, ValueError) as error:
        raise Corrupt(f"The document of session {doc.get('_id')!r} was changed by hand: {error}.") from error


def change_cells(index: Index, put: Doc, remove: Doc) -> None:
    """Add to the fields that an update sets and removes what this says of the cells."""
    for name, nothing in _NOTHING.items():
        value = getattr(index, name)
        if value is not None:
            (remove if value == nothing else put)[name] = "" if value == nothing else value


class Entry(NamedTuple):
    """A record in a tail or a page: all but what lies in chunks. `chunks` of 0: everything is here."""

    record: Record
    chunks: int
    meta_bytes: int
    stored_bytes: int

    @property
    def chunk_names(self) -> Iterator[str]:
        """Where the rest lies, below the session's name."""
        return (chunk_name(self.record.head.version, self.record.id.hex(), number) for number in range(self.chunks))


def chunk_name(version: int, what: str, number: int) -> str:
    """The name of a chunk below its session's."""
    return f"\t{version:016x}\t{what}\t{number:04x}"


def encode_entry(record: Record, chunks: int = 0, *, stub: bool = False) -> Doc:
    """A record for a tail; with `chunks` its meta and body lie there, and only their sizes are here. A purge's `stub` keeps its key, under
    which nothing is known any more."""
    head, meta, body = record.head, record.meta, record.body
    packed = _ENCODER.encode(
        (
            head.hash, head.at, head.epoch, head.status, head.data, record.id, record.kind, record.request,
            len(meta), chunks, b"" if chunks else meta, b"" if chunks else body,
        )
    )  # fmt: skip
    entry = {"v": head.version, "r": packed}
    if record.key is not None:
        entry["was" if stub else "k"] = record.key
    if chunks:
        entry["size"] = len(meta) + len(body)
    return entry


def decode_entry(name: str, entry: Mapping[str, Any]) -> Entry:
    """Back from a tail or a page."""
    try:
        hash, at, epoch, status, data, id, kind, request, meta_bytes, chunks, meta, body = _PACKED.decode(entry["r"])
        head = make_head(_int(entry["v"]), hash, at, epoch, status, data)
        record = make_record(head, id, kind, entry.get("k", entry.get("was")), request, meta, body)
        return Entry(record, chunks, meta_bytes, record.stored_bytes + entry.get("size", 0))
    except (KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise Corrupt(f"A record of session {name!r} in MongoDB was changed by hand: {error}.") from error


def encode_tags(tags: Mapping[str, str]) -> list[Doc]:
    """Tags as the index takes them."""
    return [{"name": name, "value": value} for name, value in sorted(tags.items())]


def decode_tags(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Back from a session's document."""
    try:
        found = {tag["name"]: tag["value"] for tag in tags}
    except (KeyError, TypeError) as error:
        raise Corrupt(f"The tags of a session in MongoDB were changed by hand: {error!r}.") from error
    if any(type(part) is not str for tag in found.items() for part in tag):
        raise Corrupt(f"The tags of a session in MongoDB were changed by hand: {found!r:.200}.")
    return found
