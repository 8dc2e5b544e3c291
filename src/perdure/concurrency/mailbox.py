"""A mailbox: functions that other threads pass to an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Mailbox:
    """Passes functions to an event loop from other threads, in order. Those that come before the loop has looked wake it once."""

    __slots__ = ("_looks", "_loop", "_waiting", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._looks = 0
        self._woken = -1
        """The look that the loop was last woken for: while it is still to come, the loop is not woken again."""

    def put(self, function: Callable[[], None]) -> None:
        """Have the loop call it soon. Raises `RuntimeError` when the loop is closed."""
        self._waiting.append(function)
        try:
            look = self._looks  # Read after the function was put in: a look that is still to come will find it.
            if self._woken != look:
                self._loop.call_soon_threadsafe(self._empty)
                self._woken = look
        except RuntimeError:
            self._waiting.clear()
            raise
        except BaseException:
            self._loop.call_soon_threadsafe(self._empty)
            raise

    def _empty(self) -> None:
        self._looks += 1
        while self._waiting:
            self._waiting.popleft()()
