"""Clocks that are wrong: a writer's neither ends a session that is used nor keeps one for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import perdure
from perdure import Event
from perdure.backends.memory import MemoryBackend
from perdure.ops import sweep
from tests.support.ops.backend_calls import store_on
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

WRONG = {
    "1970": datetime(1970, 1, 2, tzinfo=UTC),
    "2050": datetime(2050, 1, 1, tzinfo=UTC),
    "an hour late": datetime(2026, 11, 29, 11, tzinfo=UTC),
    "40 days late": datetime(2026, 10, 20, 12, tzinfo=UTC),
    "40 days early": datetime(2027, 1, 8, 12, tzinfo=UTC),
}


@pytest.mark.parametrize("start", WRONG.values(), ids=WRONG)
async def test_a_session_that_a_wrong_clock_uses_lives_and_then_ends(start: datetime) -> None:
    """Written to each day by a writer whose clock is wrong, and configured by it: it lives for a year, and ends within two months of the
    last write, not before 30 days after it by the sweeper's clock."""
    right, wrong = SimulatedClock(), SimulatedClock(start)
    backend = MemoryBackend(right)
    sweeper, writer = store_on(backend, right), store_on(backend, wrong)
    await writer.append("s", Event("start"))
    await writer.configure("s", expire_after=30 * DAY)
    for _ in range(365):
        await sweep(sweeper, once=True)
        await writer.append("s", Event("used"))
        for clock in (right, wrong):
            clock.advance(days=1)
    assert (await sweeper.read("s")).version > 365
    days = 1
    while ("s", "expired") not in await swept(sweeper):
        right.advance(days=1)
        days += 1
        assert days < 65
    if start not in (WRONG["40 days late"], WRONG["an hour late"]):
        assert days >= 30
    await sweeper.verify("s")


async def test_a_clock_that_steps_back_at_the_sweeper() -> None:
    """A sweeper whose clock was a year ahead once, and looked at a session then, does no harm to it when its clock is right again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await store.append("s", Event("start"))
        await store.configure("s", wake_every=DAY)
        clock.advance(days=365)
        assert await swept(store) == [("s", "woken")]
        clock.advance(days=-364)
        assert await swept(store) == []
        await store.configure("s", wake_every=None, expire_after=30 * DAY)
        clock.advance(days=200)
        assert await swept(store) == [("s", "looked")]
        clock.advance(days=-200)
        clock.advance(days=31)
        assert await swept(store) == []
        clock.advance(days=200)
        assert await swept(store) == [("s", "expired")]


async def test_months_without_a_sweeper() -> None:
    """Sessions that were used in the meantime are not ended for what nobody looked at; those that were not are."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        for name in ("idle", "used", "new"):
            await store.append(name, Event("start"))
            await store.configure(name, expire_after=30 * DAY)
        await swept(store)
        clock.advance(days=80)
        await store.append("used", Event("used"))
        await store.append("new", Event("used"))
        clock.advance(days=20)
        await store.append("new", Event("used"))
        assert await swept(store) == [("idle", "expired"), ("new", "looked"), ("used", "looked")]
        clock.advance(days=11)
        assert await swept(store) == [("idle", "purged"), ("used", "expired")]
        clock.advance(days=20)
        assert await swept(store) == [("new", "expired"), ("used", "purged")]


async def test_expiry_and_alarms_in_one_session() -> None:
    """Alarms do not count as use; one that is due before the session ends goes off first; one that comes after it does not."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await store.append("s", Event("start"))
        await store.configure("s", expire_after=5 * DAY, wake_every=timedelta(hours=12))
        done: list[str] = []
        for _ in range(20):
            done += [action for _, action in await swept(store)]
            clock.advance(hours=12, minutes=1)
            if "expired" in done:
                break
        assert done.count("expired") == 1
        assert 8 <= done.count("woken") <= 11
        await store.append("t", Event("start"))
        await store.configure("t", expire_after=5 * DAY, wake_every=timedelta(hours=12))
        await swept(store)
        seen: list[tuple[str, str]] = []
        for _ in range(4):  # A sweeper that comes every third day always finds an alarm due: the end is not put off for ever.
            clock.advance(days=3)
            seen += await swept(store)
        assert ("t", "expired") in seen
