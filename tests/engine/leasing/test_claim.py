"""Work pools: each session that is due goes to one worker at a time, and its alarm is used up by work that was done."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Event, Store
from perdure.ops import sweep
from tests.support.ops.simulated_clock import SimulatedClock

HOUR = timedelta(hours=1)


async def due(store: Store, clock: SimulatedClock, *names: str, **policy: Any) -> None:
    """Sessions whose alarm goes off in an hour, and that hour."""
    for name in names:
        await store.append(name, Event("start"))
        await store.configure(name, wake_at=clock.time + HOUR, wake="claim", **policy)
    clock.advance(hours=1, seconds=1)


async def claimed(store: Store, owner: str = "w", **options: Any) -> list[str]:
    return [lease.session async for lease in store.claim(owner=owner, **options)]


async def failing(store: Store) -> None:
    async with aclosing(store.claim(owner="w")) as leases:
        async for _ in leases:
            raise ZeroDivisionError


async def types(store: Store, name: str) -> list[str]:
    return [event.type async for commit in store.history(name, control=True) for event in commit.events]


async def test_what_is_due_is_handed_out_once() -> None:
    """Before its time nothing comes; then each session once, the one first that was due first; then nothing. Sweepers leave it alone."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await due(store, clock, "b")
        await due(store, clock, "a")
        await store.append("c", Event("start"))
        await store.configure("c", wake_at=clock.time + HOUR, wake="claim")
        await sweep(store, once=True)
        assert await claimed(store) == ["b", "a"]
        assert await claimed(store) == []
        assert await types(store, "a") == ["start", "configured", "leased", "woken", "released", "handled"]
        assert (await store.policy("a")) == perdure.Policy()
        clock.advance(hours=2)
        assert await claimed(store, prefix="x") == []
        assert await claimed(store) == ["c"]


async def test_an_alarm_that_repeats_says_what_was_missed() -> None:
    """After a day an hourly alarm goes off once, with the count; the next one is due within the hour."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await due(store, clock, "s", wake_every=HOUR)
        clock.advance(days=1)
        assert await claimed(store) == ["s"]
        woken = [event async for commit in store.history("s") for event in commit.events if event.type == "woken"]
        assert [event.data["missed"] for event in woken] == [24]
        assert await claimed(store) == []
        clock.advance(hours=1)
        assert await claimed(store) == ["s"]


async def test_work_that_failed_is_due_still(tmp_path: Path) -> None:
    """A body that raises, or breaks, leaves the session due and free; a body that has released it has done it."""
    clock = SimulatedClock()
    async with perdure.open(f"sqlite:///{tmp_path}/s.db", clock=clock) as store:
        await due(store, clock, "s")
        with pytest.raises(ZeroDivisionError):
            await failing(store)
        async with aclosing(store.claim(owner="w")) as leases:
            async for _ in leases:
                break
        async with aclosing(store.claim(owner="w")) as leases:
            async for lease in leases:
                await store.append("s", Event("done"), lease=lease)
                await lease.release()
                break
        assert await claimed(store) == []
        assert (await types(store, "s")).count("woken") == 3
        assert [info.session async for info in store.leases()] == []


async def test_a_dead_worker_is_followed(tmp_path: Path) -> None:
    """The session of a worker that died stays due. The next one that looks challenges the lease, and takes it after its ttl."""
    clock, url = SimulatedClock(), f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock) as store:
        await due(store, clock, "s")
        worker = await perdure.open(url, clock=clock)
        leases = worker.claim(owner="dead", ttl=30)
        dead = await anext(leases)
        await worker.close()  # As after a kill: nothing is released.
        await leases.aclose()
        assert await claimed(store) == []
        assert "challenged" in await types(store, "s")
        clock.advance(seconds=10)
        assert await claimed(store) == []
        clock.advance(seconds=31)
        assert await claimed(store) == ["s"]
        assert (await types(store, "s")).count("woken") == 2
        assert (await types(store, "s")).count("challenged") == 1
        assert dead.lost.is_set()


async def test_each_session_goes_to_one_worker(tmp_path: Path) -> None:
    """Four workers in two store objects share forty sessions, and each session is worked on once."""
    clock, url = SimulatedClock(), f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock) as store, perdure.open(url, clock=clock) as other:
        names = [f"s{number:02}" for number in range(40)]
        await due(store, clock, *names)

        async def work(store: Store, owner: str) -> list[str]:
            done = []
            async for lease in store.claim(owner=owner):
                await store.append(lease.session, Event("done"), lease=lease)
                done.append(lease.session)
            return done

        done = await asyncio.gather(*[work(each, f"w{place}") for place, each in enumerate([store, other, store, other])])
        assert sorted(name for part in done for name in part) == names


async def test_an_alarm_that_was_set_meanwhile_stays() -> None:
    """A worker that sets the next alarm itself, or one that is removed, is not overruled by the release."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await due(store, clock, "later", "never", wake_every=HOUR)
        async for lease in store.claim(owner="w"):
            at = clock.time + timedelta(days=3) if lease.session == "later" else None
            await store.configure(lease.session, wake_at=at, wake_every=None, lease=lease)
        assert (await store.policy("later")).wake_at is not None
        assert (await store.policy("never")).wake_at is None
        clock.advance(days=2)
        assert await claimed(store) == []
        clock.advance(days=2)
        assert await claimed(store) == ["later"]


async def test_an_archived_session_wakes_for_its_worker(tmp_path: Path) -> None:
    """A session that sleeps in the archive is live again when its alarm is claimed."""
    clock = SimulatedClock()
    async with perdure.open(f"sqlite:///{tmp_path}/s.db", archive=f"file://{tmp_path}/archive", clock=clock) as store:
        await due(store, clock, "s")
        await store.archive("s")
        assert await claimed(store) == ["s"]
        assert await store.append("s", Event("on")) is not None
        await store.verify("s")


def test_blocking_workers_claim_too(tmp_path: Path) -> None:
    """The blocking API hands out its own leases, which its calls take."""
    clock = SimulatedClock()
    with perdure.sync.open(f"sqlite:///{tmp_path}/s.db", clock=clock) as store:
        store.append("s", Event("start"))
        store.configure("s", wake_at=clock.time, wake="claim")
        for lease in store.claim(owner="w", limit=1):
            store.append(lease.session, Event("done"), lease=lease)
        assert list(store.claim(owner="w")) == []


REFUSED: list[dict[str, Any]] = [
    {"owner": ""},
    {"ttl": 0.1},
    {"ttl": float("nan")},
    {"limit": 0},
    {"limit": -1},
    {"prefix": 5},
    {"tags": 5},
    {"exclusive": 1},
]


@pytest.mark.parametrize("options", REFUSED)
async def test_bad_input_is_named(options: dict[str, Any]) -> None:
    """What makes no sense is refused before anything is looked at."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid):
            _ = [lease async for lease in store.claim(**{"owner": "w", **options})]
