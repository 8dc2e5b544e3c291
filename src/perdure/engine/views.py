"""What the public calls answer with: frozen, typed, the caller's to keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec

from perdure.backends.spi import Durability, Row
from perdure.model.commit import Commit, Status
from perdure.model.values import thaw

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(at: int) -> datetime:
    """An aware datetime (UTC) from nanoseconds since 1970, rounded down to its microseconds."""
    return _EPOCH + timedelta(microseconds=at // 1000)


def to_nanoseconds(moment: datetime) -> int:
    """The last nanosecond of the microsecond that an aware datetime names."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + 999


class Receipt(msgspec.Struct, frozen=True):
    """The proof of a commit: where it stands, and what it survives.

    `id` is the commit's (16 bytes), `at` its time in nanoseconds since 1970. `duplicate` is true when the idempotency key had
    been applied before: the receipt is then the first call's.
    """

    version: int
    id: bytes
    hash: bytes
    at: int
    durability: Durability
    duplicate: bool = False


class Info(msgspec.Struct, frozen=True):
    """A session's index row. Times are aware datetimes (UTC)."""

    session: str
    version: int
    status: Status
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Row) -> Info:
        """From an engine's row."""
        head = row.head
        return cls(row.session.id, head.version, Status(head.status), dict(row.tags), to_datetime(row.created_at), to_datetime(head.at))


def only(commit: Commit, types: Collection[str] | None) -> Commit | None:
    """The commit with those of its events that have one of these types (`None`: all); `None` where it has none."""
    if types is None:
        return commit
    events = tuple(event for event in commit.events if event.type in types)
    return msgspec.structs.replace(commit, events=events) if events else None


class Verified(msgspec.Struct, frozen=True):
    """What `verify` proved: how many commits hang together, up to which version and hash, and how many snapshots equal the fold."""

    session: str
    version: int
    hash: bytes
    commits: int
    snapshots: int


class View:
    """A session as of one version: `version`, `hash` and `state` are of the version asked for; `status`, `tags`, `created_at` and
    `updated_at` are the session's today. `state` is yours: a plain JSON value, made at first access, which nothing else sees.
    """

    def __init__(self, session: str, version: int, hash: bytes, state: Any, info: Info, *, owned: bool = False) -> None:
        self.session = session
        self.version = version
        self.hash = hash
        self.status = info.status
        self.tags = info.tags
        self.created_at = info.created_at
        self.updated_at = info.updated_at
        self._state = state
        self._owned = owned

    @cached_property
    def state(self) -> Any:
        """The JSON document that folding all operations up to `version` gives; `{}` before the first."""
        return self._state if self._owned else thaw(self._state)

    @property
    def shared(self) -> Any:
        """The same document as the store holds it, without the copy that `state` makes. To be read only: others look at it too."""
        return self._state

    def __repr__(self) -> str:
        return f"<View [{self.status.name}] {self.session} version={self.version}>"
