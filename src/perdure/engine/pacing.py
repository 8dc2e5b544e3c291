"""How long a process holds back on a session that other processes write to as well.

A process that wins a race knows the new head, its rivals have to read it first: without pauses the winner wins again and the others
starve. Each lost race doubles the time out of which a pause is drawn, each commit shortens it, and it is remembered from commit to
commit: so about as many races are won as lost, however many write, and everyone gets through. Who never loses never pauses.
"""

from __future__ import annotations

from perdure.backends.bridge import Reply
from perdure.clock import Clock
from perdure.model.ids import SessionKey

WIDTH_MIN, WIDTH_MAX = 0.002, 1.0
"""Seconds out of which a pause is drawn, after the first lost race and at most."""
SHRINK = 0.7
"""What a commit leaves of it."""
SESSIONS_MAX = 1_024
"""Most sessions that are remembered."""


class Pacing:
    """The pauses of one process. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._widths: dict[SessionKey, float] = {}

    def lost(self, session: SessionKey) -> None:
        """A race for this session's head was lost."""
        if len(self._widths) >= SESSIONS_MAX:
            self._widths = {}
        self._widths[session] = min(max(2 * self._widths.get(session, 0.0), WIDTH_MIN), WIDTH_MAX)

    def won(self, session: SessionKey) -> None:
        """A commit of this session is stored."""
        width = self._widths.get(session)
        if width is None:
            return
        if width * SHRINK < WIDTH_MIN:
            self._widths.pop(session, None)
        else:
            self._widths[session] = width * SHRINK

    async def pause(self, session: SessionKey) -> bool:
        """Hold back, where races were lost of late; whether it did."""
        width = self._widths.get(session)
        if width is None:
            return False
        await Reply[None]().within(width * self._clock.bits(16) / (1 << 16))
        return True
