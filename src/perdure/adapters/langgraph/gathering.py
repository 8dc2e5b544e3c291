"""Calls on one thread that come together are stored together: in one commit, by one of the callers.

LangGraph hands a step over in pieces, each from a thread or task of its own: what its tasks wrote, and at once after the last of them the
checkpoint that these writes made. One caller leads: it stores what is waiting while newcomers queue behind it, then the next in the queue
leads. A call that may be held waits for company before it is stored, `HOLD` at most. No call returns before it is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from perdure.backends.bridge import Reply, is_blocking

HOLD = 0.01
"""Seconds that a task's writes wait for the checkpoint that follows them: longer than the framework takes to make it of a long list,
shorter than anyone waits for a model."""


class Call:
    """One caller's part. Whoever stores it says so by `done`, with the error that is this call's alone.

    `over`: it was stored or refused, or its caller is gone. `leads`: its caller stores what waits, from its `turn` on.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.over = False
        self.leads = False
        self.turn: Reply[None] = Reply()

    def waits(self) -> bool:
        """Whether it may be held now, for company."""
        return False

    def done(self, error: Exception | None = None) -> None:
        """It is stored, or was refused."""
        self.error, self.over = error, True


C = TypeVar("C", bound=Call)
Choose = Callable[[Sequence[C]], list[C]]
"""From the calls that wait, in their order, those that are to be stored now: one at least."""


class _Queue(Generic[C]):
    """The calls on one session that wait. `company`: what the leader waits for while it holds its own. `thread`: where the leader runs."""

    def __init__(self) -> None:
        self.waiting: list[C] = []
        self.company: Reply[None] | None = None
        self.thread: int | None = threading.get_ident()


class Gathering(Generic[C]):
    """The queues of one saver. From any thread and event loop."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue[C]] = {}
        self._lock = threading.Lock()

    async def store(self, session: str, call: C, choose: Choose[C], commit: Callable[[Sequence[C]], Awaitable[None]]) -> None:
        """Have a call stored, by `commit` here or by another caller's. Raises the call's error.

        Cancelled: the call was stored or was not, and the others go on. What a `commit` raises fails the caller that ran it; the other
        calls are stored by the next leader.
        """
        with self._lock:
            queue = self._queues.get(session)
            # A leader that is suspended in the loop of this very thread cannot go on while the thread is blocked.
            aside = queue is not None and queue.thread == threading.get_ident() and is_blocking()
            call.leads = queue is None
            if queue is None:
                queue = self._queues[session] = _Queue()
            if not aside:
                queue.waiting.append(call)
            if queue.company is not None and not call.waits():
                queue.company.set(None)
                queue.company = None
        try:
            if aside:
                await commit([call])
            elif not call.leads:
                await call.turn
            while not call.over:
                await self._lead(queue, choose, commit)
        finally:
            self._leave(session, queue, call)
        if call.error is not None:
            raise call.error

    async def _lead(self, queue: _Queue[C], choose: Choose[C], commit: Callable[[Sequence[C]], Awaitable[None]]) -> None:
        with self._lock:
            queue.thread = threading.get_ident()
            company: Reply[None] | None = Reply() if all(call.waits() for call in queue.waiting) else None
            queue.company = company
        if company is not None:
            await company.within(HOLD)
        with self._lock:
            queue.company = None
            batch = choose(queue.waiting)
            queue.waiting = [call for call in queue.waiting if call not in batch]
        try:
            await commit(batch)
        finally:
            with self._lock:
                queue.waiting = [call for call in batch if not call.over] + queue.waiting
            for call in batch:
                if call.over and not call.leads:
                    call.turn.set(None)

    def _leave(self, session: str, queue: _Queue[C], call: C) -> None:
        """A call is over, whatever became of it. If it led, the next one does."""
        following = None
        with self._lock:
            call.over = True
            if call in queue.waiting:
                queue.waiting.remove(call)
            if call.leads:
                if queue.waiting:
                    following = queue.waiting[0]
                    following.leads = True
                    queue.thread = None
                else:
                    del self._queues[session]
        if following is not None:
            following.turn.set(None)
