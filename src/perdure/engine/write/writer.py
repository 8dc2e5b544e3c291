"""Group commit: appends that are ready in one iteration of an event loop are passed to the engine together.

A lone append is passed on at once. While one is in progress, others wait for the end of the iteration. So does the first append after a
batch: callers that were answered together are about to append again. This holds only for engines that make one write of a batch.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence

from perdure.backends.spi import APPENDS_MAX, Append, Backend, Outcome
from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import is_blocking
from perdure.errors import Unknown
from perdure.telemetry import Telemetry


class _Waiting:
    """An append that waits for its batch, and the task that sends it."""

    __slots__ = ("append", "future", "sender")

    def __init__(self, append: Append, future: asyncio.Future[Outcome | BaseException]) -> None:
        self.append, self.future = append, future
        self.sender: asyncio.Task[None] | None = None


class _Queue:
    """What one loop has collected, and how many calls it has in progress."""

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.calls = 0
        self.batching = False
        """Whether several appends went as one batch the last time."""
        self.tasks: set[asyncio.Task[None]] = set()


class Writer:
    """Passes appends to the backend. Called from any loop, or from a thread inside `run_blocking`."""

    def __init__(self, backend: Backend, telemetry: Telemetry) -> None:
        self._backend, self._telemetry = backend, telemetry
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = weakref.WeakKeyDictionary()
        self._last: tuple[Callable[[], object], _Queue] = (lambda: None, _Queue())
        self._section = CriticalSection()

    async def append(self, append: Append) -> Outcome:
        """One session's append. Raises what its `finish` raised, and what the engine raises."""
        outcome = await self.submit(append)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def submit(self, append: Append) -> Awaitable[Outcome | BaseException]:
        """As `append`. What its `finish` raised, and what a whole batch met, is an outcome too."""
        if is_blocking():
            return self._alone(append)
        loop = asyncio.get_running_loop()
        last, queue = self._last
        if last() is not loop:
            queue = self._queue(loop)
        if not self._backend.capabilities.batched or not (queue.calls or queue.waiting or queue.batching):
            return self._alone(append, queue)
        future: asyncio.Future[Outcome | BaseException] = loop.create_future()
        if not queue.waiting:
            loop.call_soon(self._submit, loop, queue)
        queue.waiting.append(_Waiting(append, future))
        return future

    async def _alone(self, append: Append, queue: _Queue | None = None) -> Outcome | BaseException:
        """An append that waits for no other one."""
        call = self._measured if self._telemetry.measures else self._backend.append
        if queue is None:
            return (await call((append,)))[0]
        queue.calls += 1
        try:
            return (await call((append,)))[0]
        finally:
            queue.calls -= 1

    def _queue(self, loop: asyncio.AbstractEventLoop) -> _Queue:
        with self._section:
            queue = self._queues.setdefault(loop, _Queue())
            self._last = weakref.ref(loop), queue
            return queue

    def _submit(self, loop: asyncio.AbstractEventLoop, queue: _Queue) -> None:
        try:
            queue.batching = len(queue.waiting) > 1
            while queue.waiting:
                batch = queue.waiting[:APPENDS_MAX]
                task = loop.create_task(self._send(queue, batch))
                queue.tasks.add(task)
                task.add_done_callback(lambda task, batch=batch: _ended(queue, task, batch))  # type: ignore[misc]
                del queue.waiting[: len(batch)]
        except BaseException:  # Interrupted: what was submitted is marked, and the rest is submitted again.
            loop.call_soon(self._submit, loop, queue)
            raise

    async def _send(self, queue: _Queue, batch: Sequence[_Waiting]) -> None:
        batch = [each for each in batch if each.sender is None and not each.future.done()]
        if not batch:
            return
        for each in batch:
            each.sender = asyncio.current_task()
        queue.calls += 1
        try:
            call = self._measured if self._telemetry.measures else self._backend.append
            outcomes: Sequence[Outcome | BaseException] = await call([each.append for each in batch])
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            outcomes = [error] * len(batch)
        finally:
            queue.calls -= 1
        for each, outcome in zip(batch, outcomes, strict=True):
            if not each.future.done():
                each.future.set_result(outcome)

    async def _measured(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        """The engine's call, with its size and its duration noted."""
        with self._telemetry.grouped(len(appends)):
            return await self._backend.append(appends)

    async def drain(self) -> None:
        """Wait for the appends that this loop has submitted."""
        if is_blocking():
            return
        queue = self._queues.get(asyncio.get_running_loop())
        while queue is not None and (queue.tasks or queue.waiting):
            self._submit(asyncio.get_running_loop(), queue)
            await asyncio.gather(*queue.tasks) if queue.tasks else await asyncio.sleep(0)
            queue.tasks -= {task for task in queue.tasks if task.done()}  # An interrupt may have come before one was noted to be done.


def _ended(queue: _Queue, task: asyncio.Task[None], batch: Sequence[_Waiting]) -> None:
    """A task has ended, perhaps by an interrupt. A caller that it did not answer gets `Unknown`."""
    queue.tasks.discard(task)
    if not task.cancelled():
        task.exception()
    lost = Unknown("The task that wrote this append was interrupted.")
    for each in batch:
        if each.sender in (None, task) and not each.future.done():
            each.future.set_result(lost)
