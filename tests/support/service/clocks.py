"""A clock that a test sets."""

from __future__ import annotations

from perdure.clock import SystemClock


class HandClock(SystemClock):
    """Time moves when the test says so."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        super().__init__()
        self.seconds = start

    def now(self) -> int:  # type: ignore[override]
        return round(self.seconds * 1e9)

    def monotonic(self) -> float:  # type: ignore[override]
        return self.seconds
