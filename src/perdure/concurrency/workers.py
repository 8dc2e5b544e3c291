"""A pool of worker threads, each with a resource of its own. Calls come from any event loop, and from threads without one."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from perdure.concurrency.replies import ENDING, FORKED, Reply
from perdure.errors import Closed, Unavailable

T = TypeVar("T")
S = TypeVar("S")


class _Call(Generic[S]):
    """A function that waits for a thread. `None`: it was withdrawn before it began."""

    __slots__ = ("fail", "function", "set")

    def __init__(self, function: Callable[[S], Any], set: Callable[[Any], None], fail: Callable[[BaseException], None]) -> None:
        self.function: Callable[[S], Any] | None = function
        self.set, self.fail = set, fail


class WorkerPool(Generic[S]):
    """Threads with a resource of their own each (a connection), started when the first call comes, ended by `close`."""

    def __init__(self, name: str, count: int, acquire: Callable[[], S], release: Callable[[S], None]) -> None:
        self._name, self._count = name, count
        self._acquire, self._release = acquire, release
        self._calls: queue.SimpleQueue[_Call[S] | None] = queue.SimpleQueue()
        self._started: list[threading.Thread] = []
        """Threads that were started. There may be more, and some of them may have ended: `_serve` decides which ones serve."""
        self._serving: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()
        """Held by threads of its own only."""
        self._closed = False
        self._pid = os.getpid()

    def call(self, function: Callable[[S], T]) -> Reply[T]:
        """Run `function(resource)` on one of the threads. Raises `Closed`, `Unavailable`."""
        reply: Reply[T] = Reply()
        self._put(_Call(function, reply.set, reply.fail))
        return reply

    def post(self, function: Callable[[S], None], *, fail: Callable[[BaseException], None]) -> None:
        """Run `function(resource)` on one of the threads; what it raises goes to `fail`. No caller waits for an answer."""
        self._put(_Call(function, _ignore, fail))

    def _put(self, call: _Call[S]) -> None:
        if os.getpid() != self._pid:
            raise Closed(FORKED)
        if self._closed:
            raise Closed
        try:
            self._calls.put(call)
            started = len(self._started)
            if not started or (started < self._count and self._calls.qsize() > self._idle):
                self._start()
        except BaseException:
            call.function = None
            raise
        self._end_late()

    def _end_late(self) -> None:
        """A call that came during a `close` from another thread is refused, unless it was served."""
        if self._closed:
            self._calls.put(None)
            self._refuse()

    def _start(self) -> None:
        """Start one more thread. After an interrupt the next call starts another: one too many ends at once."""
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._started)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if sys.is_finalizing() or "shutdown" in str(error):
                raise Closed(ENDING) from error
            raise Unavailable(f"No thread could be started: {error}.") from error
        self._started.append(thread)

    def _serve(self) -> None:
        with self._lock:
            if len(self._serving) == self._count:
                return
            self._serving.append(threading.current_thread())
        resource: S | None = None
        while (call := self._next()) is not None:
            function = call.function
            if function is None:
                continue
            try:
                if resource is None:
                    resource = self._acquire()
                result = function(resource)
            except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
                call.fail(error)
            else:
                call.set(result)
            del call, function
        if resource is not None:
            self._release(resource)

    def _next(self) -> _Call[S] | None:
        with self._lock:
            self._idle += 1
        call = self._calls.get()
        with self._lock:
            self._idle -= 1
        return call

    def end(self) -> None:
        """As `close`, without waiting for it."""
        self._closed = True
        for _ in range(self._count):
            self._calls.put(None)

    def close(self) -> None:
        """Finish the calls that were submitted, then end the threads. A later call raises `Closed`. Not from a thread of its own."""
        self.end()
        for threads in (self._started, self._serving):
            for thread in list(threads):
                thread.join()
        self._refuse()

    def _refuse(self) -> None:
        """Refuse the calls that came too late, once no thread serves any more."""
        while not any(thread.is_alive() for thread in list(self._serving)):
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call.fail(Closed())


def _ignore(value: object) -> None:
    """No caller waits for it."""
