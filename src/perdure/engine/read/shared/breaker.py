"""A breaker: after some failures in a row nothing is sent for a while, then one request tries."""

from __future__ import annotations

from collections.abc import Callable

FAILURES_MAX = 5
"""Failures in a row after which nothing is sent."""
PAUSE_SECONDS = 5.0
"""Seconds until one request tries again."""


class Breaker:
    """Whether a server is worth asking. Safe from any thread: at worst one request more is sent."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failures = 0
        self._try_at = 0.0

    @property
    def closed(self) -> bool:
        """Whether requests are sent as usual."""
        return self._failures < FAILURES_MAX

    def allows(self) -> bool:
        """Whether to send a request now. While the breaker is open, one that is allowed is the one that tries."""
        if self.closed:
            return True
        now = self._monotonic()
        if now < self._try_at:
            return False
        self._try_at = now + PAUSE_SECONDS
        return True

    def succeeded(self) -> None:
        """The server has answered."""
        self._failures = 0

    def failed(self) -> None:
        """The server has not answered in time, or with an error."""
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._try_at = self._monotonic() + PAUSE_SECONDS
