"""Which sessions of a shard are due, in order, in memory: a sorted list in chunks, so that a change moves few places."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from operator import itemgetter

from perdure.model.ids import SessionKey

Place = tuple[int, SessionKey]
"""`due_at` and the session. Strings compare as their UTF-8 does."""
CHUNK = 1_000
"""A chunk is cut in two when it has twice as many places."""


class DueList:
    """Places, each once."""

    def __init__(self, places: Iterable[Place] = ()) -> None:
        found = sorted(places)
        self._chunks = [found[start : start + CHUNK] for start in range(0, len(found), CHUNK)]
        """None of them is empty."""

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def add(self, place: Place) -> None:
        """Add a place that is not there."""
        if not self._chunks:
            self._chunks.append([place])
            return
        at = min(self._chunk_of(place), len(self._chunks) - 1)
        chunk = self._chunks[at]
        insort(chunk, place)
        if len(chunk) >= 2 * CHUNK:
            self._chunks[at : at + 1] = [chunk[:CHUNK], chunk[CHUNK:]]

    def remove(self, place: Place) -> None:
        """Remove a place that is there."""
        at = self._chunk_of(place)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, place)]
        if not chunk:
            del self._chunks[at]

    def after(self, place: Place | None) -> Iterator[Place]:
        """All places, or those after this one. Not to be gone on with once the list has changed."""
        at = 0 if place is None else self._chunk_of(place)
        for number in range(at, len(self._chunks)):
            chunk = self._chunks[number]
            yield from chunk[bisect_right(chunk, place) :] if place is not None and number == at else chunk

    def _chunk_of(self, place: Place) -> int:
        """The number of the first chunk that ends at this place or after it."""
        return bisect_left(self._chunks, place, key=itemgetter(-1))
