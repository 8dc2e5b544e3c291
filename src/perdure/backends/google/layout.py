"""The entities of a store, and what is in their fields.

    path                               fields
    store META                         layout, store: the schema and the store's id; min_writer: the least writer version, from schema 2 on;
                                       lock, count: of an upgrade while it works
    session NAME                       the header: head, first version, made, labels, purged, snapshots; logged: the version up to which the
                                       feed's log has it; control and size, where they are set; for queries: tags, status, news while the
                                       log lacks some of it, and due: time, tenant and id, of one that is due
    session NAME, record NUMBER        record: a commit; meta and body in it, or in that many pieces
    session NAME, piece NUMBER-ID-N    bytes: a part of a commit or a snapshot that is too large for one entity
    session NAME, key KEY              version, request: an idempotency key
    session NAME, snapshot NUMBER      hash; body, or pieces and their name
    log NUMBER                         ranges: an entry of the feed's log, which its readers write; swept when its records are gone
    store LOGGED, SWEPT                n: the number of the log's next entry; that from which the next sweep looks

Numbers are 16 hexadecimal digits, so that names sort as they do. NAME is tenant and id, and KEY a key, after a letter: `/`, which
Firestore takes for a path, is `.1` and `.` is `.0`, so that they sort as the ids do; `.-` stands between tenant and id. Fields that a
later version adds to a header or to META are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from perdure.backends.common import packing
from perdure.backends.common.packing import Reading
from perdure.backends.common.pieces import PiecedRecord
from perdure.backends.common.store_header import StoreHeader
from perdure.backends.common.stored import make_cells
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.google.entities import KNOWN, Entity, Fields, Path, Unread, Value, Version
from perdure.backends.remote import change_log
from perdure.backends.remote.change_log import Ranges
from perdure.backends.spi import NEVER, Head, Index, Query, Record, Row
from perdure.model.ids import SessionKey

META: Path = ("store", "meta")
LOGGED: Path = ("store", "logged")
SWEPT: Path = ("store", "swept")
END = "\U0010ffff"
"""Above every name that begins like the text before it."""
DUE_END = "g"
"""Above the field `due` of every session."""
_TIME_END = 1 << 63

_ENCODER = msgspec.msgpack.Encoder()
_LABELS = msgspec.msgpack.Decoder(dict[str, str])
_VERSIONS = msgspec.msgpack.Decoder(list[int])


class SessionHeader(msgspec.Struct, frozen=True):
    """A session's header: records from version `first` to the head are there; the log has it up to `logged`."""

    head: Head
    first: int
    made: int
    tags: Mapping[str, str]
    purged: bool = False
    snapshots: Sequence[int] = ()
    logged: int = 0
    due_at: int | None = None
    control: bytes = b""
    size_bytes: int = 0
    others: Fields = {}
    """Fields that this version does not know."""
    version: Version = None
    """That of the entity it was read from, or became."""

    def row(self, session: SessionKey) -> Row:
        """The index row of this session."""
        return Row(session, self.head, self.tags, self.made, self.due_at, self.control, self.size_bytes)

    def changed(self, index: Index) -> SessionHeader:
        """With these cells."""
        return msgspec.structs.replace(
            self,
            tags=self.tags if index.tags is None else dict(index.tags),
            due_at=self.due_at if index.due_at is None else None if index.due_at == NEVER else index.due_at,
            control=self.control if index.control is None else index.control,
            size_bytes=self.size_bytes if index.size_bytes is None else index.size_bytes,
        )


def _reading(entity: Entity) -> Reading:
    return Reading(lambda: f"The entity {entity.path!r}")


def _escaped(text: str) -> str:
    return text.replace(".", ".0").replace("/", ".1")


def _plain(text: str) -> str:
    return text.replace(".1", "/").replace(".0", ".")


def session(key: SessionKey) -> Path:
    """Where a session's header is, and what is below it."""
    return ("session", f"s{_escaped(key.tenant)}.-{_escaped(key.id)}")


def session_of(path: Path) -> SessionKey:
    """The session of a header's path."""
    tenant, _, id = path[1][1:].partition(".-")
    return SessionKey(_plain(tenant), _plain(id))


def named(query: Query, cursor: str | None) -> tuple[str, str]:
    """The names from and to which a listing looks."""
    low = f"s{_escaped(query.one_tenant)}.-{_escaped(query.prefix)}"
    after = "" if cursor is None else f"s{_escaped(query.one_tenant)}.-{_escaped(cursor)} "
    return max(low, after, key=str.encode), low + END


def wanted(query: Query) -> list[tuple[str, str | int]]:
    """What a service can look up of a listing: one tag (an index takes no more of them), and the status."""
    tag: list[tuple[str, str | int]] = [("tags", f"{name}\x1f{value}") for name, value in sorted(query.tags.items())[:1]]
    return tag + ([] if query.status is None else [("status", query.status)])


def number(version: int) -> str:
    """The name of a version, or of an entry of the log."""
    return f"{version:016x}"


def record(key: SessionKey, version: int) -> Path:
    """Where a record is."""
    return (*session(key), "record", number(version))


def snapshot(key: SessionKey, version: int) -> Path:
    """Where a snapshot is."""
    return (*session(key), "snapshot", number(version))


def idempotency(key: SessionKey, name: str) -> Path:
    """Where an idempotency key is."""
    return (*session(key), "key", f"k{_escaped(name)}")


def due(due_at: int, key: SessionKey) -> str:
    """The field `due`. It sorts by time, tenant and id, and no two sessions have the same."""
    return f"{due_at:016x}{key.tenant}\x1f{key.id}"


def due_from(due_at: int | None) -> str:
    """What sorts above the field `due` of what is due before this time, and below those of what is due then; `None`: above all."""
    return DUE_END if due_at is None else f"{min(max(due_at, 0), _TIME_END):016x}"


def encode_header(key: SessionKey, header: SessionHeader, *, unlogged: bool) -> Fields:
    """A header; `unlogged`: the log lacks some of it."""
    head = header.head
    fields: dict[str, Value | Unread] = {
        **header.others,
        "head": packing.encode_head(head),
        "first": header.first,
        "made": header.made,
        "labels": _ENCODER.encode(dict(header.tags)),
        "snapshots": _ENCODER.encode(list(header.snapshots)),
        "logged": header.logged,
        "status": head.status,
        "tags": [f"{name}\x1f{value}" for name, value in header.tags.items()],
    }
    if header.purged:
        fields["purged"] = 1
    if unlogged:
        fields["news"] = 1
    if header.due_at is not None:
        fields["due"] = due(header.due_at, key)
    if header.control:
        fields["control"] = header.control
    if header.size_bytes:
        fields["size"] = header.size_bytes
    return fields


def decode_header(entity: Entity) -> SessionHeader:
    """Raises `Corrupt`, as all of these do."""
    with _reading(entity):
        fields: Mapping[str, object] = entity.fields
        return SessionHeader(
            packing.decode_head(_bytes(fields["head"])),
            _int(fields["first"]),
            _int(fields["made"]),
            _LABELS.decode(_bytes(fields["labels"])),
            "purged" in fields,
            _VERSIONS.decode(_bytes(fields["snapshots"])),
            _int(fields["logged"]),
            *make_cells(
                int(str(fields["due"])[:16], 16) if "due" in fields else None,
                _bytes(fields.get("control", b"")),
                _int(fields.get("size", 0)),
            ),
            {name: value for name, value in fields.items() if name not in KNOWN},
            entity.version,
        )


def parse_meta(entity: Entity) -> StoreHeader:
    """The store's header. Raises one of `packing.UNREADABLE` for an entity of something else."""
    fields: Mapping[str, object] = entity.fields
    schema, least, store = _int(fields["layout"]), fields.get("min_writer"), fields["store"]
    if type(store) is not str:
        raise TypeError(f"{type(store).__name__} where a text belongs")
    return StoreHeader(schema, store, None if least is None else _int(least))


def decode_meta(entity: Entity) -> SchemaState:
    """What an upgrade and a writer read of the store's header."""
    with _reading(entity):
        header, fields = parse_meta(entity), entity.fields
        return SchemaState(header.schema, header.min_writer or 1, str(fields.get("lock", "")), _int(fields.get("count", 0)))


def encode_meta(fields: Fields, state: SchemaState) -> Fields:
    """The fields of the store's header, changed to this."""
    kept = {name: value for name, value in fields.items() if name not in ("lock", "count")}
    lock = {"lock": state.lock, "count": state.count} if state.lock else {}
    return {**kept, "layout": state.schema, "min_writer": state.min_writer, **lock}


def encode_record(one: Record, pieces: int) -> Fields:
    """A record with its meta and body here, or in that many pieces."""
    return {"record": packing.encode_record(one, pieces)}


def decode_record(entity: Entity) -> PiecedRecord:
    """A record's entity."""
    with _reading(entity):
        return packing.decode_record(_bytes(entity.fields["record"]))


def decode_key(entity: Entity) -> tuple[int, bytes]:
    """Version and request of an idempotency key."""
    with _reading(entity):
        return _int(entity.fields["version"]), _bytes(entity.fields["request"])


def decode_snapshot(entity: Entity) -> tuple[bytes, bytes, str, int]:
    """Hash, body, and the name and number of its pieces (0: the body is here)."""
    with _reading(entity):
        fields: Mapping[str, object] = entity.fields
        return _bytes(fields["hash"]), _bytes(fields["body"]), str(fields["name"]), _int(fields["pieces"])


def encode_ranges(ranges: Ranges) -> Fields:
    """An entry of the feed's log: sessions with versions after and up to."""
    return {"ranges": change_log.encode_ranges(ranges)}


def decode_ranges(entity: Entity) -> tuple[int, Ranges]:
    """An entry of the feed's log, with its number."""
    with _reading(entity):
        return int(entity.path[-1], 16), change_log.decode_ranges(_bytes(entity.fields["ranges"]))


def decode_count(entity: Entity | None) -> int:
    """The number in `LOGGED` or `SWEPT`; 0 where there is none."""
    if entity is None:
        return 0
    with _reading(entity):
        return _int(entity.fields["n"])


def content(entity: Entity) -> bytes:
    """The bytes of a piece."""
    with _reading(entity):
        return _bytes(entity.fields["bytes"])


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"{type(value).__name__} where bytes belong")
    return value


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{type(value).__name__} where a number belongs")
    return value
