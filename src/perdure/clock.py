"""The only source of time and randomness: replace it and a seed replays a run."""

from __future__ import annotations

import os
import random
import time
from typing import Protocol


class Clock(Protocol):
    """What the library may know of time and chance. Safe to call from any thread."""

    def now(self) -> int:
        """Wall-clock time in nanoseconds since 1970, UTC. May step back; nothing relies on its order."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary point; never steps back."""
        ...

    def bits(self, count: int) -> int:
        """`count` random bits as a non-negative integer."""
        ...


class SystemClock:
    """The machine's clock, and randomness seeded by the operating system."""

    def __init__(self) -> None:
        self.bits = random.Random(os.urandom(32)).getrandbits

    now = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)


def secret_bytes(count: int) -> bytes:
    """So many random bytes for a key, from the operating system: never from a seed."""
    return os.urandom(count)


class SeededClock:
    """Time that moves a fixed step at each look, and randomness from a seed: the same seed gives the same run."""

    def __init__(self, seed: int, *, start: int = 1_700_000_000_000_000_000, step: int = 1_000_000) -> None:
        """`start` and `step` in nanoseconds; the default step is one millisecond."""
        self.bits = random.Random(seed).getrandbits
        self._now = start
        self._step = step

    def now(self) -> int:
        self._now += self._step
        return self._now

    def monotonic(self) -> float:
        return self._now / 1e9
