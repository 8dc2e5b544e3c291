"""The cells of a dumped store, and dumps in which one of them is another: bytes with a bit flipped, numbers and texts that are others.

Left out is what a row is found by (its name), and what is there for others: the store's own header, the feed, entries of listings.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.support.golden.places import Dump, data, text


class Flip(NamedTuple):
    """One cell of a dump with another value."""

    where: str
    dump: Dump


Cell = tuple[str, Any, Any]
"""What it is called; the container in the dump, and the place in it."""


def flips(layout: str, dump: Dump) -> Iterator[Flip]:
    """Each cell of a store with other values, one at a time."""
    if layout == "mongodb":
        dump = {name: {**about, "documents": json.loads(about["documents"])} for name, about in dump.items()}
    for number, (name, *_) in enumerate(_CELLS[layout](dump)):
        for place in range(_OTHERS):
            other = copy.deepcopy(dump)
            _, container, key = next(cell for at, cell in enumerate(_CELLS[layout](other)) if at == number)
            before = container[key]
            container[key] = _other(layout, before, place)
            where = f"{name}: {before!r:.80} becomes {container[key]!r:.80}"
            if container[key] == before:
                continue
            if layout == "mongodb":
                other = {name: {**about, "documents": json.dumps(about["documents"])} for name, about in other.items()}
            if layout == "postgresql":
                other["rows"] = {table: _lines(rows) for table, rows in other["rows"].items()}
            yield Flip(where, other)


_OTHERS = 4
"""Values that each cell gets."""


def _other(layout: str, value: Any, place: int) -> Any:
    if type(value) is int:
        return value ^ (1, 4, 1 << 20, 1 << 62)[place]
    if layout == "postgresql":
        return _other_text(value, place)
    if value.lstrip("-").isdecimal():
        return str(int(value) ^ (1, 4, 1 << 20, 1 << 62)[place])
    return text(_flipped(data(value), place))


def _other_text(value: str, place: int) -> str:
    """Of a value as COPY has it."""
    if value.startswith("\\\\x"):
        return "\\\\x" + _flipped(bytes.fromhex(value[3:]), place).hex()
    if value.lstrip("-").isdecimal():
        return str(int(value) ^ (1, 4, 1 << 10, 1 << 62)[place])
    return value if value == "\\N" else value.replace("ops", "opt") if value.startswith("{") else value + "x"


def _flipped(value: bytes, place: int) -> bytes:
    """With one bit flipped, at a place of its own in each part of the value."""
    if not value:
        return b"\0"
    at = (len(value) - 1) * place // (_OTHERS - 1)
    return bytes((*value[:at], value[at] ^ (1 << 2 * place), *value[at + 1 :]))


def _postgresql(dump: Dump) -> Iterator[Cell]:
    head = ["version", "hash", "at", "epoch", "status", "data"]
    names = {
        "session": ["n", "tenant", "id", *head, "created", "tags", "due_at", "control", "size_bytes"],
        "log": ["n", *head, "id", "kind", "key", "request", "meta", "body", "xid"],
        "key": ["n", "key", "version", "request"],
        "snapshot": ["n", "version", "hash", "body"],
    }
    found_by = {"session": {"n", "tenant", "id"}, "log": {"n", "version", "xid"}, "key": {"n", "key"}, "snapshot": {"n", "version"}}
    for table, columns in names.items():
        if isinstance(dump["rows"][table], str):
            dump["rows"][table] = [line.split("\t") for line in dump["rows"][table].splitlines()]
        for number, row in enumerate(dump["rows"][table]):
            for place, column in enumerate(columns):
                if column not in found_by[table]:
                    yield f"{table}[{number}].{column}", row, place


def _lines(rows: Any) -> str:
    return rows if isinstance(rows, str) else "".join("\t".join(row) + "\n" for row in rows)


def _redis(dump: Dump) -> Iterator[Cell]:
    for name64, kind, held in dump["keys"]:
        name = data(name64).decode(errors="replace")
        if kind == "hash":
            for pair in held:
                yield f"{name} {data(pair[0])!r}", pair, 1
        elif kind == "list":
            for place in range(len(held)):
                yield f"{name}[{place}]", held, place


def _etcd(dump: Dump) -> Iterator[Cell]:
    for pair in dump["pairs"]:
        key = data(pair[1])
        if key != b"m":
            yield repr(key), pair, 2


_FOUND_BY = frozenset({"_id", "k", "was", "v", "name", "news", "moved", "first", "purged", "logged", "tags"})


def _mongodb(dump: Dump) -> Iterator[Cell]:
    for collection in ("session", "log", "key", "snapshot"):
        for document in dump[collection]["documents"]:
            yield from _typed(f"{collection} {document['_id']}", document, ("base64", "$numberLong", "$numberInt"))


def _dynamodb(dump: Dump) -> Iterator[Cell]:
    for item in dump["items"]:
        partition, sort = item["pk"]["S"], item["sk"]["S"]
        if "/s/" in partition:
            attributes = {name: value for name, value in item.items() if name in ("h", "x", "g", "c", "v", "r", "b")}
            yield from _typed(f"{partition} {sort}", attributes, ("B", "N"))


def _typed(name: str, value: Any, leaves: tuple[str, ...]) -> Iterator[Cell]:
    """The leaves below a value that its type's name marks."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        if key in leaves and isinstance(part, str):
            yield name, value, key
        elif key not in _FOUND_BY:
            yield from _typed(f"{name}.{key}", part, leaves)


def _objects(dump: Dump) -> Iterator[Cell]:
    for name in dump:
        if name.startswith(("log/", "snapshot/")):
            yield name, dump, name


def _firestore(dump: Dump) -> Iterator[Cell]:
    for name, fields in dump["documents"]:
        if name.startswith("session/"):
            yield from _typed(name, {key: value for key, value in fields.items() if key not in _FOUND_BY}, ("bytesValue", "integerValue"))


def _datastore(dump: Dump) -> Iterator[Cell]:
    for path, properties in dump["entities"]:
        if path[0]["kind"] == "session":
            name = "/".join(f"{part['kind']}/{part['name']}" for part in path)
            cells = {key: value for key, value in properties.items() if key not in _FOUND_BY}
            yield from _typed(name, cells, ("blobValue", "integerValue"))


def _cassandra(dump: Dump) -> Iterator[Cell]:
    """What a partition's rows share stays with the first of them: the others would write it back."""
    seen = set()
    for table in ("log", "sealed_key", "snapshot", "piece"):
        for names, shared, own in dump["rows"][table]:
            partition = (table, names["tenant"], names["id"], names.get("bucket"))
            if partition in seen:
                shared.clear()
            seen.add(partition)
            for column, cell in (*shared.items(), *own.items()):
                name = f"{table} {names} {column}"
                if type(cell[0]) is int:
                    yield name, cell, 0
                elif "bytes" in cell[0]:
                    yield name, cell[0], "bytes"


_CELLS: dict[str, Callable[[Dump], Iterator[Cell]]] = {
    "postgresql": _postgresql,
    "redis": _redis,
    "mongodb": _mongodb,
    "dynamodb": _dynamodb,
    "etcd": _etcd,
    "objects": _objects,
    "firestore": _firestore,
    "datastore": _datastore,
    "cassandra": _cassandra,
}
LAYOUTS = [*_CELLS]
"""Engines whose dumps this knows to change."""
