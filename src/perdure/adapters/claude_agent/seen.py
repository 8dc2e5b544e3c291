"""Which lines of a transcript are there already: remembered per process, bounded, true at any moment."""

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
    `unsure` holds the idempotency keys of batches whose fate nobody knows, by digest: sent again, they go under the same key.
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
        """What is known of a transcript. It stays true for who holds it: it grows, ids before the version, and never shrinks."""
        with self._lock:
            return self._entry(session)

    def add(self, session: str, ids: Collection[str], *, after: int, version: int) -> None:
        """These are the ids of the lines behind one version, up to another. If what came before was let go, it stays unknown."""
        with self._lock:
            seen = self._entry(session)
            before = len(seen.ids)
            seen.ids.update(ids)
            if seen.version >= after:
                seen.version = max(seen.version, version)
            self._count += len(seen.ids) - before

    def forget(self, session: str, life: int = 0) -> None:
        """The transcript is not there, or began anew after its tombstone: what is known of its lines is about another one."""
        with self._lock:
            before = self._entry(session)  # may let others go, and count
            self._count -= len(before.ids)
            anew = self._transcripts[session] = Seen()
            anew.version = anew.life = life
            anew.unsure = before.unsure

    def _entry(self, session: str) -> Seen:
        seen = self._transcripts.pop(session, None) or Seen()
        self._transcripts[session] = seen
        while (self._count > IDS_MAX or len(self._transcripts) > TRANSCRIPTS_MAX) and len(self._transcripts) > 1:
            self._count -= len(self._transcripts.popitem(last=False)[1].ids)
        return seen
