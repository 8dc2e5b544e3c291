"""What follows from a policy and two looks, whatever the numbers are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perdure.model.control import NOTHING_SET, Control
from perdure.model.lifecycle import (
    DURATION_MAX,
    DURATION_MIN,
    YEAR,
    Look,
    Policy,
    first_due,
    is_idle_for,
    look_of,
    looked,
    next_due,
    policy_of,
    policy_sections,
    with_look,
    woken,
)
from perdure.model.record import Head

TIMES = st.integers(0, (1 << 62) - 1)
DURATIONS = st.integers(DURATION_MIN, DURATION_MAX)
VERSIONS = st.integers(1, 9)


def head(data: int, at: int) -> Head:
    return Head(data, bytes(32), at, 0, 0, data)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    maybe = st.none() | DURATIONS
    return Policy(
        expire_after=draw(maybe),
        wake_at=draw(st.none() | TIMES),
        wake_every=draw(maybe),
        keep_for=draw(maybe),
        keep_commits=draw(st.none() | st.integers(1, 10**9)),
        drop=True,
    )


@given(policies(), TIMES)
def test_a_policy_comes_back_from_its_cell(policy: Policy, now: int) -> None:
    """It is the same after it was stored, with a look beside it; one by which nothing happens leaves nothing."""
    stored = Control({name: value for name, value in policy_sections(policy).items() if value is not None})
    assert policy_of(stored) == (None if policy.says_nothing else policy)
    look = Look(1, 2, 3, now)
    assert look_of(with_look(stored, look)) == look
    assert policy_of(with_look(stored, look)) == policy_of(stored)
    assert look_of(NOTHING_SET) is None


@given(policies(), TIMES)
def test_the_first_look_is_at_once_whatever_the_clock_says(policy: Policy, now: int) -> None:
    """A session that has to be looked at is due in the year 1970, and so before any sweeper's clock."""
    due_at = first_due(policy, now)
    if policy.needs_looks:
        assert due_at is not None and due_at < YEAR
    else:
        assert due_at == policy.wake_at


@given(DURATIONS, VERSIONS, VERSIONS, TIMES, TIMES, TIMES)
def test_two_looks_decide_that_a_session_is_idle(duration: int, before: int, data: int, at: int, first: int, later: int) -> None:
    """It is idle for so long only if two looks saw the same data version, so far apart by the sweeper's clock: no commit's time decides."""
    then = looked(None, head(before, at), first)
    assert (then.since, then.at) == (first, first)
    assert is_idle_for(duration, then, head(data, at), later) == (before == data and first + duration <= later)
    now = looked(then, head(data, at), later)
    assert now.since <= max(later, first)
    if before != data:
        assert now.since == (at if first < at <= later else later)


@given(policies(), VERSIONS, VERSIONS, TIMES, TIMES, st.integers(0, 1 << 60))
def test_a_look_is_followed_by_another(policy: Policy, before: int, data: int, at: int, first: int, after: int) -> None:
    """What needs looks is due again, by `expire_after` at the latest; what was used since the last look is not due at once for its end."""
    then = looked(None, head(before, at), first)
    now = looked(then, head(data, at), first + after)
    due_at = next_due(policy, then, now)
    if policy.says_nothing:
        assert due_at is None
    elif policy.expire_after is not None:
        assert due_at is not None and due_at <= max(now.at + policy.expire_after, now.since + policy.expire_after)
        only = Policy(expire_after=policy.expire_after)
        if before != data:
            assert (next_due(only, then, now) or 0) > now.at


@given(TIMES, st.none() | DURATIONS, TIMES)
def test_an_alarm_goes_off_once_and_then_later(due: int, every: int | None, now: int) -> None:
    """Not before its time; afterwards the next one lies after now, by a whole number of periods."""
    found = woken(Policy(wake_at=due, wake_every=every), now)
    if due > now:
        assert found is None
        return
    assert found is not None and found.due == due
    following = found.policy.wake_at
    if every is None:
        assert (following, found.missed) == (None, 0)
    else:
        assert following is not None and now < following <= now + every
        assert following == due + (found.missed + 1) * every
    assert woken(found.policy, now) is None
