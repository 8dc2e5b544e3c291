"""What a session is today: its state, its index row, its policy, its lease."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import msgspec

from perdure.backends.spi import Head, Row
from perdure.model import lifecycle
from perdure.model.commit import Status
from perdure.model.epoch import grant_of, is_challenged, is_exclusive
from perdure.model.lease import LeaseSection
from perdure.model.timestamps import moment, rfc3339, shown, to_datetime
from perdure.model.token import Token, write_token
from perdure.model.values import ROOM, thaw


class View:
    """A session as of one version: `version`, `hash`, `time` and `state` are of the version asked for; `status`, `tags`, `created_at` and
    `updated_at` are the session's today. `state` is yours: a plain JSON value, made at first access, which nothing else sees.
    """

    def __init__(
        self,
        session: str,
        version: int,
        hash: bytes,
        state: Any,
        newest: Head,
        tags: Mapping[str, str],
        created_at: int,
        *,
        at: int,
        owned: bool = False,
        place: tuple[str, str] = ("", ""),
    ) -> None:
        """`newest` is the session's head today; `created_at` and `at` are in nanoseconds; `place` is the store's id and the tenant."""
        self.session = session
        self.version = version
        self.hash = hash
        self.at = at
        self.tags: Mapping[str, str] = dict(tags)
        self._state = state
        self._newest = newest
        self._created_at = created_at
        self._owned = owned
        self._place = place

    @property
    def status(self) -> Status:
        """The session's status today."""
        return Status(self._newest.status)

    @property
    def created_at(self) -> datetime:
        """When the session's first commit was made: an aware datetime (UTC)."""
        return to_datetime(self._created_at)

    @property
    def updated_at(self) -> datetime:
        """When the session's newest commit was made: an aware datetime (UTC)."""
        return to_datetime(self._newest.at)

    @property
    def token(self) -> str:
        """This version as an opaque string: `read(…, at_least=token)` in any process answers with no older state than this one. It holds
        the session's name, and no secret."""
        return write_token(Token(*self._place, self.session, self.version, self.hash))

    @cached_property
    def state(self) -> Any:
        """The JSON document that folding all operations up to `version` gives; `{}` before the first."""
        if self._owned:
            return self._state
        with ROOM:
            return thaw(self._state)

    @property
    def frozen_state(self) -> Any:
        """The same document as the store holds it, without the copy that `state` makes. Only read it: other readers share it."""
        return self._state

    @property
    def shared(self) -> Any:
        """The old name of `frozen_state`, until version 1.0."""
        warnings.warn("View.shared is deprecated and goes with version 1.0: use View.frozen_state.", DeprecationWarning, stacklevel=2)
        return self._state

    @property
    def time(self) -> datetime:
        """When the commit of this version was made: `at` as an aware datetime (UTC), to its microseconds."""
        return to_datetime(self.at)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: the hash in hexadecimal, times as RFC 3339, the status by its name, and the state, which is yours."""
        return {
            "session": self.session,
            "version": self.version,
            "hash": self.hash.hex(),
            "at": rfc3339(self.at),
            "status": self.status.name,
            "tags": dict(self.tags),
            "created_at": moment(self.created_at),
            "updated_at": moment(self.updated_at),
            "state": thaw(self._state),
        }

    def __repr__(self) -> str:
        return f"<View [{self.status.name}] {self.session} version={self.version} {shown(self.time)}{_tags(self.tags)}>"


def _tags(tags: Mapping[str, str]) -> str:
    return "".join(f" {name}={value}" for name, value in tags.items())


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

    @property
    def time(self) -> datetime:
        """When its newest commit was made: `updated_at`."""
        return self.updated_at

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: times as RFC 3339, the status by its name."""
        return {
            "session": self.session,
            "version": self.version,
            "status": self.status.name,
            "tags": dict(self.tags),
            "created_at": moment(self.created_at),
            "updated_at": moment(self.updated_at),
        }

    def __repr__(self) -> str:
        return f"<Info [{self.status.name}] {self.session} version={self.version} {shown(self.updated_at)}{_tags(self.tags)}>"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a session by itself: see `Store.configure`. `None`: it is not to happen."""

    expire_after: timedelta | None = None
    """How long it may be idle before it is deleted."""
    grace: timedelta | None = None
    """How long it can be read for audit after that, before it is purged; `None`: 7 days."""
    archive_after: timedelta | None = None
    """How long it may be idle before it goes to the archive."""
    wake_at: datetime | None = None
    """When it is woken next."""
    wake_every: timedelta | None = None
    """How long after that again."""
    wake: Literal["sweep", "claim"] = "sweep"
    """Who wakes it."""
    keep: timedelta | int | None = None
    """How old, or how many, the commits are that it keeps; `None`: all."""
    drop: bool = False
    """Whether older ones are removed; else they go to the archive."""
    prefix: str | None = None
    """The prefix whose policy this is; `None`: it was set for this session, or for the prefix that was asked for."""

    @classmethod
    def of(cls, policy: lifecycle.Policy | None) -> Policy:
        """From what is stored; without it, a policy by which nothing happens."""
        if policy is None:
            return cls()
        return cls(
            expire_after=_duration(policy.expire_after),
            grace=_duration(policy.grace),
            archive_after=_duration(policy.archive_after),
            wake_at=None if policy.wake_at is None else to_datetime(policy.wake_at),
            wake_every=_duration(policy.wake_every),
            wake="claim" if policy.wake == "claim" else "sweep",
            keep=policy.keep_commits if policy.keep_for is None else _duration(policy.keep_for),
            drop=policy.drop,
            prefix=policy.prefix,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: durations in seconds, `keep` as {"seconds": …} or {"commits": …}, the time as RFC 3339."""
        keep: Any = {"commits": self.keep} if isinstance(self.keep, int) else None
        if isinstance(self.keep, timedelta):
            keep = {"seconds": self.keep.total_seconds()}
        return {
            "expire_after": _seconds(self.expire_after),
            "grace": _seconds(self.grace),
            "archive_after": _seconds(self.archive_after),
            "wake_at": None if self.wake_at is None else moment(self.wake_at),
            "wake_every": _seconds(self.wake_every),
            "wake": self.wake,
            "keep": keep,
            "drop": self.drop,
            "prefix": self.prefix,
        }


def _duration(nanoseconds: int | None) -> timedelta | None:
    return None if nanoseconds is None else timedelta(microseconds=nanoseconds // 1000)


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


class LeaseInfo(msgspec.Struct, frozen=True):
    """Who holds a session, as its index row says it."""

    session: str
    owner: str | None
    """In the words of the one that took it; `None`: the row does not say it, as may happen on an engine without transactions."""
    token: int
    """The fencing token."""
    since: datetime | None
    """When it was taken, by the holder's clock: an aware datetime (UTC)."""
    ttl: float | None
    """Seconds for which a challenge has to stand unanswered."""
    exclusive: bool
    """Whether only the holder may write."""
    challenged: bool
    """Whether somebody waits for it, and the holder has not answered yet."""

    @classmethod
    def of(cls, session: str, epoch: int, holder: LeaseSection | None) -> LeaseInfo:
        """From a head's epoch and the section of its control cell."""
        facts = (None, None, None) if holder is None else (holder.owner, to_datetime(holder.since), holder.ttl)
        return cls(session, facts[0], grant_of(epoch), facts[1], facts[2], is_exclusive(epoch), is_challenged(epoch))

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: the time as RFC 3339."""
        return {**msgspec.structs.asdict(self), "since": None if self.since is None else moment(self.since)}

    def __repr__(self) -> str:
        since = "" if self.since is None else f" since {shown(self.since)}"
        return f"<LeaseInfo [{'challenged' if self.challenged else 'held'}] {self.session} token={self.token} owner={self.owner}{since}>"
