"""One load of a session at a time: who comes meanwhile waits for it, and then looks whether that was enough."""

from __future__ import annotations

from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import Reply
from perdure.model.ids import SessionKey

WAIT_MAX = 1.0
"""Seconds for which a caller waits for another caller's load. That caller's loop may have stopped: then this one loads itself."""


class Load:
    """A load under way, and those who wait for it."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Reply[None]] = []


class Loads:
    """The loads of one connection. Safe from any thread and loop."""

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
