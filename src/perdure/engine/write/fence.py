"""What a lease does to a write: it is finished only on a head that the lease still holds. Pure; no engine is asked.

Every commit under a lease answers a challenge by the way, so a busy holder answers for nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from perdure.backends.spi import Head
from perdure.errors import Fenced
from perdure.model.epoch import SEQUENCE_MAX, answered, grant_of, is_challenged, is_exclusive, is_held, sequence_of
from perdure.model.ids import SessionKey


class Fence:
    """The grant of one lease, as writes under it go by it. Its holder changes it; every thread may read it."""

    __slots__ = ("deciding", "grant", "session", "wrote")

    def __init__(self, session: SessionKey, grant: int) -> None:
        self.session, self.grant = session, grant
        self.deciding = False
        """Whether the holder is taking its next grant, and nobody knows yet whether it has."""
        self.wrote: Callable[[Head], None] = _ignore
        """Called with the head that each commit has made which this process has written under the lease."""

    def admits(self, head: Head | None) -> bool:
        """Whether the lease holds the session at this head."""
        return head is not None and is_held(head.epoch) and grant_of(head.epoch) == self.grant


def _ignore(head: Head) -> None:
    """Nobody asks."""


def epoch_after(session: SessionKey, head: Head | None, fence: Fence | None) -> int | None:
    """The epoch of a data commit that follows this head; `None`: it stays. Raises `Fenced` if the commit may not follow it.

    A challenge at the end of the sequence stays unanswered: the holder's thread takes a new grant for that, soon after the write.
    """
    if fence is None:
        check_exclusive(session, head)
        return None
    if head is None or not fence.admits(head):
        raise lost(session, fence.grant, head)
    if not is_challenged(head.epoch) or sequence_of(head.epoch) == SEQUENCE_MAX:
        return None
    return answered(head.epoch)


def is_undecided(head: Head | None, fence: Fence | None) -> bool:
    """Whether a head that the lease does not hold may yet turn out to be its own: the write is to be tried again."""
    return fence is not None and fence.deciding and not fence.admits(head)


def check_exclusive(session: SessionKey, head: Head | None) -> None:
    """Raise `Fenced` for a write without a lease to a session that somebody holds for itself."""
    if head is not None and is_exclusive(head.epoch):
        raise Fenced(
            f"Session {session.id!r} is held by an exclusive lease (token {grant_of(head.epoch)}), and this write was not made under it.",
            session=session.id,
            token=grant_of(head.epoch),
        )


def lost(session: SessionKey, grant: int, head: Head | None) -> Fenced:
    """The error for a lease that does not hold this head."""
    now = 0 if head is None else grant_of(head.epoch)
    what = "there is no such session" if head is None else f"its token is {now} now"
    return Fenced(f"The lease with token {grant} no longer holds session {session.id!r}: {what}.", session=session.id, token=now)
