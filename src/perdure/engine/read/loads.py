"""Loads: one of a session at a time, from the engine or from a place beside it."""

from __future__ import annotations

from typing import Protocol

from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import Reply
from perdure.engine.read.cache import CachedState
from perdure.model.ids import SessionKey

WAIT_MAX = 1.0
"""Seconds for which a caller waits for another caller's load. That caller's loop may have stopped: then this one loads itself."""


class StateSource(Protocol):
    """A place beside the engine that may have states: see `engine.read.shared.tier`."""

    async def load(self, session: SessionKey) -> tuple[CachedState, float] | None:
        """The state at the head, and a moment of the cache's clock after which that was the head; `None`: load from the engine."""
        ...

    def offer(self, session: SessionKey, cached: CachedState) -> bool:
        """Take a state that was loaded from the engine; whether it is shared from now on, so that nobody may change it."""
        ...


class Load:
    """A load under way, and those who wait for it."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Reply[None]] = []


class Loads:
    """The loads of one connection. Who comes during one waits, then looks whether it was enough. Safe from any thread and loop."""

    def __init__(self) -> None:
        self._under_way: dict[SessionKey, Load] = {}
        self._section = CriticalSection()

    def begin(self, session: SessionKey) -> Load:
        """From here to `end`, others wait for this load."""
        load = Load()
        with self._section:
            self._under_way[session] = load
        return load

    def end(self, session: SessionKey, load: Load) -> None:
        """The load has ended, whatever it gave: those who wait go on."""
        with self._section:
            if self._under_way.get(session) is load:
                del self._under_way[session]
            waiting, load.waiting = load.waiting, []
        for reply in waiting:
            reply.set(None)

    async def wait(self, session: SessionKey) -> bool:
        """Wait for a load that another caller has under way; false where there is none."""
        load = self._under_way.get(session)
        if load is None:
            return False
        reply: Reply[None] = Reply()
        with self._section:
            if self._under_way.get(session) is not load:
                return True
            load.waiting.append(reply)
        await reply.within(WAIT_MAX)
        return True
