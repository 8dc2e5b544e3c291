"""Threads that serve calls from any event loop, and from threads without one.

A `Reply` is awaited in a coroutine. Under a running loop it suspends; inside `run_blocking` it blocks the thread instead, so
one body of code serves the asynchronous and the blocking API.

The callers' side takes no lock: an interrupt may come between any two bytecodes, and what was put down halfway must not stop the next
call. What has to be decided once is decided on the serving thread, which is never interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from typing import Any, Generic, TypeVar

from perdure.errors import Closed, Unavailable

T = TypeVar("T")
S = TypeVar("S")

ENDING = "The interpreter is ending: nothing can be asked any more."
FORKED = "This store was opened before a fork() and cannot be used in the child."

_BLOCKING: ContextVar[bool] = ContextVar("perdure_blocking", default=False)


def is_blocking() -> bool:
    """Whether the code runs inside `run_blocking`."""
    return _BLOCKING.get()


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that awaits nothing but replies to its end, in this thread and in a copy of its context."""
    try:
        context = copy_context()
        context.run(_BLOCKING.set, True)
        context.run(coroutine.send, None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except BaseException:
        coroutine.close()
        raise
    coroutine.close()
    raise RuntimeError("The blocking API awaited something that is not a reply of a Perdure engine: use the asynchronous API here.")


class Mailbox:
    """Hands functions to an event loop from other threads. What comes before the loop has looked wakes it once, in the order it came."""

    __slots__ = ("_looks", "_loop", "_waiting", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._looks = 0
        self._woken = -1
        """The look that the loop was last woken for: while it is still to come, nobody need wake it again."""

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


class Reply(Generic[T]):
    """The answer to one call: set by the thread that serves it, the first time counts; awaited once by the one who asked."""

    __slots__ = ("_done", "_error", "_value", "_wake")

    def __init__(self) -> None:
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._wake: Callable[[], None] | None = None

    def set(self, value: T) -> None:
        """Answer."""
        self._finish(value, None)

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        self._finish(None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if self._done:
            return
        self._value, self._error = value, error
        self._done = True  # Then the waker is read; the other side writes its waker and then reads this: one of both sees the other.
        wake = self._wake
        if wake is not None:
            wake()

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            if _BLOCKING.get():
                self._block(None)
            else:
                yield from self._suspend(None)
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    @types.coroutine
    def within(self, seconds: float | None) -> Generator[Any, None, bool]:
        """Wait for the answer, `seconds` at most, without taking it: whether it has come."""
        if not self._done:
            if _BLOCKING.get():
                self._block(seconds)
            else:
                yield from self._suspend(seconds)
        return self._done

    def _block(self, seconds: float | None) -> None:
        if sys.is_finalizing():
            raise Closed(ENDING)  # The threads that would answer run no more.
        gate = threading.Lock()
        gate.acquire()
        self._wake = gate.release
        if not self._done:
            gate.acquire(timeout=-1 if seconds is None else seconds)

    def _suspend(self, seconds: float | None) -> Generator[Any, None, None]:
        if sys.is_finalizing():
            raise Closed(ENDING)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            # The loop may be closed while the call was served: nobody waits for the answer then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(resolve)

        self._wake = wake
        if self._done:
            return
        timer = None if seconds is None else loop.call_later(seconds, resolve)
        try:
            yield from future
        finally:
            if timer is not None:
                timer.cancel()


class _Call(Generic[S]):
    """A function that waits for a thread. `None`: it was taken back, nothing of it was begun."""

    __slots__ = ("fail", "function", "set")

    def __init__(self, function: Callable[[S], Any], set: Callable[[Any], None], fail: Callable[[BaseException], None]) -> None:
        self.function: Callable[[S], Any] | None = function
        self.set, self.fail = set, fail


class Workers(Generic[S]):
    """Threads with a resource of their own each (a connection), started when the first call comes, ended by `close`."""

    def __init__(self, name: str, count: int, acquire: Callable[[], S], release: Callable[[S], None]) -> None:
        self._name, self._count = name, count
        self._acquire, self._release = acquire, release
        self._calls: queue.SimpleQueue[_Call[S] | None] = queue.SimpleQueue()
        self._started: list[threading.Thread] = []
        """Threads that were started; there may be more, and fewer of them may have stayed: who serves is decided there."""
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
        """Run `function(resource)` on one of the threads; what it raises goes to `fail`. Nobody waits for an answer."""
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
        """What met a `close` from another thread is refused, unless it is served all the same."""
        if self._closed:
            self._calls.put(None)
            self._refuse()

    def _start(self) -> None:
        """Start one more thread. Interrupted, the next call starts another: one too many leaves at once."""
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
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
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
        """Finish the calls that were handed over, then end the threads. What comes later meets `Closed`. Not from a thread of its own."""
        self.end()
        for threads in (self._started, self._serving):
            for thread in list(threads):
                thread.join()
        self._refuse()

    def _refuse(self) -> None:
        """Answer what came too late to be served, once no thread serves any more."""
        while not any(thread.is_alive() for thread in list(self._serving)):
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call.fail(Closed())


def _ignore(value: object) -> None:
    """Nobody waits for it."""
