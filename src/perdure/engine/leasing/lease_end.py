"""The end of a lease, as something to wait for: awaited from any event loop, waited for by any thread."""

from __future__ import annotations

import math
from collections.abc import Callable

from perdure.concurrency.replies import Reply
from perdure.errors import Invalid
from perdure.redaction import shown_value

TIMEOUT_MAX = 1e9
"""No wait is longer, in seconds: some thirty years."""


class LeaseEnd:
    """Set, once and for ever, when its lease has ended: another one was granted, the session was deleted, `max_hold` is over, it was
    released, or the engine could not be reached for a ttl. It stops nothing by itself."""

    def __init__(self, seconds_left: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """`seconds_left`: until the engine will not have been reached for a ttl."""
        self._seconds_left, self._monotonic = seconds_left, monotonic
        self._replies: set[Reply[None]] = set()
        self._set = False

    def __repr__(self) -> str:
        return f"<LeaseEnd [{'set' if self.is_set() else 'unset'}]>"

    def is_set(self) -> bool:
        """Whether the lease has ended, as far as this process knows. Nothing is asked: see `Lease.confirm`."""
        if not self._set and self._seconds_left() <= 0:
            self._end()
        return self._set

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most (`None`: as long as it takes); whether it is. Raises `Invalid`."""
        if timeout is not None and (type(timeout) not in (int, float) or not 0 <= timeout <= TIMEOUT_MAX):
            raise Invalid(f"timeout must be None, or 0 to {TIMEOUT_MAX:,.0f} seconds, not {shown_value(timeout)}.")
        until = math.inf if timeout is None else self._monotonic() + timeout
        reply: Reply[None] = Reply()
        self._replies.add(reply)
        try:
            while not self.is_set():
                left = until - self._monotonic()
                if left <= 0:
                    return False
                await reply.within(min(left, max(self._seconds_left(), 0.0)))
            return True
        finally:
            self._replies.discard(reply)

    def _end(self) -> None:
        self._set = True
        for reply in list(self._replies):
            reply.set(None)
