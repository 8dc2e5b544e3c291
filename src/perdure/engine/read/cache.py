"""States of hot sessions, least recently used first out, bounded by bytes; and since when each is known to be the newest.

fresh   An entry is fresh when this process knew it to be the head within so many seconds, and when no newer version was seen since: not
        acknowledged to a writer, and not shown to a reader. So an eventual read never goes back, and sees what this process wrote.
floor   The newest version of a session that was seen. Floors are kept for the last `FLOORS_MAX` sessions. When one is forgotten, nothing
        that is known from the time before it counts as fresh any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from perdure.backends.spi import Head
from perdure.concurrency.critical_section import CriticalSection
from perdure.lru import LruMap
from perdure.model.control import NOTHING_SET, Control
from perdure.model.ids import SessionKey
from perdure.telemetry import CACHE_BYTES, CACHE_EVICTIONS, CACHE_HITS, CACHE_MISSES, Telemetry

SEEN_ONCE_MAX = 4_096
"""Most sessions of which it is remembered that they were read once."""
FLOORS_MAX = 16_384
"""Most sessions of which the newest version that was seen is remembered."""
ABSENT_MAX = 4_096
"""Most sessions of which it is remembered that there is none."""
ABSENT_SECONDS = 1.0
"""Seconds for which an eventual read believes that there is no such session."""
NEVER = -math.inf
"""The time of what is not known to be the head."""


class CachedState(msgspec.Struct, frozen=True):
    """A session's state at a head, never changed in place: what changes is copied along its path.

    `log_bytes` is the weight of the records since the last snapshot, with the bodies out of line that had to be fetched, `snapshot_bytes`
    that snapshot's, `size_bytes` that of the records before it. The state has at most about `state_bytes`, encoded and uncompressed.
    `control` is what control commits up to the head say of the session. `ancestor` is the version and hash of an earlier commit that was
    found on its chain. A state `from_shared` cache is for readers only: no edit and no snapshot is made of it, and its `control` is not
    known.
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
    ancestor: tuple[int, bytes] = (0, b"")
    from_shared: bool = False

    @property
    def weight(self) -> int:
        """About how many bytes the state takes, encoded."""
        return 512 + self.snapshot_bytes + self.log_bytes


class _Entry(msgspec.Struct):
    cached: CachedState
    head_at: float
    """When it was known to be the head: the moment before the engine was asked."""


class Cache:
    """An LRU map from session to `CachedState`. Safe from any thread; only ever moves a session forward.

    `hits`, `misses` and `evictions` count from the start; counts of several threads at once may miss a few.
    """

    def __init__(self, bytes_max: int, ttl: float, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        """`ttl`: seconds for which an entry that was the head answers without a look; `monotonic` gives seconds."""
        self.ttl, self.now = ttl, monotonic
        self._telemetry = telemetry
        self._entries = LruMap[SessionKey, _Entry](bytes_max, lambda entry: entry.cached.weight)
        self._seen_once = LruMap[SessionKey, bool](SEEN_ONCE_MAX)
        self._floors = LruMap[SessionKey, tuple[int, float]](FLOORS_MAX)
        """The newest version seen, and when."""
        self._horizon = NEVER
        """When the newest of the forgotten floors was made."""
        self._absent = LruMap[SessionKey, float](ABSENT_MAX)
        self._section = CriticalSection()
        self._bytes_reported = 0
        self.hits = self.misses = 0

    @property
    def size(self) -> int:
        """About how many bytes the states take, encoded."""
        return self._entries.size

    @property
    def size_max(self) -> int:
        """How many they may take."""
        return self._entries.size_max

    @property
    def evictions(self) -> int:
        """How many states made room for others."""
        return self._entries.evictions

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, session: SessionKey) -> CachedState | None:
        """The newest state known, which may not be the newest there is. While another thread puts one, there may seem to be none."""
        entry = self._entries.get(session)
        return None if entry is None else entry.cached

    def base(self, session: SessionKey) -> CachedState | None:
        """As `get`, for an edit: a state from the shared cache does not count."""
        entry = self._entries.get(session)
        return None if entry is None or entry.cached.from_shared else entry.cached

    def fresh(self, session: SessionKey, seconds: float) -> CachedState | None:
        """The state, if it is fresh: known to be the head within so many seconds, `ttl` at most."""
        entry = self._entries.get(session)
        if entry is None:
            return None
        floor = self._floors.get(session)  # Read before the horizon, which is moved before a floor is forgotten.
        if floor is not None and floor[0] > entry.cached.head.version:
            return None
        at = entry.head_at
        return entry.cached if at > self._horizon and self.now() - at <= min(seconds, self.ttl) else None

    def __contains__(self, session: SessionKey) -> bool:
        return session in self._entries

    def put(self, session: SessionKey, cached: CachedState, head_at: float = NEVER) -> None:
        """Keep this state, unless a newer one is known. `head_at`: a moment of `now` after which it was the head."""
        with self._section:
            entry = self._entries.get(session)
            if entry is not None:
                known = entry.cached
                if known.head.version > cached.head.version:
                    return
                if known.head.hash == cached.head.hash:
                    head_at = max(head_at, entry.head_at)
                    if cached.from_shared and not known.from_shared:
                        cached = known
            self._see(session, cached.head.version, self.now())
            before = self._entries.evictions
            self._entries.put(session, _Entry(cached, head_at))
            self._report(self._entries.evictions - before)

    def confirm(self, session: SessionKey, hash: bytes, head_at: float) -> None:
        """The head with this hash was looked at: if it is the entry's, that is the newest from `head_at` on."""
        entry = self._entries.get(session)
        if entry is not None and entry.cached.head.hash == hash and entry.head_at < head_at:
            entry.head_at = head_at

    def prove(self, session: SessionKey, cached: CachedState, ancestor: tuple[int, bytes]) -> None:
        """An earlier commit was found on the chain of this state: if it is the entry's, that is remembered."""
        with self._section:
            entry = self._entries.get(session)
            if entry is not None and entry.cached.head.hash == cached.head.hash:
                entry.cached = msgspec.structs.replace(entry.cached, ancestor=ancestor)

    def saw(self, session: SessionKey, version: int) -> None:
        """A version was acknowledged or shown: from now on an older state is not fresh."""
        self.saw_all(((session, version),))

    def saw_all(self, versions: Iterable[tuple[SessionKey, int]]) -> None:
        """As `saw`, for each of these."""
        with self._section:
            now = self.now()
            for session, version in versions:
                self._see(session, version, now)

    def _see(self, session: SessionKey, version: int, now: float) -> None:
        floor = self._floors.get(session)
        if floor is not None and floor[0] >= version:
            return
        if floor is None and len(self._floors) >= FLOORS_MAX and (oldest := self._floors.oldest()) is not None:
            self._horizon = max(self._horizon, oldest[1])
        self._floors.put(session, (version, now))

    def put_absent(self, session: SessionKey, at: float) -> None:
        """There was no such session at this moment of `now`."""
        self._absent.put(session, at)

    def is_absent(self, session: SessionKey, seconds: float) -> bool:
        """Whether there was no such session within so many seconds, `ABSENT_SECONDS` at most, and none was seen since."""
        at = self._absent.get(session)
        if at is None or session in self._floors:
            return False
        return at > self._horizon and self.now() - at <= min(seconds, self.ttl, ABSENT_SECONDS)

    def second_hit(self, session: SessionKey) -> bool:
        """Whether this is the session's second uncached read, so that its state is worth keeping."""
        with self._section:
            if self._seen_once.pop(session):
                return True
            self._seen_once.put(session, True)
            return False

    def drop(self, session: SessionKey) -> None:
        """Forget a session's state. What was seen of it stays known."""
        with self._section:
            self._entries.pop(session)
            self._report(0)

    def hit(self) -> None:
        """A state was in memory, perhaps without its newest commits."""
        self.hits += 1
        self._telemetry.count(CACHE_HITS, tier="memory")

    def miss(self) -> None:
        """A state was not in memory."""
        self.misses += 1
        self._telemetry.count(CACHE_MISSES)

    def _report(self, evicted: int) -> None:
        if not self._telemetry.measures:
            return
        if evicted:
            self._telemetry.count(CACHE_EVICTIONS, evicted)
        grown, self._bytes_reported = self._entries.size - self._bytes_reported, self._entries.size
        self._telemetry.count(CACHE_BYTES, grown)

    def close(self) -> None:
        """Take what the states take out of the metric of all caches."""
        with self._section:
            self._entries.clear()
            self._report(0)
