"""How long a process holds back on a session that other processes write to as well.

A process that wins a race knows the new head, its rivals have to read it first: without pauses the winner wins again and the others
starve. So a process that loses waits before it tries again, up to twice as long each time, by chance; and for a while it lets the others in
after a few commits of its own. All times are measured in tries: how long the last one took that was lost. Who never loses never pauses.
"""

from __future__ import annotations

from collections.abc import Callable

from perdure.model.ids import SessionKey

WIDTH_MAX = 64
"""Tries out of which a pause is drawn, at most: enough for as many writers."""
TOOK_MAX = 0.25
"""Seconds that a try counts for, at most."""
COMMITS = 16
"""Commits in a row, until the others are let in."""
SLOWER = 1.25
"""How much longer a try may seem than the quickest before it: one that waited for a rival's lock says little."""
LET_IN = 16
"""Tries out of which that pause is drawn."""
REMEMBERED = 2.0
"""Seconds for which a lost race is remembered."""
SESSIONS_MAX = 1_024
"""Most sessions that are remembered."""


class _Pace:
    """What is known of the races for one session: how long a try takes, out of how many the next pause is drawn, until when that holds."""

    __slots__ = ("commits", "took", "until", "width")

    def __init__(self) -> None:
        self.took = self.until = self.width = 0.0
        self.commits = 0


class Pacing:
    """The pauses of one process. Safe from any thread."""

    def __init__(self, tick: Callable[[], float], bits: Callable[[int], int]) -> None:
        """See `clock.Clock`: a monotonic clock in seconds, and random bits."""
        self._tick, self._bits = tick, bits
        self._paces: dict[SessionKey, _Pace] = {}

    def lost(self, session: SessionKey, took: float) -> None:
        """A race for this session's head was lost, by a try that took so many seconds."""
        if len(self._paces) >= SESSIONS_MAX:
            self._paces = {}
        pace = self._paces.setdefault(session, _Pace())
        pace.took = min(took, SLOWER * pace.took or took)
        pace.until = self._tick() + REMEMBERED
        pace.width = min(max(2 * pace.width, 1.0), WIDTH_MAX)

    def won(self, session: SessionKey) -> None:
        """A commit of this session is stored."""
        pace = self._paces.get(session)
        if pace is None:
            return
        pace.commits += 1
        pace.width = 0.0
        if self._tick() > pace.until:
            self._paces.pop(session, None)

    def pause(self, session: SessionKey) -> float:
        """Seconds to hold back before the next try; 0 as a rule."""
        pace = self._paces.get(session)
        if pace is None:
            return 0.0
        width = pace.width
        if not width and pace.commits >= COMMITS:
            width, pace.commits = LET_IN, 0
        return min(pace.took, TOOK_MAX) * width * (1 + self._bits(16)) / (1 << 16)
