"""Group commit: appends that are ready in one turn of an event loop are handed to the engine together.

A lone append goes at once. While one is under way others wait for the end of the loop's turn, and so does the first one after several
went together: those who were answered together are about to append again. Only for an engine that makes one write of them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence

from perdure.backends.spi import APPENDS_MAX, Append, Backend, Outcome
from perdure.concurrency.bridge import is_blocking
from perdure.concurrency.critical_section import CriticalSection
from perdure.errors import Unknown


class _Waiting:
    """An append that is to go together with others, and the task that sends it."""

    __slots__ = ("append", "future", "sender")

    def __init__(self, append: Append, future: asyncio.Future[Outcome | BaseException]) -> None:
        self.append, self.future = append, future
        self.sender: asyncio.Task[None] | None = None


class _Turn:
    """What one loop has collected, and how many calls it has under way."""

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.calls = 0
        self.crowd = False
        """Whether several went together the last time."""
        self.tasks: set[asyncio.Task[None]] = set()


class Writer:
    """Hands appends to the backend. Called from any loop, or from a thread inside `bridge.blocking`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = weakref.WeakKeyDictionary()
        self._last: tuple[Callable[[], object], _Turn] = (lambda: None, _Turn())
        self._section = CriticalSection()

    async def append(self, append: Append) -> Outcome:
        """One session's append. Raises what its `finish` raised, and what the engine raises."""
        if is_blocking():
            return _answer((await self._backend.append((append,)))[0])
        loop = asyncio.get_running_loop()
        last, turn = self._last
        if last() is not loop:
            turn = self._turn(loop)
        if not self._backend.capabilities.batched or not (turn.calls or turn.waiting or turn.crowd):
            turn.calls += 1
            try:
                return _answer((await self._backend.append((append,)))[0])
            finally:
                turn.calls -= 1
        future: asyncio.Future[Outcome | BaseException] = loop.create_future()
        if not turn.waiting:
            loop.call_soon(self._hand_over, loop, turn)
        turn.waiting.append(_Waiting(append, future))
        return _answer(await future)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> _Turn:
        with self._section:
            turn = self._turns.setdefault(loop, _Turn())
            self._last = weakref.ref(loop), turn
            return turn

    def _hand_over(self, loop: asyncio.AbstractEventLoop, turn: _Turn) -> None:
        try:
            turn.crowd = len(turn.waiting) > 1
            while turn.waiting:
                batch = turn.waiting[:APPENDS_MAX]
                task = loop.create_task(self._send(turn, batch))
                turn.tasks.add(task)
                task.add_done_callback(lambda task, batch=batch: _ended(turn, task, batch))  # type: ignore[misc]
                del turn.waiting[: len(batch)]
        except BaseException:  # Interrupted: what was handed over knows it, the rest is still to go.
            loop.call_soon(self._hand_over, loop, turn)
            raise

    async def _send(self, turn: _Turn, batch: Sequence[_Waiting]) -> None:
        batch = [each for each in batch if each.sender is None and not each.future.done()]
        if not batch:
            return
        for each in batch:
            each.sender = asyncio.current_task()
        turn.calls += 1
        try:
            outcomes: Sequence[Outcome | BaseException] = await self._backend.append([each.append for each in batch])
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            outcomes = [error] * len(batch)
        finally:
            turn.calls -= 1
        for each, outcome in zip(batch, outcomes, strict=True):
            if not each.future.done():
                each.future.set_result(outcome)

    async def drain(self) -> None:
        """Wait for what this loop has handed over."""
        if is_blocking():
            return
        turn = self._turns.get(asyncio.get_running_loop())
        while turn is not None and (turn.tasks or turn.waiting):
            self._hand_over(asyncio.get_running_loop(), turn)
            await asyncio.gather(*turn.tasks) if turn.tasks else await asyncio.sleep(0)


def _ended(turn: _Turn, task: asyncio.Task[None], batch: Sequence[_Waiting]) -> None:
    """A task has ended, perhaps by an interrupt: whoever it did not answer waits no longer."""
    turn.tasks.discard(task)
    if not task.cancelled():
        task.exception()
    lost = Unknown("The task that wrote this append was interrupted.")
    for each in batch:
        if each.sender in (None, task) and not each.future.done():
            each.future.set_result(lost)


def _answer(outcome: Outcome | BaseException) -> Outcome:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
