"""One event loop in a thread of its own: a network client belongs to one loop, a store to none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.mailbox import Mailbox
from perdure.concurrency.replies import FORKED, Reply, caller_context
from perdure.concurrency.workers import WorkerPool
from perdure.errors import Closed

T = TypeVar("T")
LOOP_FACTORY: ContextVar[Callable[[], asyncio.AbstractEventLoop]] = ContextVar("perdure_loop_factory", default=asyncio.new_event_loop)
"""What makes the loops of those clients that are opened in this context and work on any loop. `perdure serve` makes them uvloop's."""
CANCEL_AGAIN = 0.5
"""Seconds until a task that has not ended is cancelled once more."""


async def gather_all(*work: Awaitable[Any]) -> list[Any]:
    """The results of all; the first error, when all have ended.

    Nothing is cancelled on the way, as a task group would: a client library that is cancelled between two steps can keep a lock for ever.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended; how they did does not matter any more.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, which client libraries use, swallows a cancellation that comes as it ends.
    """
    left: set[asyncio.Task[Any]] = {*tasks}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)


async def in_thread(work: Callable[[], T]) -> T:
    """Run what blocks in a thread of its own. The loop's executor would refuse it in `atexit`, where stores are still closed."""
    workers = WorkerPool[None]("perdure-call", 1, lambda: None, lambda _: None)
    try:
        return await workers.call(lambda _: work())
    finally:
        workers.end()


class IoLoop:
    """Runs coroutines for callers of any loop or thread. The thread starts with the first call and ends with `close`.

    Every call is answered: with `Closed`, when the loop ended first.
    """

    def __init__(self, name: str, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        """`new_loop` makes the loop."""
        self._name, self._new_loop = name, new_loop
        self._section = CriticalSection()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailbox: Mailbox | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unanswered: set[Reply[Any]] = set()
        self._closed = self._ended = False
        self._pid = os.getpid()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Reply[T]:
        """Start a coroutine on the loop, in the caller's context. Its end does not depend on the caller: one that is cancelled leaves it
        running."""
        if self._closed or os.getpid() != self._pid:
            coroutine.close()
            raise Closed(FORKED) if os.getpid() != self._pid else Closed
        reply: Reply[T] = Reply()
        context = caller_context()

        async def serve() -> None:
            try:
                result = await coroutine
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                reply.fail(Closed() if isinstance(error, asyncio.CancelledError) else error)
            else:
                reply.set(result)
            finally:
                self._unanswered.discard(reply)

        def start() -> None:
            task = asyncio.get_running_loop().create_task(serve(), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._unanswered.add(reply)
        try:
            (self._mailbox or self._start()).put(start)
        except RuntimeError:  # It ended while this was on its way.
            coroutine.close()
            raise Closed from None
        if self._ended:
            coroutine.close()
            reply.fail(Closed())
        return reply

    def _start(self) -> Mailbox:
        with self._section:
            if self._mailbox is None:
                loop = self._new_loop()
                thread = threading.Thread(target=self._run, args=(loop,), name=self._name, daemon=True)
                thread.start()
                self._loop, self._thread, self._mailbox = loop, thread, Mailbox(loop)
            return self._mailbox

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(self._end())
        finally:
            loop.close()
            self._ended = True
            while self._unanswered:
                self._unanswered.pop().fail(Closed())

    async def _end(self) -> None:
        mine = asyncio.current_task()
        await cancel_and_wait(*(task for task in asyncio.all_tasks() if task is not mine))
        loop = asyncio.get_running_loop()
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()

    def close(self) -> None:
        """Cancel what runs, end the thread and wait for it. Calling it twice is calling it once; not from the loop itself."""
        self._closed = True
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):  # It has ended already.
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
