"""Calls on one thread that come together are stored together: in one commit, by one of the callers.

LangGraph hands a step over in pieces, each from a thread or task of its own: what its tasks wrote, and at once after the last of them the
checkpoint that these writes made. One caller leads: it stores what is waiting while newcomers queue behind it, then the next in the queue
leads. A leader whose call may be held waits for company first, `HOLD` at most; a call that may not be held then leads in its place, and
takes along what was held. No call returns before it is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from perdure.concurrency.replies import Reply

HOLD = 0.01
"""Seconds that a task's writes wait for the checkpoint that follows them: longer than the framework takes to make it of a long list,
shorter than anyone waits for a model."""


class PendingCall:
    """One caller's part. Whoever stores it says so by `done`, with the error that is this call's alone.

    `finished`: it was stored or refused, or its caller is gone. `turn` comes when it is over, or is to lead.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.finished = False
        self.turn: Reply[None] = Reply()

    def may_wait(self) -> bool:
        """Whether it may be held now, for company."""
        return False

    def done(self, error: Exception | None = None) -> None:
        """It is stored, or was refused."""
        self.error, self.finished = error, True


C = TypeVar("C", bound=PendingCall)
Choose = Callable[[Sequence[C]], list[C]]
"""From the calls that wait, in their order, those that are to be stored now: one at least."""
Commit = Callable[[Sequence[C]], Awaitable[None]]


class _SessionBatch(Generic[C]):
    """The calls on one session that wait, the one that leads, and whether that one is waiting for company."""

    def __init__(self, leader: C) -> None:
        self.waiting: list[C] = []
        self.leader = leader
        self.holding = False


class WriteBatcher(Generic[C]):
    """The queues of one saver. From any thread and event loop."""

    def __init__(self) -> None:
        self._queues: dict[str, _SessionBatch[C]] = {}
        self._lock = threading.Lock()

    async def store(self, session: str, call: C, choose: Choose[C], commit: Commit[C]) -> None:
        """Have a call stored, by `commit` here or by another caller's. Raises the call's error.

        Cancelled: the call was stored or was not, and the others go on. What a `commit` raises fails the caller that ran it; the other
        calls are stored by the next leader.
        """
        with self._lock:
            queue = self._queues.get(session)
            if queue is None:
                queue = self._queues[session] = _SessionBatch(call)
            elif queue.holding and not call.may_wait():
                queue.leader, queue.holding = call, False
            queue.waiting.append(call)
        try:
            while not call.finished:
                if queue.leader is call:
                    await self._lead(queue, call, choose, commit)
                else:
                    await call.turn
        finally:
            self._leave(session, queue, call)
        if call.error is not None:
            raise call.error

    async def _lead(self, queue: _SessionBatch[C], call: C, choose: Choose[C], commit: Commit[C]) -> None:
        with self._lock:
            call.turn = Reply()
            queue.holding = hold = all(other.may_wait() for other in queue.waiting)
        if hold:
            await call.turn.within(HOLD)
        with self._lock:
            if queue.leader is not call:
                return
            queue.holding = False
            batch = choose(queue.waiting)
            queue.waiting = [other for other in queue.waiting if other not in batch]
        try:
            await commit(batch)
        finally:
            with self._lock:
                queue.waiting = [other for other in batch if not other.finished] + queue.waiting
            for other in batch:
                if other.finished and other is not call:
                    other.turn.set(None)

    def _leave(self, session: str, queue: _SessionBatch[C], call: C) -> None:
        """A call is over, whatever became of it. If it led, the next one does."""
        turn = None
        with self._lock:
            call.finished = True
            if call in queue.waiting:
                queue.waiting.remove(call)
            if queue.leader is call:
                queue.holding = False
                if queue.waiting:
                    queue.leader = queue.waiting[0]
                    turn = queue.leader.turn
                else:
                    del self._queues[session]
        if turn is not None:
            turn.set(None)
