"""Quotas: what passes, what is refused before anything is written, and when to try again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Event, op
from perdure.clock import SystemClock
from perdure.engine.write.quotas import Quotas
from perdure.errors import Invalid, QuotaExceeded
from tests.support.engine.bodies import text


class Clock(SystemClock):
    """A clock whose seconds are moved by the test."""

    seconds = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.seconds


async def test_commits_a_second(url: str) -> None:
    """A burst passes; the next commit is refused and says when; nothing of it is written; after that time it passes."""
    clock = Clock()
    async with perdure.open(url, clock=clock, quota_commits_per_second=2, quota_burst=3) as store:
        for _ in range(6):
            await store.append("trip", Event("x"))
        with pytest.raises(QuotaExceeded) as refused:
            await store.append("trip", Event("x"))
        error = refused.value
        assert (error.code, error.retryable, error.http_status) == ("quota_exceeded", True, 429)
        assert (error.tenant, error.quota) == ("default", "quota_commits_per_second")
        assert 0 < error.retry_after <= 0.5
        assert "try again in" in str(error)
        with pytest.raises(QuotaExceeded):
            async with store.edit("trip") as draft:
                draft.state["a"] = 1
        with pytest.raises(QuotaExceeded):
            await store.update("trip", lambda draft: draft.state.update(a=1))
        assert (await store.read("trip")).version == 6
        clock.seconds += error.retry_after + 0.001
        await store.append("trip", Event("x"))
        with pytest.raises(QuotaExceeded):
            await store.append("trip", Event("x"))
        clock.seconds += 1_000
        for _ in range(6):
            await store.append("trip", Event("x"))
        with pytest.raises(QuotaExceeded):
            await store.append("trip", Event("x"))


async def test_bytes_a_second(url: str) -> None:
    """A commit that is larger than a burst passes once, and what it took beyond has to flow in before the next one."""
    clock = Clock()
    async with perdure.open(url, clock=clock, quota_bytes_per_second=1_000, quota_burst=1) as store:
        size = len(store._core.codec.encode_events((Event("x", list(range(1_000, 1_300))),)))  # type: ignore[attr-defined]
        assert size < 1_000
        for _ in range(2):
            await store.append("trip", Event("x", list(range(1_000, 1_300))))
            clock.seconds += size / 1_000
        big = Event("x", text(10_000))
        size = len(store._core.codec.encode_events((big,)))  # type: ignore[attr-defined]
        assert size > 5_000
        await store.append("trip", big)
        with pytest.raises(QuotaExceeded) as refused:
            await store.append("trip", Event("x"))
        assert refused.value.quota == "quota_bytes_per_second"
        assert (size - 1_000) / 1_000 - 0.01 <= refused.value.retry_after <= size / 1_000
        clock.seconds += refused.value.retry_after + 0.001
        await store.append("trip", Event("x"))


async def test_each_tenant_has_its_own(url: str) -> None:
    """A tenant that has used up its quota stops nobody else; two store objects of one tenant and one `open` share it."""
    clock = Clock()
    async with perdure.open(url, clock=clock, quota_commits_per_second=1, quota_burst=1) as store:
        await store.append("trip", Event("x"))
        with pytest.raises(QuotaExceeded):
            await store.append("other", Event("x"))
        with pytest.raises(QuotaExceeded):
            await store.for_tenant("default").append("trip", Event("x"))
        await store.for_tenant("acme").append("trip", Event("x"))


async def test_what_is_not_counted(url: str) -> None:
    """Reading, tags, forks, deletion and purge pass, so that whoever is over a quota can clean up; an edit that changes nothing counts for
    nothing, and a call that was refused does not."""
    clock = Clock()
    async with perdure.open(url, clock=clock, quota_commits_per_second=1, quota_burst=2) as store:
        await store.append("trip", Event("x"))
        async with store.edit("trip"):
            pass
        with pytest.raises(Invalid):
            await store.append("trip", "no event")  # type: ignore[arg-type]
        await store.append("trip", Event("x"))
        for _ in range(50):
            with pytest.raises(QuotaExceeded) as refused:
                await store.append("trip", Event("x"))
        assert refused.value.retry_after <= 1
        await store.configure("trip", tags={"a": "b"})
        await store.fork("trip", id="fork")
        for session in ("fork", "trip"):
            await store.read(session)
            await store.delete(session)
            await store.purge(session)


async def test_lost_races_count_once(file_url: str) -> None:
    """Writers that lose races against one another use up what they write, not what they try."""
    async with perdure.open(file_url, quota_commits_per_second=0.001, quota_burst=20_000) as store, perdure.open(file_url) as other:

        async def edits(on: perdure.Store) -> None:
            for number in range(10):
                async with on.edit("trip") as draft:
                    draft.state[f"{id(on)}-{number}"] = number

        await asyncio.gather(edits(store), edits(other))
        for _ in range(10):
            await store.append("trip", Event("x"))
        with pytest.raises(QuotaExceeded):
            await store.append("trip", Event("x"))
        assert (await store.read("trip")).version == 30


def test_the_blocking_api(url: str) -> None:
    """The blocking API refuses the same, from threads too."""
    with perdure.sync.open(url, clock=Clock(), quota_commits_per_second=1, quota_burst=1) as store:
        store.append("trip", Event("x", None, (op.add("/n", 1),)))
        with pytest.raises(QuotaExceeded), store.edit("trip") as draft:
            draft.add("/n", 1)
        assert store.read("trip").state == {"n": 1}


def test_the_clock_may_stand_still() -> None:
    """A clock that stands, one that jumps far and one that goes back give no more than a burst."""
    now = [0.0]
    quotas = Quotas(lambda: now[0], 10, None, 2)
    for seconds in (0.0, 1e9, 1e9 - 50):
        if seconds >= now[0]:
            now[0] = seconds
            for _ in range(20):
                quotas.take("t", 1)
        now[0] = seconds
        with pytest.raises(QuotaExceeded):
            quotas.take("t", 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"quota_commits_per_second": 0},
        {"quota_commits_per_second": -1},
        {"quota_bytes_per_second": float("inf")},
        {"quota_bytes_per_second": float("nan")},
        {"quota_bytes_per_second": "10"},
        {"quota_burst": 0},
        {"quota_burst": 1e9},
    ],
)
async def test_bad_quotas(bad: dict[str, Any]) -> None:
    """A quota that is none is `Invalid`."""
    with pytest.raises(Invalid, match=next(iter(bad))):
        await perdure.open("memory:", **bad)
