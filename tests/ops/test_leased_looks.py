"""Leases and the sweeper's looks: a lease is no use of a session, so whoever takes one, what a sweeper saw before counts on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import perdure
from perdure import Event, op
from perdure.model.control import decode_control
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import Look, look_of
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock


async def look(store: perdure.Store, session: str = "s") -> Look | None:
    """What the index row says that a sweeper saw."""
    loaded = await store._core.backend.load(SessionKey("default", session))
    return None if loaded is None else look_of(decode_control(loaded.row.control))


async def test_leases_do_not_put_off_the_end_of_an_idle_session(tmp_path: Path) -> None:
    """A session that is leased now and then, by a worker that knew it before the sweeper looked, expires when nobody has written to it for
    so long."""
    clock, url = SimulatedClock(), f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock) as sweeper, perdure.open(url, clock=clock) as worker:
        await worker.append("s", Event("start"))
        await worker.configure("s", expire_after=30 * DAY)
        await worker.read("s")  # It is in the worker's memory as it was before the look.
        assert await swept(sweeper) == [("s", "looked")]
        before = await look(sweeper)
        assert before is not None
        for _ in range(3):
            clock.advance(days=9)
            async with worker.lease("s", owner="w", wait=0) as lease:
                assert await look(sweeper) == before
                await lease.confirm()
            assert await look(sweeper) == before
            await swept(sweeper)
        clock.advance(days=4)
        assert await swept(sweeper) == [("s", "expired")]


async def test_a_dead_holder_does_not_put_off_the_end(tmp_path: Path) -> None:
    """The sweeper that takes the lease from a dead worker keeps what it saw: the session expires then, and not after another month."""
    clock, url = SimulatedClock(), f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock) as sweeper:
        worker = await perdure.open(url, clock=clock)
        await sweeper.append("s", Event("start"))
        await sweeper.configure("s", expire_after=30 * DAY)
        await sweeper.read("s")
        await swept(sweeper)
        await worker.lease("s", owner="w", ttl=60, wait=0).__aenter__()
        await worker.close()  # A lease that was not released stays held, as after a kill.
        clock.advance(days=31)
        found = []
        for _ in range(6):
            found += await swept(sweeper)
            clock.advance(minutes=6)
        assert found.count(("s", "held")) == 2, "It was asked, and then it lost the lease."
        assert ("s", "expired") in found


async def test_an_anchor_keeps_what_was_seen(tmp_path: Path) -> None:
    """A session that is compacted by a process which knew it before the sweeper looked expires in time too."""
    clock, url, archive = SimulatedClock(), f"sqlite:///{tmp_path}/s.db", f"file://{tmp_path}/archive"
    async with perdure.open(url, clock=clock) as sweeper, perdure.open(url, clock=clock, archive=archive) as other:
        for number in range(20):
            await other.append("s", Event("n", number, (op.set("/n", number),)))
        await other.configure("s", expire_after=30 * DAY)
        await other.read("s")
        await swept(sweeper)
        before = await look(sweeper)
        clock.advance(days=20)
        await other.compact("s", keep=5)
        await other.compact("s", keep=3, drop=True)
        assert await look(sweeper) == before
        clock.advance(days=11)
        assert await swept(sweeper) == [("s", "expired")]


async def test_an_alarm_for_workers_keeps_what_was_seen(tmp_path: Path) -> None:
    """A claim, and the release after it that sets the next alarm, keep what was seen: the session expires though it is claimed daily."""
    clock, url = SimulatedClock(), f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock) as sweeper, perdure.open(url, clock=clock) as worker:
        await worker.append("s", Event("start"))
        await worker.configure("s", expire_after=10 * DAY, wake_every=DAY, wake="claim")
        await worker.read("s")
        await swept(sweeper)
        for _ in range(9):
            clock.advance(days=1, minutes=1)
            assert [lease.session async for lease in worker.claim(owner="w")] == ["s"]
            await swept(sweeper)
        clock.advance(days=2)
        assert await swept(sweeper) == [("s", "expired")]


async def test_a_new_policy_begins_anew(tmp_path: Path) -> None:
    """What was seen under one policy is not kept for the next: whoever configures the session says from when its time counts."""
    clock, url = SimulatedClock(), f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock) as sweeper, perdure.open(url, clock=clock) as other:
        await other.append("s", Event("start"))
        await other.configure("s", expire_after=30 * DAY)
        await swept(sweeper)
        clock.advance(days=20)
        await other.configure("s", expire_after=timedelta(days=15))
        assert await look(sweeper) is None
        assert await swept(sweeper) == [("s", "looked")]
