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
        return self._wait(self._paid(key, now), units, now)

    def take(self, key: K, units: float, now: float) -> None:
        """Take them, also where they have to be waited for: what comes next waits longer."""
        self._paid_at.put(key, self._paid(key, now) + units / self.per_second)

    def take_or_wait(self, key: K, units: float, now: float) -> float:
        """Take them if nothing has to be waited for; the seconds of `wait`."""
        paid = self._paid(key, now)
        seconds = self._wait(paid, units, now)
        if not seconds:
            self._paid_at.put(key, paid + units / self.per_second)
        return seconds

    def give_back(self, key: K, units: float) -> None:
        """What was just taken is not taken after all."""
        self._paid_at.put(key, (self._paid_at.get(key) or 0.0) - units / self.per_second)

    def _paid(self, key: K, now: float) -> float:
        paid = self._paid_at.get(key)
        return now if paid is None or paid < now else paid

    def _wait(self, paid: float, units: float, now: float) -> float:
        seconds = paid - now - (self.burst - min(units, self.burst)) / self.per_second
        return seconds if seconds > ROUNDING else 0.0

    def left(self, key: K, now: float) -> int:
        """Whole units that could be taken now."""
        owed = max(0.0, (self._paid_at.get(key) or 0.0) - now) * self.per_second
        return max(0, int(self.burst - owed))
