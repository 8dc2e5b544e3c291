"""What caches, spools, archives and sessions hold, in numbers."""

from __future__ import annotations

from typing import Any

import msgspec


class SharedCacheInfo(msgspec.Struct, frozen=True):
    """What the shared cache did for this store, in numbers of requests since it was opened."""

    hits: int
    """Values that were used in place of a load."""
    misses: int
    """There was no value."""
    stale: int
    """Values of an older version than the head."""
    forged: int
    """Values that this store did not write for that session, or that were damaged."""
    failures: int
    """Requests that failed, or took longer than `cache_timeout`."""
    skipped: int
    """Requests that were not sent: the cache had failed just before, or too many were under way."""
    stored: int
    """Values that were sent to be stored."""
    too_large: int
    """States that were not sent, because the cache would not take them."""


class CacheInfo(msgspec.Struct, frozen=True):
    """What is in the memory of a store, of all its tenants, and how often that was enough. Counts begin when the store is opened."""

    hits: int
    """States that were in memory, perhaps without their newest commits."""
    misses: int
    """States that were not in memory."""
    evictions: int
    """States that made room for others."""
    sessions: int
    """Sessions whose state is in memory."""
    bytes: int
    """About how many bytes they take, as encoded."""
    bytes_max: int
    """How many they may take: the setting `cache_bytes`."""
    shared: SharedCacheInfo | None = None
    """The shared cache's; `None` without one."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it."""
        return msgspec.structs.asdict(self) | {"shared": None if self.shared is None else msgspec.structs.asdict(self.shared)}


class Part(msgspec.Struct, frozen=True):
    """A part of a state: its JSON Pointer (`""`: all of it), its bytes as JSON, and how many members it has (`None`: no container)."""

    path: str
    bytes: int
    members: int | None


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session's bytes are: what each reader loads (the snapshot and the log after it, or the state), and what lies below.

    A record counts with what it takes in the engine, roughly and alike on every engine; a body out of line counts as a blob.
    """

    session: str
    version: int
    """The head that was measured."""
    state_bytes: int
    """The state, encoded, not compressed."""
    snapshot_bytes: int
    """The newest snapshot as it is stored; 0: there is none."""
    snapshot_version: int | None
    """The version of that snapshot."""
    log_bytes: int
    """The commits after it."""
    log_commits: int
    old_bytes: int
    """The commits up to it."""
    old_commits: int
    blob_bytes: int
    """Bodies out of line, of all commits."""
    blob_commits: int
    parts: tuple[Part, ...]
    """The heaviest parts of the state, heaviest first, each after its container."""


class Spooled(msgspec.Struct, frozen=True):
    """What a spool holds, of all tenants and processes."""

    queued: int
    """Writes that will be shipped."""
    parked: int
    """Writes that wait after a failed one of their session."""
    failed: int
    """Writes that the store refused."""
    bytes: int
    """What all of these take, about."""
    oldest_seconds: float
    """How long ago the oldest of them was enqueued; 0 where there is none."""

    @property
    def entries(self) -> int:
        """All writes that were not shipped."""
        return self.queued + self.parked + self.failed


class Archived(msgspec.Struct, frozen=True):
    """What `archive` or `compact` did: how many commits left the engine, and how many bytes their segment has (0: there is none).

    `version` is that of the session's newest commit. Where there was nothing to do, `commits` is 0.
    """

    session: str
    version: int
    commits: int
    segment_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {"session": self.session, "version": self.version, "commits": self.commits, "segment_bytes": self.segment_bytes}
