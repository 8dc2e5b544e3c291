"""The rules of leases: what may follow a head, and who says so. Pure: no engine is asked, no clock is looked at.

A lease that nobody wants needs no rule and no write. Who wants one that is held challenges it, by a commit that makes the sequence odd. The
holder answers by any commit, which makes it even. Who has seen the same odd epoch for the holder's whole ttl takes the lease, on the
condition of exactly that epoch. So no clock is compared with another one.
"""

from __future__ import annotations

import msgspec

from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.model.commit import Kind
from perdure.model.epoch import (
    SEQUENCE_MAX,
    answered,
    challenged,
    grant_of,
    granted,
    is_challenged,
    is_exclusive,
    is_held,
    raised,
    sequence_of,
)
from perdure.model.events import Event
from perdure.model.lease import BROKEN, CHALLENGED, RELEASED, RENEWED, LeaseSection, leased, released


class Claim(msgspec.Struct, frozen=True):
    """Who wants to hold a session, and how."""

    id: str
    """See `LeaseSection.id`."""
    owner: str
    ttl: float
    exclusive: bool = False


class Seen(msgspec.Struct, frozen=True):
    """What one store object has seen of a session's lease. Times are seconds on its own monotonic clock."""

    epoch: int
    since: float
    """When it has first seen this very epoch."""
    challenged: float | None = None
    """When it has last seen the first moment of a challenge of this grant; `None`: never."""


def see(before: Seen | None, epoch: int, now: float) -> Seen:
    """What was seen, after a look that showed this epoch. `now` is read after the look."""
    if before is not None and before.epoch == epoch:
        return before
    same = before is not None and grant_of(before.epoch) == grant_of(epoch)
    earlier = before.challenged if same and before is not None else None
    return Seen(epoch, now, now if is_challenged(epoch) else earlier)


def is_own(basis: Basis, claim: Claim) -> bool:
    """Whether an earlier try of this claim, whose answer was lost, has taken the lease."""
    return basis.holder is not None and basis.holder.id == claim.id


def is_as_claimed(basis: Basis, claim: Claim) -> bool:
    """Whether the lease that is held is the one that this claim asks for: a claim by a key may be of another request than the first one."""
    found = basis.holder
    return found is not None and (found.owner, found.ttl, is_exclusive(basis.head.epoch)) == (claim.owner, claim.ttl, claim.exclusive)


def may_take(basis: Basis, seen: Seen | None, now: float) -> bool:
    """Whether the lease is free, or its holder has left a challenge unanswered for its whole ttl."""
    epoch = basis.head.epoch
    if not is_held(epoch):
        return True
    ttl = 0.0 if basis.holder is None else basis.holder.ttl
    return is_challenged(epoch) and seen is not None and seen.epoch == epoch and now - seen.since >= ttl


def may_challenge(basis: Basis, seen: Seen | None, now: float, pause: float) -> bool:
    """Whether the holder is to be asked: it is not asked already, and was not asked within the last `pause` of its ttl. Without the pause a
    holder at work and one who waits would write to each other all the time."""
    epoch, holder = basis.head.epoch, basis.holder
    if not is_held(epoch) or is_challenged(epoch) or holder is None:
        return False
    same = seen is not None and grant_of(seen.epoch) == grant_of(epoch)
    last = seen.challenged if same and seen is not None else None
    return last is None or now - last >= pause * holder.ttl


def take(basis: Basis, claim: Claim, step: int, at: int) -> ControlChange:
    """The take. `at`: nanoseconds since 1970. `step`: by how much the grant rises."""
    epoch = granted(basis.head.epoch, step, exclusive=claim.exclusive)
    section = LeaseSection(claim.owner, claim.ttl, at, claim.id, grant_of(epoch))
    return _one(leased(section, basis.life), epoch)


def challenge(basis: Basis, owner: str) -> ControlChange:
    """Ask the holder whether it is alive."""
    return _one(Event(CHALLENGED, {"owner": owner}), challenged(basis.head.epoch))


def needs_grant(epoch: int) -> bool:
    """Whether a challenge can only be answered by a new grant: the sequence is used up."""
    return is_challenged(epoch) and sequence_of(epoch) == SEQUENCE_MAX


def answer(basis: Basis) -> ControlChange:
    """The holder's answer; a commit that changes nothing where nobody has asked."""
    return _one(Event(RENEWED), answered(basis.head.epoch))


def let_go(basis: Basis, step: int, *, by_force: bool = False) -> ControlChange:
    """The end of a lease: by its holder, or by force."""
    epoch = raised(basis.head.epoch, step)
    return _one(released(basis.life, grant_of(epoch), BROKEN if by_force else RELEASED), epoch)


def _one(event: Event, epoch: int) -> ControlChange:
    return ControlChange((ControlCommit(kind=Kind.lease, event=event, epoch=lambda _: epoch),))
