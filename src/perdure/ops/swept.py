"""What a sweeper did: one action, and how many of each kind."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

What = Literal[
    "looked", "expired", "purged", "woken", "trimmed", "archived", "applied", "held", "forked", "unread", "waiting", "overtaken", "failed"
]
"""What was done to a session that was due.

looked     nothing had to be done yet: it is due again later
expired    it was deleted, because it was idle
purged     it was expired, and its grace is over: its bytes were removed
woken      its alarm went off
trimmed    commits that it does not keep were dropped, or went to the archive
archived   all of it went to the archive, because it was not used
applied    a prefix policy that was changed was given to sessions that began without it
held       a lease is held on it: it is looked at again later
forked     a fork still reads its past from it, so nothing was removed: it is looked at again later
unread     a consumer has not read what is to go, so nothing was moved or dropped: it is looked at again later
waiting    its alarm is for a worker that claims it
overtaken  others wrote first, or another sweeper did: it is looked at again in the next round
failed     the engine, or what is stored, did not allow it; the detail says why
"""


class Action(msgspec.Struct, frozen=True):
    """What was done, or with a dry run would be done, to one session."""

    tenant: str
    session: str
    action: What
    detail: str = ""
    """What more there is to say, as a sentence's part."""


class Swept(msgspec.Struct):
    """How many sessions each action was done to, and over how many rounds."""

    rounds: int = 0
    due: int = 0
    """Sessions that were due."""
    looked: int = 0
    expired: int = 0
    purged: int = 0
    woken: int = 0
    trimmed: int = 0
    archived: int = 0
    applied: int = 0
    held: int = 0
    forked: int = 0
    unread: int = 0
    waiting: int = 0
    overtaken: int = 0
    failed: int = 0
    overdue_seconds: float = 0.0
    """For how long the session had been due that waited longest. First looks, and alarms for workers, do not count."""

    def add(self, action: Action) -> None:
        """Count an action."""
        self.due += 1
        setattr(self, action.action, getattr(self, action.action) + 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it."""
        return msgspec.structs.asdict(self)
