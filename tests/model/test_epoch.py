"""The epoch's four parts: what a grant, a challenge and an answer do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.model import epoch as ep

EPOCHS = st.integers(0, (1 << 62) - 1)
STEPS = st.integers(1, 1 << ep.GRANT_STEP_BITS)


@given(EPOCHS, STEPS, st.booleans())
def test_what_was_granted_before_never_fits_a_later_grant(before, step, exclusive):
    """A take raises the grant, starts the sequence at 0, and is held; a release raises the grant again, and is free."""
    taken = ep.granted(before, step, exclusive=exclusive)
    assert ep.grant_of(taken) > ep.grant_of(before)
    assert (ep.sequence_of(taken), ep.is_held(taken), ep.is_exclusive(taken)) == (0, True, exclusive)
    free = ep.raised(taken, step)
    assert ep.grant_of(free) > ep.grant_of(taken)
    assert not ep.is_held(free)
    assert not ep.is_exclusive(free)


@given(STEPS, st.booleans(), st.integers(1, 50))
def test_challenges_and_answers_take_turns_and_keep_the_grant(step, exclusive, rounds):
    """Any number of challenges is one; an answer ends it; neither touches the grant or the flags."""
    taken = now = ep.granted(0, step, exclusive=exclusive)
    for _ in range(rounds):
        asked = ep.challenged(now)
        assert ep.is_challenged(asked)
        assert ep.challenged(asked) == asked
        now = ep.answered(asked)
        assert not ep.is_challenged(now)
        assert ep.answered(now) == now
    assert (ep.grant_of(now), ep.is_exclusive(now)) == (ep.grant_of(taken), exclusive)
    assert ep.sequence_of(now) == 2 * rounds


def test_the_sequence_does_not_wrap():
    """An answer at the sequence's end is refused: an epoch that was seen before would come again."""
    now = ep.granted(0, 1, exclusive=True)
    for _ in range(ep.SEQUENCE_MAX // 2):
        now = ep.answered(ep.challenged(now))
    last = ep.challenged(now)
    assert ep.sequence_of(last) == ep.SEQUENCE_MAX
    with pytest.raises(OverflowError):
        ep.answered(last)
    assert ep.grant_of(last) == 1
