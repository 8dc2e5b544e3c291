"""States of hot sessions, least recently used first out, bounded by bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.backends.spi import Head
from perdure.concurrency.critical_section import CriticalSection
from perdure.lru import LruMap
from perdure.model.control import NOTHING_SET, Control
from perdure.model.ids import SessionKey

SEEN_ONCE_MAX = 4_096
"""Most sessions of which it is remembered that they were read once."""


class CachedState(msgspec.Struct, frozen=True):
    """A session's state at a head, never changed in place: what changes is copied along its path.

    `log_bytes` is the weight of the records since the last snapshot, with the bodies out of line that had to be fetched, `snapshot_bytes`
    that snapshot's, `size_bytes` that of the records before it. The state has at most about `state_bytes`, encoded and uncompressed.
    `control` is what control commits up to the head say of the session.
    """

    head: Head
    state: Any
    log_bytes: int
    snapshot_bytes: int
    tags: Mapping[str, str]
    created_at: int
    size_bytes: int = 0
    control: Control = NOTHING_SET
    state_bytes: int = 0

    @property
    def weight(self) -> int:
        """About how many bytes the state takes, encoded."""
        return 512 + self.snapshot_bytes + self.log_bytes


class Cache:
    """An LRU map from session to `CachedState`. Safe from any thread; only ever moves a session forward."""

    def __init__(self, bytes_max: int) -> None:
        self._entries = LruMap[SessionKey, CachedState](bytes_max, lambda cached: cached.weight)
        self._seen_once = LruMap[SessionKey, bool](SEEN_ONCE_MAX)
        self._section = CriticalSection()

    def get(self, session: SessionKey) -> CachedState | None:
        """The newest state known, which may not be the newest there is. While another thread puts one, there may seem to be none."""
        return self._entries.get(session)

    def __contains__(self, session: SessionKey) -> bool:
        return session in self._entries

    def put(self, session: SessionKey, cached: CachedState) -> None:
        """Keep this state, unless a newer one is known."""
        with self._section:
            known = self._entries.get(session)
            if known is None or known.head.version <= cached.head.version:
                self._entries.put(session, cached)

    def second_hit(self, session: SessionKey) -> bool:
        """Whether this is the session's second uncached read, so that its state is worth keeping."""
        with self._section:
            if self._seen_once.pop(session):
                return True
            self._seen_once.put(session, True)
            return False

    def drop(self, session: SessionKey) -> None:
        """Forget a session."""
        with self._section:
            self._entries.pop(session)
