"""Replies: the answer to a call that another thread serves. Awaited from any event loop, and from threads without one.

A `Reply` is awaited in a coroutine. Under a running loop it suspends the coroutine; inside `run_blocking` it blocks the thread instead. So
one body of code serves the asynchronous and the blocking API.

The caller's side takes no lock: an interrupt may come between any two bytecodes, and a state that it leaves half done must not stop the
next call. What has to be decided once is decided on the serving thread, which is never interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context, ContextVar, copy_context
from typing import Any, Generic, TypeVar

from perdure.errors import Closed

T = TypeVar("T")

ENDING = "The interpreter is shutting down: the store can do nothing more."
FORKED = "This store was opened before a fork() and cannot be used in the child."

_BLOCKING: ContextVar[bool] = ContextVar("perdure_blocking", default=False)


def is_blocking() -> bool:
    """Whether the code runs inside `run_blocking`."""
    return _BLOCKING.get()


def caller_context() -> Context:
    """A copy of the caller's context, such as its trace, for what another thread's loop runs for it."""
    context = copy_context()
    context.run(_BLOCKING.set, False)
    return context


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


class Reply(Generic[T]):
    """The answer to one call: set by the thread that serves it, where the first time counts; awaited once by the caller."""

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
        wake = self._answer(value, error)
        if wake is not None:
            wake()

    def _answer(self, value: Any, error: BaseException | None) -> Callable[[], None] | None:
        """Answer; what wakes the caller, if it waits."""
        if self._done:
            return None
        self._value, self._error = value, error
        self._done = True  # Then the waker is read. The other side writes its waker and then reads this: one of them sees the other.
        return self._wake

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
            raise Closed(ENDING)  # The threads that would answer have stopped.
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
            try:
                if not future.done():
                    future.set_result(None)
            except BaseException:  # Interrupted: the loop's next run wakes the caller.
                loop.call_soon(resolve)
                raise

        self._wake = _LoopWake(loop, resolve)
        if self._done:
            return
        timer = None if seconds is None else loop.call_later(seconds, resolve)
        try:
            yield from future
        finally:
            if timer is not None:
                timer.cancel()


class _LoopWake:
    """Wakes a coroutine of another thread's loop."""

    __slots__ = ("loop", "resolve")

    def __init__(self, loop: asyncio.AbstractEventLoop, resolve: Callable[[], None]) -> None:
        self.loop, self.resolve = loop, resolve

    def __call__(self) -> None:
        _run_soon(self.loop, self.resolve)


def _run_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    # The loop may be closed while the call was served: then nothing waits for the answer.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def set_all(answers: Iterable[tuple[Reply[Any], Any]]) -> None:
    """Answer several calls. A loop in which many of them wait is woken once, which costs it and this thread less."""
    waiting: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
    for reply, value in answers:
        wake = reply._answer(value, None)
        if isinstance(wake, _LoopWake):
            waiting.setdefault(wake.loop, []).append(wake.resolve)
        elif wake is not None:
            wake()
    for loop, resolves in waiting.items():
        _run_soon(loop, _resolve_all, loop, resolves)


def _resolve_all(loop: asyncio.AbstractEventLoop, resolves: list[Callable[[], None]]) -> None:
    try:
        while resolves:
            resolves[-1]()
            resolves.pop()
    except BaseException:  # Interrupted: the loop's next run wakes the others. To wake one twice does no harm.
        loop.call_soon(_resolve_all, loop, resolves)
        raise
