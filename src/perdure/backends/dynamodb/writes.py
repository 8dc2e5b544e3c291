"""What one attempt sends: an update of the session's header where that is all, else a transaction of it and what goes beside it.

Small records wait in the header, where a write of one item stores them. When they are too many or too large, the next write moves them
to an item of their own, in one transaction with it: no reader ever misses one, and none comes back after a truncation.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from perdure.backends.dynamodb.cells import CellChanges, changed, changes
from perdure.backends.dynamodb.layout import (
    SEGMENT_RECORDS,
    Item,
    Layout,
    SessionHeader,
    at,
    binaries,
    binary,
    encode_head,
    encode_tags,
    key,
    number,
)
from perdure.backends.remote import Attempt
from perdure.errors import TooLarge
from perdure.model.ids import SessionKey

TAIL_BYTES = 4096
"""Bytes of records that wait in the header: DynamoDB charges each write for the whole item, by the KB."""
INLINE_BYTES = 2048
"""Bytes of an attempt's records from which they do not wait there at all."""
SEGMENT_BYTES = 320 << 10
"""Bytes of records in one item; DynamoDB's limit is 400 KB."""
PARTS_MAX = 100
"""Most items in one transaction."""


class Request(msgspec.Struct, frozen=True):
    """A conditional write. `parts`: the header first, then in a transaction the rest; `key_part`: which of them is about the attempt's own
    key. `after`: the header as it will be. `statement`: the same as `parts` in PartiQL, where they are an update of the header alone that
    changes no cell."""

    parts: Sequence[Item]
    after: SessionHeader
    key_part: int | None
    statement: Item

    @property
    def token(self) -> str:
        """The same for the same request, so that DynamoDB does it once however often it comes."""
        return sha256(msgspec.msgpack.encode(self.parts, order="deterministic")).hexdigest()[:36]


def request(table: str, keys: Layout, attempt: Attempt, header: SessionHeader | None, blobs: Sequence[bytes]) -> Request:
    """The write of an attempt on `header`, whose head is the one expected; `blobs` are its records, encoded. Raises `TooLarge`."""
    session, head = attempt.session, attempt.records[-1].head
    tags = None if attempt.index is None else attempt.index.tags
    cells = changes(table, keys, session, attempt.index, None if header is None else header.due_at)
    waiting: Sequence[bytes] = () if header is None else header.tail
    moved: Sequence[bytes] = ()
    kept = [*waiting, *blobs]
    if len(kept) > SEGMENT_RECORDS or sum(map(len, kept)) > TAIL_BYTES:
        large = len(blobs) > SEGMENT_RECORDS or sum(map(len, blobs)) > INLINE_BYTES
        moved, kept = (kept, []) if large else (waiting, list(blobs))
    if header is None:
        first = attempt.records[0].head
        after = changed(SessionHeader(head, first.version, first.at, dict(tags or {}), kept, purged=False), attempt.index)
        parts = [_made(table, keys, session, after)]
    else:
        after = msgspec.structs.replace(header, head=head, tail=kept, tags=header.tags if tags is None else dict(tags))
        after = changed(after, attempt.index)
        parts = [_moved(table, keys, session, header, after, blobs if not moved else None, cells)]
    if header is None or tags is not None:
        parts.append({"Put": {"TableName": table, "Item": keys.listed(session) | {"g": encode_tags(after.tags)}}})
    parts += cells.beside
    last = head.version - len(kept)
    parts += [{"Put": {"TableName": table, "Item": item}} for item in _segments(keys, session, moved, last)]
    key_part = None
    for name in dict.fromkeys([record.key for record in attempt.records] + [attempt.key]):
        if name is not None:
            key_part = len(parts) if name == attempt.key else key_part
            parts.append(_key(table, keys, attempt, name))
    if len(parts) > PARTS_MAX:
        raise TooLarge(f"An append that needs {len(parts)} items; DynamoDB takes {PARTS_MAX} in one transaction.")
    plain = header is not None and len(parts) == 1 and not cells
    return Request(parts, after, key_part, _statement(table, keys, session, header, after) if header is not None and plain else {})


def _made(table: str, keys: Layout, session: SessionKey, after: SessionHeader) -> Item:
    item = keys.header(session) | {
        "h": binary(encode_head(after.head)),
        "f": number(after.floor),
        "x": binaries(after.tail),
        "c": number(after.created),
        "g": encode_tags(after.tags),
        "q": number(0),
        "d": keys.unsequenced_of(session),
    }
    item |= {} if after.due_at is None else {"u": number(after.due_at)}
    item |= {"o": binary(after.control)} if after.control else {}
    item |= {"w": number(after.size_bytes)} if after.size_bytes else {}
    return {"Put": _conditioned(table, "attribute_not_exists(pk)") | {"Item": item}}


def _moved(
    table: str,
    keys: Layout,
    session: SessionKey,
    header: SessionHeader,
    after: SessionHeader,
    added: Sequence[bytes] | None,
    cells: CellChanges,
) -> Item:
    sets = ["h = :h", "d = :d", "x = :x" if added is None else "x = list_append(x, :x)"]
    values = {
        ":e": binary(encode_head(header.head)),
        ":f": number(header.floor),
        ":h": binary(encode_head(after.head)),
        ":d": keys.unsequenced_of(session),
        ":x": binaries(after.tail if added is None else added),
    }
    if after.tags != header.tags:
        sets.append("g = :g")
        values[":g"] = encode_tags(after.tags)
    return {
        "Update": _conditioned(table, cells.conditions("h = :e AND f = :f"))
        | {"Key": keys.header(session), "UpdateExpression": cells.expression(sets), "ExpressionAttributeValues": values | cells.values}
    }


def _statement(table: str, keys: Layout, session: SessionKey, header: SessionHeader, after: SessionHeader) -> Item:
    """The newest records go whole: not every service that knows statements knows `list_append` in them."""
    place = keys.header(session)
    return {
        "Statement": f'UPDATE "{table}" SET h=? SET d=? SET x=? WHERE pk=? AND sk=? AND h=? AND f=?',  # noqa: S608 - the name was checked when the URL was parsed
        "Parameters": [
            binary(encode_head(after.head)),
            keys.unsequenced_of(session),
            binaries(after.tail),
            place["pk"],
            place["sk"],
            binary(encode_head(header.head)),
            number(header.floor),
        ],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _key(table: str, keys: Layout, attempt: Attempt, name: str) -> Item:
    place = keys.idempotency(attempt.session, name)
    for record in attempt.records:
        if record.key == name:
            item = place | {"v": number(record.head.version), "r": binary(record.request)}
            return {"Put": _conditioned(table, "attribute_not_exists(pk)") | {"Item": item}}
    return {"ConditionCheck": _conditioned(table, "attribute_not_exists(pk)") | {"Key": place}}


def _conditioned(table: str, condition: str) -> dict[str, Any]:
    return {"TableName": table, "ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


def _segments(keys: Layout, session: SessionKey, blobs: Sequence[bytes], last: int) -> list[Item]:
    """Records, the newest of which is `last`, in as few items as they fit in."""
    groups: list[list[bytes]] = []
    size = 0
    for blob in blobs:
        if not groups or len(groups[-1]) == SEGMENT_RECORDS or size + len(blob) > SEGMENT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(blob)
        size += len(blob)
    items = []
    version = last - len(blobs)
    for group in groups:
        version += len(group)
        items.append(key(keys.session(session), at("r", version)) | {"x": binaries(group)})
    return items
