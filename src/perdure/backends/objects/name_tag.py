"""The store's name tag, the object `perdure.json`: its schema, id, number of shards, and the least writer version from schema 2 on."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from perdure.backends.common.packing import Reading
from perdure.backends.common.store_header import StoreHeader
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.spi import SCHEMA_VERSION

META = "perdure.json"


class NameTag(NamedTuple):
    """What an object store says of itself. `min_writer` of `None`: it was made before there was one."""

    schema: int
    id: str
    shards: int
    min_writer: int | None


def new_tag(id: str, shards: int) -> bytes:
    """The name tag of a store that is made now."""
    return json.dumps({"perdure": SCHEMA_VERSION, "id": id, "shards": shards, "min_writer": SCHEMA_VERSION}).encode()


def read_tag(data: bytes, place: str) -> NameTag:
    """A name tag. Raises `Corrupt`."""
    return parse_tag(data, place)[0]


def parse_tag(data: bytes, place: str) -> tuple[NameTag, dict[str, Any], SchemaState]:
    """A name tag, all its fields, and what an upgrade reads of it. Raises `Corrupt`."""
    with Reading(lambda: f"The object {META} of {place}"):
        tag, fields = _parse(data)
        return tag, fields, SchemaState(tag.schema, tag.min_writer or 1, str(fields.get("lock", "")), int(fields.get("count", 0)))


def parse_header(data: bytes) -> StoreHeader:
    """The store's header. Raises one of `packing.UNREADABLE` for an object of something else."""
    tag, _ = _parse(data)
    return StoreHeader(tag.schema, tag.id, tag.min_writer)


def _parse(data: bytes) -> tuple[NameTag, dict[str, Any]]:
    fields = json.loads(data)
    least = fields.get("min_writer")
    return NameTag(int(fields["perdure"]), str(fields["id"]), int(fields["shards"]), None if least is None else int(least)), fields
