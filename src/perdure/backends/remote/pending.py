"""One append on its way through a remote engine."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

from perdure.backends.spi import Append, Head, Outcome
from perdure.errors import Error


class Pending:
    """An append that has no outcome yet. `verified`: `head` was read or refused a write, and is not only remembered. `proven`: it
    was compared with its newest record. `trusted`: it was, or others made it after one that was. `new`: its key is known to be in none of
    the records up to that head. `alone`: it came as the only one of its call. `context`: its caller's."""

    __slots__ = (
        "alone", "append", "context", "future", "head", "new", "proven", "queued", "races", "reason", "sent", "since", "took",
        "trusted", "verified",
    )  # fmt: skip

    def __init__(self, append: Append, future: asyncio.Future[Outcome | BaseException], since: float, *, alone: bool) -> None:
        self.append, self.future, self.since, self.alone = append, future, since, alone
        self.context = copy_context()
        self.head: Head | None = None
        self.verified = self.proven = False
        self.trusted = True
        self.new = append.key is None
        self.races = 0
        self.took = 0.0
        """Seconds of the last write that it went in."""
        self.queued = self.sent = False
        """Whether it waits for another append of its session, and whether its record may be stored: it was sent and not answered."""
        self.reason: Error | None = None
        """Why nothing was done when it was last sent."""

    @property
    def answered(self) -> bool:
        return self.future.done()
