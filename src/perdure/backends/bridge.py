"""Threads that serve calls from any event loop, and from threads without one.

A `Reply` is awaited in a coroutine. Under a running loop it suspends; inside `blocking()` it blocks the thread instead, so
one body of code serves the asynchronous and the blocking API.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")

_BLOCKING: ContextVar[bool] = ContextVar("perdure_blocking", default=False)


@contextlib.contextmanager
def blocking() -> Iterator[None]:
    """Inside, awaiting a `Reply` blocks the thread, even where an event loop runs."""
    token = _BLOCKING.set(True)
    try:
        yield
    finally:
        _BLOCKING.reset(token)


def is_blocking() -> bool:
    """Whether the code runs inside `blocking()`."""
    return _BLOCKING.get()


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that awaits nothing but replies to its end, in this thread."""
    token = _BLOCKING.set(True)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        _BLOCKING.reset(token)
    coroutine.close()
    raise RuntimeError("The blocking API awaited something that is not a reply of a Perdure engine: use the asynchronous API here.")


class Mailbox:
    """Hands functions to an event loop from other threads. What comes before the loop has looked wakes it once, in the order it came."""

    __slots__ = ("_lock", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    def put(self, function: Callable[[], None]) -> None:
        """Have the loop call it soon. Raises `RuntimeError` when the loop is closed."""
        with self._lock:
            self._waiting.append(function)
            if len(self._waiting) > 1:
                return
        try:
            self._loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            self._waiting.clear()
            raise

    def _empty(self) -> None:
        with self._lock:
            functions, self._waiting = self._waiting, []
        for function in functions:
            function()


class Reply(Generic[T]):
    """The answer to one call: set once by the thread that serves it, awaited once by whoever asked."""

    __slots__ = ("_done", "_error", "_lock", "_value", "_wake")

    def __init__(self) -> None:
        self._lock = threading.Lock()
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
        with self._lock:
            self._value, self._error, self._done = value, error, True
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
        gate = threading.Lock()
        gate.acquire()
        with self._lock:
            if self._done:
                return
            self._wake = gate.release
        gate.acquire(timeout=-1 if seconds is None else seconds)

    def _suspend(self, seconds: float | None) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            # The loop may be closed while the call was served: nobody waits for the answer then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(resolve)

        with self._lock:
            if self._done:
                return
            self._wake = wake
        timer = None if seconds is None else loop.call_later(seconds, resolve)
        try:
            yield from future
        finally:
            if timer is not None:
                timer.cancel()


class _Unanswered:
    """Stands for a reply where only a failure matters."""

    __slots__ = ("fail",)

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self.fail = fail

    def set(self, value: object) -> None:
        """Nobody waits for it."""


class Workers(Generic[S]):
    """Threads with a resource of their own each (a connection), started when the first call comes, ended by `close`."""

    def __init__(self, name: str, count: int, acquire: Callable[[], S], release: Callable[[S], None]) -> None:
        self._name, self._count = name, count
        self._acquire, self._release = acquire, release
        self._calls: queue.SimpleQueue[tuple[Callable[[S], Any], Reply[Any] | _Unanswered] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._waiting = 0

    def call(self, function: Callable[[S], T]) -> Reply[T]:
        """Run `function(resource)` on one of the threads."""
        reply: Reply[T] = Reply()
        self._put(function, reply)
        return reply

    def post(self, function: Callable[[S], None], *, fail: Callable[[BaseException], None]) -> None:
        """Run `function(resource)` on one of the threads; what it raises goes to `fail`. Nobody waits for an answer."""
        self._put(function, _Unanswered(fail))

    def _put(self, function: Callable[[S], Any], reply: Reply[Any] | _Unanswered) -> None:
        with self._lock:
            self._waiting += 1
            if self._waiting > len(self._threads) and len(self._threads) < self._count:
                thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._calls.put((function, reply))

    def _serve(self) -> None:
        resource: S | None = None
        while (call := self._calls.get()) is not None:
            function, reply = call
            try:
                if resource is None:
                    resource = self._acquire()
                result = function(resource)
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                reply.fail(error)
            else:
                reply.set(result)
            with self._lock:
                self._waiting -= 1
            del call, function, reply
        if resource is not None:
            self._release(resource)

    def close(self) -> None:
        """Finish the calls that were handed over, then end the threads."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._calls.put(None)
        for thread in threads:
            thread.join()
