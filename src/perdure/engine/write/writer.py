"""Group commit: appends that are ready in one iteration of an event loop are passed to the engine together.

A lone append is passed on at once. While one is in progress, others wait for the end of the iteration. So does the first append after a
batch: callers that were answered together are about to append again. This holds only for engines that make one write of a batch. Where
appends go to several servers, those of each server are a call of their own: nobody waits for another server than his own.

What waits is a function that makes the append: compressing and hashing run for one commit after another, which finds the code and its
tables in the processor's cache.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeVar

from opentelemetry.trace import SpanContext

from perdure.backends.spi import APPENDS_MAX, Append, Appended, Backend, Outcome, Spread
from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import is_blocking
from perdure.errors import Unknown
from perdure.model.ids import SessionKey
from perdure.telemetry import Telemetry

T = TypeVar("T")

Answer = Outcome | BaseException
_Made = tuple[Append, asyncio.Future[Answer], SpanContext]
"""An append, the future of its caller, and the span that it was submitted in."""
Stored = Callable[[Sequence[tuple[SessionKey, int]]], None]
"""Called with the sessions and versions that the engine has just stored, before any caller is answered."""


class _Batch:
    """Appends that go together, each with the future of its caller."""

    __slots__ = ("callers", "calls", "sender")

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[Any], Append], Any, asyncio.Future[Answer]]] = []
        self.callers: list[SpanContext] = []
        self.sender: asyncio.Task[None] | None = None
        """The task that sends it."""


class _Queue:
    """What one loop has collected, and how many calls it has in progress."""

    def __init__(self) -> None:
        self.waiting: list[_Batch] = []
        """Batches that no task sends yet. The last one takes what comes."""
        self.calls = 0
        self.batching = False
        """Whether several appends went as one batch the last time."""
        self.tasks: set[asyncio.Task[None]] = set()


class Writer:
    """Passes appends to the backend. Called from any loop, or from a thread inside `run_blocking`."""

    def __init__(self, backend: Backend, telemetry: Telemetry, stored: Stored = lambda _: None) -> None:
        self._backend, self._telemetry, self._stored = backend, telemetry, stored
        self._spread = backend if isinstance(backend, Spread) else None
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = weakref.WeakKeyDictionary()
        self._last: tuple[Callable[[], object], _Queue] = (lambda: None, _Queue())
        self._loopless = _Queue()
        """That of all threads without a loop: nothing is collected in it, and nobody asks for its count."""
        self._section = CriticalSection()

    async def append(self, append: Append) -> Outcome:
        """One session's append. Raises what its `finish` raised, and what the engine raises."""
        outcome = await self.submit(_itself, append)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def submit(self, make: Callable[[T], Append], subject: T) -> Awaitable[Answer]:
        """As `append`, for what `make(subject)` makes where it is about to be passed on. What that raises is an outcome too, and so is what
        its `finish` raised, and what a whole batch met."""
        if is_blocking():
            return self._alone(make(subject), self._loopless)
        loop = asyncio.get_running_loop()
        last, queue = self._last
        if last() is not loop:
            queue = self._queue(loop)
        waiting = queue.waiting
        if not self._backend.capabilities.batched or not (queue.calls or waiting or queue.batching):
            return self._alone(make(subject), queue)
        if not waiting:
            loop.call_soon(self._submit, loop, queue)
        if not waiting or waiting[-1].sender is not None or len(waiting[-1].calls) == APPENDS_MAX:
            waiting.append(_Batch())
        future: asyncio.Future[Answer] = loop.create_future()
        waiting[-1].calls.append((make, subject, future))
        waiting[-1].callers.append(self._telemetry.caller())
        return future

    async def _alone(self, append: Append, queue: _Queue) -> Answer:
        """An append that waits for no other one."""
        return (await self._passed_on((append,), queue))[0]

    async def _passed_on(self, appends: Sequence[Append], queue: _Queue, callers: Sequence[SpanContext] = ()) -> Sequence[Answer]:
        """The engine's call, counted; and what it has stored is said."""
        queue.calls += 1
        try:
            outcomes = await self.append_many(appends, callers)
        finally:
            queue.calls -= 1
        pairs = zip(appends, outcomes, strict=True)
        stored = [(append.session, outcome.head.version) for append, outcome in pairs if type(outcome) is Appended]
        if stored:
            self._stored(stored)
        return outcomes

    def append_many(self, appends: Sequence[Append], callers: Sequence[SpanContext] = ()) -> Awaitable[Sequence[Answer]]:
        """Pass these on in one call, now. `callers`: the spans that they were submitted in, where it is not this one."""
        return self._measured(appends, callers) if self._telemetry.is_on else self._backend.append(appends)

    def _queue(self, loop: asyncio.AbstractEventLoop) -> _Queue:
        with self._section:
            queue = self._queues.setdefault(loop, _Queue())
            self._last = weakref.ref(loop), queue
            return queue

    def _submit(self, loop: asyncio.AbstractEventLoop, queue: _Queue) -> None:
        try:
            while queue.waiting:
                batch = queue.waiting[0]
                queue.batching = len(batch.calls) > 1
                task = loop.create_task(self._send(queue, batch))
                queue.tasks.add(task)
                task.add_done_callback(lambda task, batch=batch: _ended(queue, task, batch))  # type: ignore[misc]
                del queue.waiting[0]
        except BaseException:  # Interrupted: a batch that has its task already is not sent twice.
            loop.call_soon(self._submit, loop, queue)
            raise

    async def _send(self, queue: _Queue, batch: _Batch) -> None:
        if batch.sender is not None:
            return
        batch.sender = asyncio.current_task()
        made: list[_Made] = []
        for (make, subject, future), caller in zip(batch.calls, batch.callers, strict=True):
            if future.done():  # Its caller was cancelled.
                continue
            try:
                made.append((make(subject), future, caller))
            except Exception as error:  # noqa: BLE001 - the caller gets it
                future.set_result(error)
        parts = self._by_server(made)
        if len(parts) > 1:
            await asyncio.gather(*[self._send_part(queue, part) for part in parts])
        elif made:
            await self._send_part(queue, made)

    def _by_server(self, made: list[_Made]) -> Sequence[list[_Made]]:
        """These appends, those of each server together."""
        if self._spread is None:
            return (made,)
        parts: dict[Hashable, list[_Made]] = {}
        for each in made:
            parts.setdefault(self._spread.server_of(each[0].session), []).append(each)
        return list(parts.values())

    async def _send_part(self, queue: _Queue, part: Sequence[_Made]) -> None:
        """One call of the engine, and the answers to its callers."""
        try:
            outcomes = await self._passed_on([append for append, _, _ in part], queue, [caller for _, _, caller in part])
        except Exception as error:  # noqa: BLE001 - every caller of the call gets it
            outcomes = [error] * len(part)
        for (_, future, _), outcome in zip(part, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def _measured(self, appends: Sequence[Append], callers: Sequence[SpanContext]) -> Sequence[Outcome | BaseException]:
        """The engine's call, in a span of its own, with its size and its duration noted."""
        with self._telemetry.grouped([append.session for append in appends], callers):
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


def _itself(append: Append) -> Append:
    return append


def _ended(queue: _Queue, task: asyncio.Task[None], batch: _Batch) -> None:
    """A task has ended, perhaps by an interrupt. A caller that it did not answer gets `Unknown`."""
    queue.tasks.discard(task)
    if not task.cancelled():
        task.exception()
    if batch.sender in (None, task):
        lost = Unknown("The task that wrote this append was interrupted.")
        for *_, future in batch.calls:
            if not future.done():
                future.set_result(lost)
