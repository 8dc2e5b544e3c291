"""One stateful commit of a session at a time in this process, in order of arrival.

Without it the tasks of one process race one another for each head, and all but one lose. The race with other processes is decided by the
engine. So a slot only saves work, and every wait for one ends:

owner      a slot knows its context (calls made inside it do not wait for it), its thread and its loop
deadline   a waiter takes the slot over after `PATIENCE`; at once, where the holder cannot continue while this one waits
release    a slot that an interrupt left held is taken over in the same way
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType, TracebackType

from perdure.clock import SystemClock
from perdure.concurrency.critical_section import CriticalSection, is_running
from perdure.concurrency.replies import Reply, is_blocking
from perdure.model.ids import SessionKey

PATIENCE = 1.0
"""Seconds for which a slot is waited for."""
RESERVED = 2.0
"""Seconds for which a session stays reserved."""

_HELD: ContextVar[tuple[Slot, ...]] = ContextVar("perdure_slots", default=())
"""The slots that this context is inside of."""


class SessionQueue:
    """`async with queue.slot(session)`: from any loop or thread."""

    def __init__(self, tick: Callable[[], float] = SystemClock.monotonic) -> None:
        """`tick` is a monotonic clock in seconds."""
        self._tick = tick
        self._lines: dict[SessionKey, _Line] = {}
        self._reserved: dict[SessionKey, float] = {}
        """Until when each session is reserved. A reservation ends by itself, so none can be forgotten."""
        self._section = CriticalSection()

    def slot(self, session: SessionKey) -> Slot:
        """A slot to be entered once."""
        return Slot(self, session)

    def reserve(self, session: SessionKey) -> None:
        """For a while, writes that need no slot as a rule wait for one too: a write was overtaken."""
        self._reserved[session] = self._tick() + RESERVED

    def is_reserved(self, session: SessionKey) -> bool:
        """Whether writes that need no slot as a rule have to wait for one."""
        until = self._reserved.get(session)
        if until is not None and self._tick() > until:
            self._reserved.pop(session, None)
        return until is not None

    def _enter(self, slot: Slot) -> bool:
        """Hold the session, or queue for it; whether there is nothing to wait for."""
        with self._section:
            line = self._lines.get(slot.session)
            if line is None:
                self._lines[slot.session] = _Line(slot)
            elif line.holder in _HELD.get():
                return True
            elif line.holder.is_stuck_for(slot):
                line.holder = slot
            else:
                line.waiting.append(slot)
                return False
            return True

    def _take_over(self, slot: Slot) -> None:
        """After `PATIENCE`: take the place of the holder and of all earlier waiters, whose time has ended too."""
        with self._section:
            line = self._lines.get(slot.session)
            if line is None or slot not in line.waiting:
                return
            while line.waiting.popleft() is not slot:
                pass
            line.holder = slot

    def _leave(self, slot: Slot) -> None:
        """Admit the next waiters: the first that can continue now holds the session."""
        following: list[Slot] = []
        with self._section:
            line = self._lines.get(slot.session)
            if line is None:
                return
            if line.holder is not slot:
                if slot in line.waiting:
                    line.waiting.remove(slot)
                return
            while line.waiting:
                line.holder = line.waiting.popleft()
                following.append(line.holder)
                if not line.holder.is_idle:
                    break
            else:
                del self._lines[slot.session]
        for next in following:
            next.came.set(None)


class _Line:
    """The slot that holds a session, and those who wait for it."""

    __slots__ = ("holder", "waiting")

    def __init__(self, holder: Slot) -> None:
        self.holder = holder
        self.waiting: deque[Slot] = deque()


class Slot:
    """One passage. Inside, other passages of the same context do not wait."""

    __slots__ = ("_frame", "_loop", "_queue", "_task", "_thread", "came", "session")

    def __init__(self, queue: SessionQueue, session: SessionKey) -> None:
        self._queue, self.session = queue, session
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None
        self._frame: FrameType | None = None
        self._thread = 0
        self.came: Reply[None] = Reply()

    @property
    def is_idle(self) -> bool:
        """Whether its coroutine lies on a loop that does not run, or was interrupted."""
        if self._loop is not None:
            return not self._loop.is_running() or (self._task is not None and self._task.done())
        return self._frame is not None and not is_running(self._thread, self._frame)

    def is_stuck_for(self, slot: Slot) -> bool:
        """Whether it cannot continue while `slot` waits: its loop is idle, or its thread is the one that would be blocked."""
        return self.is_idle or (self._thread == slot._thread and (self._loop is None or slot._loop is None))

    async def __aenter__(self) -> None:
        self._thread = threading.get_ident()
        if is_blocking():
            self._frame = sys._getframe(1)
        else:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if not self._queue._enter(self) and not await self.came.within(PATIENCE):
                self._queue._take_over(self)
            _HELD.set((*_HELD.get(), self))
        except BaseException:
            self._end()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._queue._leave(self)
        self._frame = self._task = None
        _HELD.set(tuple([slot for slot in _HELD.get() if slot is not self]))
