"""One thread a connection, which looks at the leases that are held. A blocked event loop and a blocking program keep theirs."""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from perdure.concurrency.replies import Reply, run_blocking
from perdure.errors import Error, Unavailable

if TYPE_CHECKING:
    from perdure.engine.leasing.lease import Lease

HINT_DELAY = 0.05
"""Seconds between a hint and the look for it: commits come together, and those of this process explain themselves."""
HINTED_LOOKS = 10
"""A lease is looked at after hints at most so often in a ttl."""
TOGETHER = 4.0
"""A lease that is not due is looked at with one that is, unless its ttl is more than so many times as long: it is one request for both."""
CLOSE_SECONDS = 5.0
"""For how long `close` waits for a look that is in progress."""

LOG = logging.getLogger("perdure")


class Keeper:
    """Calls `look` with the leases that are due. Safe from any thread and loop."""

    def __init__(self, look: Callable[[Sequence[Lease]], Coroutine[Any, Any, None]], monotonic: Callable[[], float]) -> None:
        self._look, self._monotonic = look, monotonic
        self._held: dict[int, Lease] = {}
        """By identity."""
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        """Held by threads of its own only."""
        self._ended: Reply[None] = Reply()
        self._closed = False

    def held(self) -> list[Lease]:
        """All leases that are looked at."""
        return list(self._held.values())

    def add(self, lease: Lease) -> None:
        """Look at this lease from now on. Raises `Unavailable` where no thread can be started."""
        self._held[id(lease)] = lease
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._run, name="perdure-leases", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self.remove(lease)
                raise Unavailable(f"No thread could be started to keep leases: {error}.") from error
            self._thread = thread
        self._wake.put(None)

    def remove(self, lease: Lease) -> None:
        """Look at it no more."""
        self._held.pop(id(lease), None)

    def hint(self, lease: Lease) -> None:
        """The session of this lease has moved on."""
        soon = max(self._monotonic() + HINT_DELAY, lease._looked + lease.ttl / HINTED_LOOKS)
        if soon < lease._look_at:
            lease._look_at = soon
            self._wake.put(None)

    def look_now(self, lease: Lease) -> None:
        """Look at this lease at once, if it is held. From a finaliser too."""
        lease._look_at = -math.inf
        self._wake.put(None)

    def due(self, now: float) -> list[Lease]:
        """The leases that are to be looked at now, and those that are looked at with them for nothing."""
        held = self.held()
        shortest = min((lease.ttl for lease in held if lease._look_at <= now), default=0.0)
        return [lease for lease in held if lease._look_at <= now or lease.ttl <= shortest * TOGETHER]

    def _run(self) -> None:
        with self._lock:  # An interrupt may have come before the thread was noted: then there are two, and one works at a time.
            while not self._closed:
                now = self._monotonic()
                next = min((lease._look_at for lease in self.held()), default=None)
                with suppress(queue.Empty):
                    self._wake.get(timeout=None if next is None else max(next - now, 0.0))
                    while True:
                        self._wake.get_nowait()
                if self._closed or sys.is_finalizing():
                    break
                leases = self.due(self._monotonic())
                try:
                    run_blocking(self._look(leases))
                except Error:
                    pass  # The next look comes in time.
                except Exception:  # A thread that ends would lose every lease.
                    LOG.exception("A look at the leases that are held failed; the next one comes in time.")
        self._ended.set(None)

    def stop(self) -> None:
        """End the thread soon, without waiting for it."""
        self._closed = True
        self._wake.put(None)

    async def close(self) -> None:
        """End the thread, and wait for it, but not for ever."""
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            await self._ended.within(CLOSE_SECONDS)
