"""Which lines of a transcript are there already: remembered in each process, bounded, and correct at any moment."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

IDS_MAX = 200_000
"""How many ids of lines are remembered over all transcripts: some 25 MB. The transcript in use is never forgotten."""
TRANSCRIPTS_MAX = 4_096
"""Of how many transcripts."""


class Seen:
    """What is known of one transcript: the ids of all its lines up to a version, perhaps of later ones too.

    `life` is the version of the last tombstone before that, 0 without one: batches of an earlier life are not this one's.
    `unsure` holds the idempotency keys of batches whose outcome is unknown, by digest: they are sent again under the same key.
    """

    __slots__ = ("ids", "life", "unsure", "version")

    def __init__(self) -> None:
        self.version = self.life = 0
        self.ids: set[str] = set()
        self.unsure: dict[str, str] = {}


class SeenIds:
    """What is known of every transcript, least recently used first out. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transcripts: OrderedDict[str, Seen] = OrderedDict()
        self._count = 0

    def of(self, session: str) -> Seen:
        """What is known of a transcript. It only grows, ids before the version, so it stays correct for all that hold it."""
        with self._lock:
            return self._put(session, self._take(session))

    def add(self, session: str, seen: Seen, ids: Collection[str], *, after: int, version: int) -> None:
        """Add the ids of the lines after one version, up to another, to what the caller holds of a transcript; it is remembered."""
        with self._lock:
            self._take(session)
            seen.ids.update(ids)
            if seen.version >= after:
                seen.version = max(seen.version, version)
            self._put(session, seen)

    def forget(self, session: str, life: int = 0) -> Seen:
        """Forget the lines of a transcript that is not there, or that began again after the tombstone at version `life`."""
        with self._lock:
            again = Seen()
            again.version = again.life = life
            again.unsure = self._take(session).unsure
            return self._put(session, again)

    def _take(self, session: str) -> Seen:
        seen = self._transcripts.pop(session, None) or Seen()
        self._count -= len(seen.ids)
        return seen

    def _put(self, session: str, seen: Seen) -> Seen:
        self._transcripts[session] = seen
        self._count += len(seen.ids)
        while (self._count > IDS_MAX or len(self._transcripts) > TRANSCRIPTS_MAX) and len(self._transcripts) > 1:
            self._count -= len(self._transcripts.popitem(last=False)[1].ids)
        return seen
