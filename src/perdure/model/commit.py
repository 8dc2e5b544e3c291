"""A commit and its hash: the link of the chain that everything else derives from."""

from __future__ import annotations

import hashlib
import struct
from datetime import datetime
from enum import IntEnum
from typing import Any

import msgspec

from perdure.model.events import Event
from perdure.model.ids import uuid_text
from perdure.model.timestamps import rfc3339, shown, to_datetime
from perdure.model.values import thaw

GENESIS = bytes(32)
"""The `prev` of a chain's first commit."""
_TAG = b"perdure/commit/1\n"
_DYNAMIC = struct.Struct(">QqQ")
_STATIC = msgspec.msgpack.Encoder()


class Kind(IntEnum):
    """What a commit does: `data` carries the caller's events, the others are control commits. Numbers are stored: never reuse one.

    `moved` is reserved: nothing in this version writes it."""

    data = 0
    configure = 1
    pin = 2
    lease = 3
    anchor = 4
    tombstone = 5
    moved = 6


class Status(IntEnum):
    """Where a session stands in its life. Numbers are stored: never reuse one.

    `idle` and `moved` are reserved: nothing in this version sets them."""

    active = 0
    idle = 1
    archived = 2
    deleted = 3
    moved = 4


class Commit(msgspec.Struct, frozen=True):
    """One link of a session's chain, decoded. `at` is nanoseconds since 1970, strictly rising along a chain; order is by `version`."""

    version: int
    id: bytes
    at: int
    kind: Kind
    actor: str | None
    key: str | None
    trace: str | None
    events: tuple[Event, ...]
    epoch: int
    prev: bytes
    hash: bytes

    @property
    def time(self) -> datetime:
        """`at` as an aware datetime (UTC), to its microseconds."""
        return to_datetime(self.at)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: the id as a UUID, hashes in hexadecimal, `at` as RFC 3339, the kind by its name, operations with names."""
        return {
            "version": self.version,
            "at": rfc3339(self.at),
            "kind": self.kind.name,
            "actor": self.actor,
            "key": self.key,
            "trace": self.trace,
            "events": [
                {
                    "type": event.type,
                    "data": thaw(event.data),
                    "ops": [
                        {"op": op.kind, "path": op.path, "value": thaw(op.value)} | ({"taken": True} if op.taken else {})
                        for op in event.ops
                    ],
                }
                for event in self.events
            ],
            "epoch": self.epoch,
            "id": uuid_text(self.id),
            "prev": self.prev.hex(),
            "hash": self.hash.hex(),
        }

    def __repr__(self) -> str:
        by = f" by {self.actor}" if self.actor is not None else ""
        types = ", ".join(event.type for event in self.events[:4]) + (f" and {len(self.events) - 4} more" if len(self.events) > 4 else "")
        return f"<Commit [{self.kind.name}] version={self.version} {shown(self.time)}{by}: {types}>"


DerivedStatus = tuple[int, int]
"""What no hash covers of a head, because it follows from the commits before: its status and the version of the newest data commit."""


_ENDS = {int(Kind.tombstone): int(Status.deleted), int(Kind.moved): int(Status.moved)}
_ANCHORS = {"archived": int(Status.archived), "restored": int(Status.active)}
"""The status after an anchor commit with an event of this type. With another one it stays."""


def derive_status(kind: int, version: int, before: DerivedStatus | None, event: str = "") -> DerivedStatus | None:
    """The status after a commit of this kind and version; `None` where it depends on the one before, and that is not known.

    `event` is the type of an anchor commit's event.
    """
    if kind == Kind.data:
        return int(Status.active), version
    if before is None:
        return None
    if kind == Kind.anchor:
        return _ANCHORS.get(event, before[0]), before[1]
    return _ENDS.get(kind, before[0]), before[1]


def static_header(
    tenant: str, session: str, id: bytes, kind: int, actor: str | None, key: str | None, request: bytes, trace: str | None, codec: int
) -> bytes:
    """The part of the header that a lost race does not change: a MessagePack array, every item in its shortest form.

    `request` is the digest of what a keyed call asked for (empty without a key), so that a retry with another payload is recognised.
    """
    return _STATIC.encode((tenant, session, id, kind, actor, key, request, trace, codec))


def commit_hash(prev: bytes, version: int, at: int, epoch: int, static: bytes, body_digest: bytes) -> bytes:
    """SHA-256(tag, prev, header, SHA-256(body)): every part has a fixed length or carries it, so no two inputs read the same."""
    return hashlib.sha256(_TAG + prev + _DYNAMIC.pack(version, at, epoch) + static + body_digest).digest()
