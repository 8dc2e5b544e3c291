"""The requests that obstore has in flight. None is when its loop is closed, and none when the interpreter ends.

A thread of obstore answers a request inside Python, and goes on there after the caller has the answer; it also comes when a request was
cancelled. An interpreter that ends meanwhile ends that thread inside of Rust: the process aborts. A loop that is closed meanwhile has the
thread write to standard error. The thread holds the request's future for as long as it may touch it. So who waits until nobody has the
future has waited for the thread.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from perdure.concurrency.at_exit import ends_at_exit
from perdure.errors import Closed

T = TypeVar("T")
LOOKS, LOOK_EVERY = 10_000, 0.001
"""How often, and every so many seconds, it is looked for threads of obstore. They need microseconds, unless the machine lets them wait."""
KNOWN_MAX = 256
"""So many futures are remembered before those that are gone are forgotten."""


class Flights:
    """The requests of one client, all of one loop."""

    def __init__(self, release: Callable[[], object]) -> None:
        """`release` is any call of obstore: with each it lets go of what its threads did not need any more."""
        self._release = release
        self._futures: list[weakref.ref[asyncio.Future[Any]]] = []
        """Without a function that is called when one goes: an obstore thread would run it, and be in Python once more."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        ends_at_exit(self)

    def begin(self, ask: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Make a request. Await it in the same expression: a name for it would outlive it in the traceback of an error.

        Raises `Closed`.
        """
        if self._closed:
            raise Closed
        self._loop = asyncio.get_running_loop()
        future = ask()
        self._futures.append(weakref.ref(cast("asyncio.Future[Any]", future)))
        if len(self._futures) > KNOWN_MAX:
            self._futures = [each for each in self._futures if each() is not None]
        return future

    def _cancel(self) -> None:
        self._closed = True
        for each in self._futures:
            future = each()
            if future is not None:
                future.cancel()

    def _any(self) -> bool:
        self._release()
        return any(each() is not None for each in self._futures)

    async def close(self) -> None:
        """Cancel what is in flight, and return when nothing is. Requests are refused from now on."""
        self._cancel()
        for _ in range(LOOKS):
            if not self._any():
                break
            await asyncio.sleep(LOOK_EVERY)
        self._loop = None

    def end_at_exit(self) -> None:
        """See `Ends`: as `close`, from another thread."""
        if self._loop is None:
            return
        with suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(self._cancel)
        for _ in range(LOOKS):
            if not self._any() and (self._closed or self._loop.is_closed()):
                break
            time.sleep(LOOK_EVERY)
