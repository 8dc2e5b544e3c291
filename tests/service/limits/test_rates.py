"""Rates: a burst, then so many a second, whatever the units are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.service.limits.rates import Rate


def take(rate: Rate[str], now: float, units: float = 1, key: str = "acme") -> bool:
    """Take them if that is allowed; whether it was."""
    if rate.wait(key, units, now) > 0:
        return False
    rate.take(key, units, now)
    return True


def test_a_burst_and_then_the_rate() -> None:
    """Ten at once, then one each tenth of a second; after a pause ten again."""
    rate = Rate[str](10, 10)
    assert [take(rate, 100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert rate.wait("acme", 1, 100.0) == pytest.approx(0.1) and rate.left("acme", 100.0) == 0
    assert take(rate, 100.1001) and not take(rate, 100.1001)
    assert [take(rate, 200.0) for _ in range(11)] == [True] * 10 + [False]


def test_keys_do_not_share() -> None:
    """What one has taken is no one else's loss."""
    rate = Rate[str](1, 1)
    assert take(rate, 0.0, key="a") and take(rate, 0.0, key="b") and not take(rate, 0.0, key="a")


def test_more_than_a_burst_is_let_through_once_and_paid_for() -> None:
    """A body of forty bursts needs a full burst, and then nothing passes for forty seconds."""
    rate = Rate[str](100, 100)
    assert take(rate, 0.0, 1) and not take(rate, 0.0, 4_000)
    assert take(rate, 1.0, 4_000)
    assert not take(rate, 39.9) and take(rate, 41.1)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=60), st.integers(1, 40), st.integers(1, 40))
def test_in_any_time_no_more_passes_than_the_rate_and_one_burst(steps: list[tuple[float, int]], per_second: int, burst: int) -> None:
    """From each moment to each later one: at most rate × time + burst, where nobody asks for more than a burst at once. And who waits as
    long as is said gets through."""
    rate, now, passed = Rate[str](per_second, burst), 0.0, []
    for pause, units in steps:
        now += pause
        wanted = min(units, burst)
        wait = rate.wait("acme", wanted, now)
        if wait == 0:
            rate.take("acme", wanted, now)
            passed.append((now, wanted))
        else:
            assert rate.wait("acme", wanted, now + wait + 1e-6) == 0
    for first in range(len(passed)):
        total = 0
        for when, units in passed[first:]:
            total += units
            assert total <= per_second * (when - passed[first][0]) + burst + 1e-6
