"""A head's epoch: one number of 63 bits that says which lease is in force, and whether somebody challenges it.

grant      49 bits: the fencing token. It rises at a take, a release and a tombstone, so nothing that was granted before fits it any more
sequence   12 bits: even while the holder has answered, odd while it is challenged. It never wraps
held       1 bit: somebody holds the lease
exclusive  1 bit: only the holder may write

An epoch whose lower 14 bits are zero is free.
"""

from __future__ import annotations

GRANT_STEP_BITS = 16
"""A grant rises by 1 to 2^16, chosen at random, so that two histories after a failover do not meet by accident."""
SEQUENCE_MAX = (1 << 12) - 1
"""Largest sequence. A holder that is challenged there answers by a grant of its own, which starts at 0 again."""
_GRANT_SHIFT, _SEQUENCE_SHIFT = 14, 2
_HELD, _EXCLUSIVE = 2, 1


def grant_of(epoch: int) -> int:
    """The fencing token; 0 in a session that was never leased and never deleted."""
    return epoch >> _GRANT_SHIFT


def sequence_of(epoch: int) -> int:
    """How often the lease was challenged or answered since it was granted."""
    return epoch >> _SEQUENCE_SHIFT & SEQUENCE_MAX


def is_held(epoch: int) -> bool:
    """Whether somebody holds the lease."""
    return bool(epoch & _HELD)


def is_exclusive(epoch: int) -> bool:
    """Whether nobody but the holder may write."""
    return epoch & (_HELD | _EXCLUSIVE) == _HELD | _EXCLUSIVE


def is_challenged(epoch: int) -> bool:
    """Whether the holder has been asked to show that it is alive, and has not answered yet."""
    return is_held(epoch) and sequence_of(epoch) % 2 == 1


def raised(epoch: int, step: int) -> int:
    """The free epoch whose grant is higher by `step`. With 0, the grant alone: two epochs of one grant give the same number."""
    return grant_of(epoch) + step << _GRANT_SHIFT


def granted(epoch: int, step: int, *, exclusive: bool) -> int:
    """The epoch of a lease that is taken after `epoch`."""
    return raised(epoch, step) | _HELD | (_EXCLUSIVE if exclusive else 0)


def challenged(epoch: int) -> int:
    """The epoch of a held lease after somebody asked its holder to answer; the same if somebody has asked already."""
    return epoch if is_challenged(epoch) else epoch + (1 << _SEQUENCE_SHIFT)


def answered(epoch: int) -> int:
    """The epoch after the holder has answered; the same if nobody has asked. Raises `OverflowError` at the end of the sequence: what is
    needed then is a new grant."""
    if not is_challenged(epoch):
        return epoch
    if sequence_of(epoch) == SEQUENCE_MAX:
        raise OverflowError("The sequence of this grant is used up.")
    return epoch + (1 << _SEQUENCE_SHIFT)
