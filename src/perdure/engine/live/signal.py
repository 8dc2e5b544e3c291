"""A signal: a follower reads, waits until something may be new, and reads again."""

from __future__ import annotations

from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import Reply


class Signal:
    """Wakes one follower. Safe from any thread and loop."""

    def __init__(self) -> None:
        self._section = CriticalSection()
        self._notified = False
        self._reply: Reply[None] | None = None

    def arm(self) -> None:
        """From now on a notification counts: called before reading, so that none is lost between reading and waiting."""
        with self._section:
            self._notified, self._reply = False, Reply()

    def notify(self) -> None:
        """Wake it, once."""
        with self._section:
            self._notified, reply, self._reply = True, self._reply, None
        if reply is not None:
            reply.set(None)

    async def notified(self, seconds: float) -> bool:
        """Whether it is notified, after it was armed, within so many seconds."""
        with self._section:
            reply = self._reply
        if reply is not None:
            await reply.within(seconds)
        return self._notified
