"""A clock that stands still until a test moves it: months pass in a line."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 29, 12, tzinfo=UTC)
SECOND = 10**9


class SimulatedClock:
    """Time that a test sets, and randomness from a seed. Each look at the time moves it by a microsecond.

    `running`: for servers, whose time-outs are real: the monotonic clock is the machine's.
    """

    def __init__(self, start: datetime = START, *, seed: int = 1, running: bool = False) -> None:
        self.at = int(start.timestamp()) * SECOND
        self.bits = random.Random(seed).getrandbits
        self._running = running

    def now(self) -> int:
        self.at += 1_000
        return self.at

    def monotonic(self) -> float:
        return time.monotonic() if self._running else self.at / SECOND

    def advance(self, **by: float) -> None:
        """Let time pass: `days=30`."""
        self.at += int(timedelta(**by).total_seconds() * SECOND)

    @property
    def time(self) -> datetime:
        """The time as a datetime."""
        return datetime.fromtimestamp(self.at / SECOND, UTC)
