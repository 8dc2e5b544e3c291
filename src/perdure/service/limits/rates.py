"""A rate with a burst, by the generic cell rate algorithm (ITU-T I.371, annex A). Pure: time is passed in.

One number is kept for each key: the time at which all that was taken is paid for. It costs as much for a million requests as for one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from perdure.lru import LruMap

K = TypeVar("K", bound=Hashable)
KEYS_MAX = 100_000
"""Keys that are kept. Who was silent for the longest time is forgotten first, and begins again with a full burst."""

ROUNDING = 1e-6
"""Seconds that are no wait: sums of floats are off by less."""


class Rate(Generic[K]):
    """`per_second` units for each key, and `burst` units at once after a pause."""

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second, self.burst = per_second, max(1.0, burst)
        self._paid_at = LruMap[K, float](KEYS_MAX)

    def wait(self, key: K, units: float, now: float) -> float:
        """Seconds until so many units could be taken; 0: now. More than a burst can be taken by who has taken nothing for a while."""
        paid = max(self._paid_at.get(key) or 0.0, now)
        seconds = paid - now - (self.burst - min(units, self.burst)) / self.per_second
        return seconds if seconds > ROUNDING else 0.0

    def take(self, key: K, units: float, now: float) -> None:
        """Take them, also where they have to be waited for: what comes next waits longer."""
        self._paid_at.put(key, max(self._paid_at.get(key) or 0.0, now) + units / self.per_second)

    def left(self, key: K, now: float) -> int:
        """Whole units that could be taken now."""
        owed = max(0.0, (self._paid_at.get(key) or 0.0) - now) * self.per_second
        return max(0, int(self.burst - owed))
