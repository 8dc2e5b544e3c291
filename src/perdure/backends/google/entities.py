"""What both services are to the driver: entities with named fields, changed together on the condition of what each one's version is.

Firestore calls them documents and conditions a write on `update_time`; Datastore calls them entities and has `base_version`. A name is
a path of kinds and names, `("session", NAME, "record", NUMBER)`: what has the longer path is below what has the shorter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

Path = tuple[str, ...]
Value = bytes | int | str | Sequence[str]
"""What a field holds that this version knows."""
Unread = Any
"""A service's own form of a field that this version does not know. It is written back as it is."""
Fields = Mapping[str, Value | Unread]
Version = Any
"""A service's own token of what an entity was at one moment; another token, another entity."""

INDEXED = frozenset({"tags", "status", "news", "due"})
"""Fields that queries ask for; all others are left out of indexes where the service lets a writer say so."""
KNOWN = INDEXED | {
    "layout", "store", "min_writer", "lock", "count", "head", "first", "made", "labels", "snapshots", "logged", "purged", "control", "size",
    "record", "bytes", "version", "request", "hash", "body", "name", "pieces", "ranges", "n",
}  # fmt: skip
"""All fields of this version, see `layout`. Others are those of a later one."""


class Refused(Exception):
    """A condition of a commit did not hold, or others were writing the same: nothing of it was applied. It never leaves this engine."""


class Entity(msgspec.Struct, frozen=True):
    """An entity as it was read."""

    path: Path
    fields: Fields
    version: Version


class Absent:
    """The condition that there is no such entity."""


ABSENT = Absent()


class Write(msgspec.Struct, frozen=True):
    """One entity's part of a commit: these fields instead of all it had, or `None`: it goes. `on` is the version that it must have,
    `ABSENT`, or `None`: whatever it is."""

    path: Path
    fields: Fields | None
    on: Version | Absent | None = None


class Entities(Protocol):
    """One open service. Errors are mapped here, once; a call ends within its time-out and is never sent twice."""

    server: str
    """What answers, for a person to read."""
    is_production: bool
    """Whether it is Google's service, not an emulator."""

    async def get(self, paths: Sequence[Path]) -> Sequence[Entity | None]:
        """Entities in this order, as of one moment that is not before the call. Raises `Unavailable`, `Unauthorized`, `Invalid`."""
        ...

    async def query(
        self, above: Path, kind: str, low: str, high: str, limit: int, where: Sequence[tuple[str, str | int]] = ()
    ) -> Sequence[Entity]:
        """Entities of a kind directly below one, whose names are `low <= name < high`, by name; `where`: with fields that equal, or
        contain, a value. Raises as `get`."""
        ...

    async def ordered(self, kind: str, field: str, after: str, below: str, limit: int) -> Sequence[Entity]:
        """Entities of a kind at the top, whose field is a text with `after < text < below`, in the order of the field. Raises as `get`."""
        ...

    async def commit(self, writes: Sequence[Write]) -> Sequence[Version]:
        """Apply all, or nothing; the versions that the entities have now, in this order.

        Raises `Refused`, `Unavailable` (nothing was applied), `Unknown` (it may have been, or may be later), `Unauthorized`, `TooLarge`.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...
