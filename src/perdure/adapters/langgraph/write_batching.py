"""Calls on one thread that come together are stored together: in one commit, by one of the callers.

LangGraph hands a step over in pieces, each from a thread or task of its own: what its tasks wrote, and right after the last of them the
checkpoint that these writes made. One caller leads: it stores what is waiting while newcomers queue; then the next in the queue leads.
A leader whose call may wait holds it for others to join, `HOLD` at most. A call that may not wait then leads in its place, and takes along
what was held. No call returns before it is stored.

A leader may stop in the middle: its event loop ended, or is blocked by a call that waits here. A caller that sees no progress for
`LEADER_TIMEOUT` leads in its place. What both of them store is there once: writes and checkpoints that are there already are not written
again.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from perdure.clock import SystemClock
from perdure.concurrency.replies import Reply

HOLD = 0.01
"""Seconds that a task's writes wait for the checkpoint that follows them: longer than the framework takes to make it of a long list,
shorter than anyone waits for a model."""
LEADER_TIMEOUT = 2.0
"""Seconds without progress after which another caller leads: longer than a commit takes."""
_now = SystemClock.monotonic


class PendingCall:
    """One caller's part. The leader that stored it calls `done`, with the error that is this call's alone.

    `finished`: it was stored or refused, or its caller is gone. `signal` comes when it is finished, or is to lead.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.finished = False
        self.signal: Reply[None] = Reply()

    def may_wait(self) -> bool:
        """Whether it may be held now, for others to join."""
        return False

    def done(self, error: Exception | None = None) -> None:
        """It is stored, or was refused."""
        self.error, self.finished = error, True


C = TypeVar("C", bound=PendingCall)
Choose = Callable[[Sequence[C]], list[C]]
"""From the calls that wait, in their order, those that are to be stored now: one at least."""
Commit = Callable[[Sequence[C]], Awaitable[None]]


class _Queue(Generic[C]):
    """The calls on one session: those that wait, those that are being stored, and the one that leads."""

    def __init__(self, leader: C) -> None:
        self.waiting: list[C] = []
        self.storing: list[C] = []
        self.holding = False
        """Whether the leader waits for others to join."""
        self.lead(leader)

    def lead(self, call: C) -> None:
        """Make this call the leader."""
        self.leader, self.since = call, _now()
        self.holding = False

    def put_back(self) -> None:
        """Have what was being stored wait again, if it is not finished."""
        self.waiting = [call for call in (*self.storing, *self.waiting) if not call.finished]
        self.storing = []


class WriteBatcher(Generic[C]):
    """The queues of one saver. From any thread and event loop."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue[C]] = {}
        self._lock = threading.Lock()

    async def store(self, session: str, call: C, choose: Choose[C], commit: Commit[C]) -> None:
        """Have a call stored, by `commit` here or by another caller's. Raises the call's error.

        Cancelled: the call was stored or was not, and the others go on. What a `commit` raises fails the caller that ran it; the other
        calls are stored by the next leader.
        """
        with self._lock:
            queue = self._queues.get(session)
            if queue is None:
                queue = self._queues[session] = _Queue(call)
            elif queue.holding and not call.may_wait():
                queue.lead(call)
            queue.waiting.append(call)
        try:
            while not call.finished:
                if queue.leader is call:
                    await self._lead(queue, call, choose, commit)
                else:
                    await self._follow(queue, call)
        finally:
            self._leave(session, queue, call)
        if call.error is not None:
            raise call.error

    async def _lead(self, queue: _Queue[C], call: C, choose: Choose[C], commit: Commit[C]) -> None:
        with self._lock:
            if queue.leader is not call:
                return
            call.signal = Reply()
            queue.holding = hold = all(other.may_wait() for other in queue.waiting)
        if hold:
            await call.signal.within(HOLD)
        with self._lock:
            if queue.leader is not call or not queue.waiting:
                return
            queue.lead(call)
            batch = choose(queue.waiting)
            queue.waiting = [other for other in queue.waiting if other not in batch]
            queue.storing = batch
        try:
            await commit(batch)
        finally:
            with self._lock:
                if queue.leader is call:
                    queue.put_back()
            for other in batch:
                if other.finished and other is not call:
                    other.signal.set(None)

    async def _follow(self, queue: _Queue[C], call: C) -> None:
        """Wait until the call is finished or is to lead; lead if there is no progress."""
        await call.signal.within(LEADER_TIMEOUT)
        with self._lock:
            if call.finished or queue.leader is call:
                return
            call.signal = Reply()
            if _now() - queue.since >= LEADER_TIMEOUT:
                queue.put_back()
                queue.lead(call)

    def _leave(self, session: str, queue: _Queue[C], call: C) -> None:
        """The caller is gone, whether or not the call was stored. If it led, the next one does."""
        signal = None
        with self._lock:
            call.finished = True
            if call in queue.waiting:
                queue.waiting.remove(call)
            if queue.leader is call:
                queue.put_back()
                if queue.waiting:
                    queue.lead(queue.waiting[0])
                    signal = queue.leader.signal
                else:
                    del self._queues[session]
        if signal is not None:
            signal.set(None)
