"""The sweeper itself: what it takes, how it goes on, what it counts, what it leaves alone."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Event
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Index, indexed
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.model.epoch import grant_of, granted, raised
from perdure.model.ids import SessionKey
from perdure.model.lease import LeaseSection, leased, released
from perdure.ops import Action, due, sweep, sweep_blocking
from tests.backends.test_old_engine import OldEngine
from tests.support.ops.backend_calls import CountedCalls, store_on
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - that is what is refused
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "nothing to configure"),
    "zero": ({"expire_after": 0}, "from 1 second to 100 years"),
    "negative": ({"expire_after": timedelta(days=-1)}, "expire_after takes"),
    "infinite": ({"expire_after": float("inf")}, "expire_after takes"),
    "no number": ({"wake_every": float("nan")}, "wake_every takes"),
    "absurd": ({"grace": timedelta.max, "expire_after": 5}, "grace takes"),
    "huge": ({"expire_after": 10**400}, "expire_after takes"),
    "huger": ({"keep": 10**5000, "drop": True}, "so large a number"),
    "a string": ({"expire_after": "30d"}, "expire_after takes"),
    "true": ({"expire_after": True}, "expire_after takes"),
    "naive": ({"wake_at": NAIVE}, "aware datetime"),
    "a number as a time": ({"wake_at": 5}, "aware datetime"),
    "too late": ({"wake_at": datetime(2900, 1, 1, tzinfo=UTC)}, "1970 to 2262"),
    "too early": ({"wake_at": datetime(1960, 1, 1, tzinfo=UTC)}, "1970 to 2262"),
    "nobody wakes": ({"wake": "claim"}, "needs wake_at or wake_every"),
    "who wakes": ({"wake_every": 60, "wake": "cron"}, "'sweep'"),
    "keep nothing": ({"keep": 0, "drop": True}, "keep takes 1 to"),
    "keep a part": ({"keep": 1.5, "drop": True}, "number of commits"),
    "keep no time": ({"keep": timedelta(0), "drop": True}, "keep takes"),
    "keep true": ({"keep": True, "drop": True}, "number of commits"),
    "drop alone": ({"drop": True}, "needs keep"),
    "drop text": ({"keep": 5, "drop": "yes"}, "true or false"),
    "grace alone": ({"grace": 60}, "needs expire_after"),
    "prefix and session": ({"prefix": "a", "expire_after": 60}, "not both"),
    "tags of another kind": ({"tags": 7, "expire_after": 60}, "tags must be"),
}
UNSUPPORTED = {"archive_after": {"archive_after": DAY}, "keep": {"keep": 100}, "keep for": {"keep": DAY, "drop": False}}


@pytest.mark.parametrize("name", REFUSED)
async def test_policies_that_make_no_sense(name: str) -> None:
    """Each is `Invalid`, says what is taken, and changes nothing."""
    options, words = REFUSED[name]
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start"))
        with pytest.raises(perdure.Invalid, match=words):
            await store.configure("s", **options)
        assert (await store.read("s")).version == 1


@pytest.mark.parametrize("name", UNSUPPORTED)
async def test_what_needs_an_archive(name: str) -> None:
    """It is `Unsupported` where the store was opened without one, and says how to open it."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start"))
        with pytest.raises(perdure.Unsupported, match="archive="):
            await store.configure("s", **UNSUPPORTED[name])
        assert (await store.read("s")).version == 1


async def test_policies_of_prefixes_that_make_no_sense() -> None:
    """Tags and a single alarm belong to a session; a prefix is as long as it can be stored, and no session is made by a refusal."""
    async with perdure.open("memory:") as store:
        for options in ({"tags": {"a": "b"}}, {"wake_at": datetime.now(UTC)}):
            with pytest.raises(perdure.Invalid, match="a session's own"):
                await store.configure(prefix="a", **options)
        for prefix, words in (("x" * 249, "248 bytes"), (7, "must be a string"), ("a\n", "control")):
            with pytest.raises(perdure.Invalid, match=words):
                await store.configure(prefix=prefix, expire_after=60)
        with pytest.raises(perdure.Invalid, match="in its place"):
            await store.configure(expire_after=60)
        with pytest.raises(perdure.Invalid, match="in its place"):
            await store.policy()
        await store.configure(prefix="", expire_after=60)
        await store.append("any", Event("start"))
        assert (await store.policy("any")).expire_after == timedelta(seconds=60)


async def test_what_is_left_out_stays_and_none_removes() -> None:
    """A policy is changed part by part; a part whose condition goes, goes with it."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await store.append("s", Event("start"))
        await store.configure("s", expire_after=30 * DAY, grace=DAY, wake_every=60, wake="claim", keep=5, drop=True, tags={"a": "b"})
        await store.configure("s", expire_after=60.5)
        policy = await store.policy("s")
        assert (policy.expire_after, policy.grace, policy.wake, policy.keep) == (timedelta(seconds=60.5), DAY, "claim", 5)
        await store.configure("s", keep=DAY)
        assert (await store.policy("s")).keep == DAY
        await store.configure("s", expire_after=None, wake_every=None, keep=None)
        assert await store.policy("s") == perdure.Policy()
        assert (await store.read("s")).tags == {"a": "b"}
        assert [found async for found in due(store)] == []
        await store.configure("s", tags=None)
        assert (await store.read("s")).tags == {}
        await store.configure("s", wake_at=clock.time - DAY)
        assert await swept(store) == [("s", "woken")]
        await store.configure("s", wake_at=clock.time + DAY)
        await store.configure("s", wake_every=60, wake_at=clock.time + 2 * DAY)
        assert (await store.policy("s")).wake_at > clock.time + DAY
        await store.configure("s", wake_at=None, wake_every=None)
        assert await store.policy("s") == perdure.Policy()


async def test_a_dead_holder_does_not_keep_a_session(tmp_path: Path) -> None:
    """The sweeper asks the holder. A dead worker never answers, so it loses the lease and the session expires; a live one keeps it."""
    clock, url = SimulatedClock(), f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock) as store:
        worker = await perdure.open(url, clock=clock)
        for name in ("dead", "alive"):
            await store.append(name, Event("start"))
            await store.configure(name, expire_after=DAY)
        await worker.lease("dead", owner="w", ttl=60, wait=0).__aenter__()
        await worker.close()  # A lease that was not released stays held, as after a kill.
        async with store.lease("alive", owner="v", ttl=60, wait=0) as lease:
            found = []
            for _ in range(8):
                found += await swept(store)
                await lease.confirm()
                clock.advance(days=1)
            assert ("dead", "expired") in found
            assert ("alive", "held") in found
            assert ("alive", "expired") not in found
            await store.append("alive", Event("under"), lease=lease)
        with pytest.raises(perdure.Deleted):
            await store.read("dead")


async def test_a_session_that_is_leased_is_left_alone() -> None:
    """While a lease is held it does not expire, and while it is exclusive nothing is done to it; afterwards it is."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        for name in ("held", "exclusive"):
            await store.append(name, Event("start"))
            await store.configure(name, expire_after=DAY, wake_at=clock.time + timedelta(hours=1))
        await swept(store)
        clock.advance(days=2)
        await swept(store)
        clock.advance(days=2)
        await lease(store, "held", exclusive=False)
        await lease(store, "exclusive", exclusive=True)
        await store.configure("held", wake_at=clock.time)
        await swept(store)
        clock.advance(days=2)
        assert await swept(store) == [("exclusive", "held"), ("held", "held")]
        assert await swept(store) == []
        await lease(store, "held", exclusive=None)
        await lease(store, "exclusive", exclusive=None)
        clock.advance(minutes=6)
        assert await swept(store) == [("exclusive", "expired"), ("held", "expired")]


async def lease(store: perdure.Store, session: str, *, exclusive: bool | None) -> None:
    """Take a lease, or release it with `None`, as one commit."""

    def decide(basis: Basis) -> ControlChange:
        grant = grant_of(basis.head.epoch) + 1
        section = LeaseSection("worker", 30.0, 0, "1", grant)
        event = released(basis.life, grant) if exclusive is None else leased(section, basis.life)

        def epoch(before: int) -> int:
            return raised(before, 1) if exclusive is None else granted(before, 1, exclusive=exclusive)

        return ControlChange((ControlCommit(kind=perdure.Kind.lease, event=event, epoch=epoch),))

    await store._core.controls.change(SessionKey("default", session), decide, durability=store._core.durability)


async def test_a_dry_run_changes_nothing() -> None:
    """It names what would be done, and the store has the same rows afterwards."""
    clock = SimulatedClock()
    backend = MemoryBackend(clock)
    store = store_on(backend, clock)
    for name in ("expire", "wake"):
        await store.append(name, Event("start"))
    for _ in range(9):
        await store.append("keep", Event("more"))
    await store.configure("expire", expire_after=DAY)
    await swept(store)
    clock.advance(days=2)
    await store.configure("wake", wake_at=clock.time)
    await store.configure("keep", keep=2, drop=True)
    await store.configure(prefix="p", expire_after=DAY)
    calls = CountedCalls(backend)
    actions: list[Action] = []
    await sweep(store_on(calls, clock), dry_run=True, existing=True, notify=actions.append)
    assert {(action.session, action.action) for action in actions} == {
        ("p*", "applied"),
        ("expire", "expired"),
        ("wake", "woken"),
        ("keep", "trimmed"),
        ("prefix:p", "looked"),
    }
    assert not {"append", "change_index", "put_snapshot", "truncate", "purge"} & {*calls.names}


async def test_what_is_wrong_with_one_session_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A control cell that is damaged is logged, counted, and left alone for five minutes; the others get what they are due."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        for name in ("bad", "good"):
            await store.append(name, Event("start"))
            await store.configure(name, wake_at=clock.time)
        backend = indexed(store._core.backend)
        loaded = await store._core.backend.load(SessionKey("default", "bad"))
        assert backend is not None and loaded is not None
        assert await backend.change_index(loaded.row, Index(control=b"\xc1"))
        with caplog.at_level(logging.WARNING):
            assert await swept(store) == [("bad", "failed"), ("good", "woken")]
        assert "bad" in caplog.text
        assert await swept(store) == []


async def test_it_goes_on_until_it_is_cancelled() -> None:
    """Without `once` it sweeps again and again, while an engine that is away only makes it slower."""
    clock = SimulatedClock(running=True)
    backend = MemoryBackend(clock)
    store = store_on(backend, clock)
    await store.append("s", Event("start"))
    await store.configure("s", wake_every=1)
    clock.advance(seconds=2)
    rounds: list[Action] = []
    enough = asyncio.Event()
    away = iter([True, True, False])

    async def scan(*arguments: Any, **options: Any) -> Any:
        if next(away, False):
            raise perdure.Unavailable("The engine is away.")
        clock.advance(seconds=2)
        return await backend.scan(*arguments, **options)

    calls = CountedCalls(backend)
    calls.scan = scan  # type: ignore[attr-defined]

    def notify(action: Action) -> None:
        rounds.append(action)
        if len(rounds) == 3:
            enough.set()

    task = asyncio.create_task(sweep(store_on(calls, clock), every=0.1, notify=notify))
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {action.action for action in rounds} == {"woken"}


async def test_an_engine_that_is_away_is_raised_once() -> None:
    """A single round says that it could not be done."""
    clock = SimulatedClock()
    calls = CountedCalls(MemoryBackend(clock))

    async def scan(*arguments: Any, **options: Any) -> Any:
        raise perdure.Unavailable("The engine is away.")

    calls.scan = scan  # type: ignore[attr-defined]
    with pytest.raises(perdure.Unavailable):
        await sweep(store_on(calls, clock), once=True)


async def test_arguments_that_make_no_sense() -> None:
    """`every` out of range, the wrong kind of store, a closed one: each is refused."""
    async with perdure.open("memory:") as store:
        for every in (0, -1, float("inf"), float("nan"), 10**6, True, "30"):
            with pytest.raises(perdure.Invalid, match="every takes"):
                await sweep(store, every=every, once=True)
        with perdure.sync.open("memory:") as blocking:
            with pytest.raises(perdure.Invalid, match="asynchronous"):
                await sweep(blocking, once=True)  # type: ignore[arg-type]
            with pytest.raises(perdure.Invalid, match="event loop"):
                sweep_blocking(blocking, once=True)
        with pytest.raises(perdure.Invalid, match="aware datetime"):
            [found async for found in due(store, before=NAIVE)]
    with pytest.raises(perdure.Closed):
        await sweep(store, once=True)


def test_the_blocking_form() -> None:
    """It does the same in a thread without a loop."""
    clock = SimulatedClock()
    with perdure.sync.open("memory:", clock=clock) as store:
        store.append("s", Event("start"))
        store.configure("s", wake_at=clock.time)
        assert sweep_blocking(store, once=True).woken == 1
        assert store.policy("s") == perdure.Policy()
        with pytest.raises(perdure.Invalid, match=r"perdure\.sync"):
            sweep_blocking(store.asynchronous, once=True)  # type: ignore[arg-type]


async def test_an_engine_without_the_order_due() -> None:
    """Policies, their sweeper and the listing are `Unsupported`; tags, and what begins a session, go on as before."""
    clock = SimulatedClock()
    store = store_on(OldEngine(clock), clock)
    await store.append("s", Event("start"))
    await store.configure("s", tags={"a": "b"})
    for call in (store.configure("s", expire_after=60), store.configure(prefix="s", expire_after=60), sweep(store, once=True)):
        with pytest.raises(perdure.Unsupported):
            await call
    with pytest.raises(perdure.Unsupported):
        [found async for found in due(store)]
    assert await store.policy("s") == perdure.Policy()


async def test_work_grows_with_what_is_due() -> None:
    """Among a thousand sessions of which ten are due, a round asks as often as among ten."""
    counts = []
    for many in (10, 1000):
        clock = SimulatedClock()
        backend = MemoryBackend(clock)
        store = store_on(backend, clock)
        for number in range(many):
            await store.append(f"s{number}", Event("start"))
            if number % (many // 10) == 0:
                await store.configure(f"s{number}", wake_at=clock.time)
            else:
                await store.configure(f"s{number}", wake_at=clock.time + 300 * DAY)
        clock.advance(minutes=1)
        calls = CountedCalls(backend)
        done = await sweep(store_on(calls, clock), once=True)
        assert done.woken == 10
        counts.append(calls.count)
    assert counts[0] == counts[1]


METERED = """
import asyncio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))

import perdure
from perdure import Event
from perdure.ops import sweep
from tests.support.ops.simulated_clock import SimulatedClock

async def main():
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        for name in ("a", "b"):
            await store.append(name, Event("start"))
            await store.configure(name, wake_at=clock.time)
        clock.advance(minutes=2)
        await sweep(store, once=True)
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [(dict(point.attributes), point.value) for point in metric.data.data_points if hasattr(point, "value")]
    assert found["perdure.swept"] == [({"action": "woken"}, 2)], found
    assert found["perdure.sweep.due"] == [({}, 2)], found
    assert 119 < found["perdure.sweep.overdue"][0][1] < 121, found

asyncio.run(main())
"""


def test_what_was_swept_is_metered() -> None:
    """With an SDK, actions are counted, and how much was due and for how long."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}/src{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", METERED], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


async def test_bodies_out_of_line_go_with_their_commits(tmp_path: Path) -> None:
    """What a session does not keep leaves no object; a sweeper that opened the store without the place removes nothing."""
    clock, place = SimulatedClock(), tmp_path / "blobs"
    async with perdure.open("memory:", clock=clock, blobs=f"file://{place}", blob_bytes=1024) as store:
        for number in range(12):
            await store.append("s", Event("large", {"numbers": [number + step**3 for step in range(600)]}))
        await store.configure("s", keep=4, drop=True)
        assert len(bodies(place)) == 12
        without = store_on(store._core.backend, clock)
        assert await swept(without) == [("s", "failed")]
        assert len(bodies(place)) == 12
        clock.advance(minutes=11)
        assert await swept(store) == [("s", "trimmed")]
        assert len(bodies(place)) == 3
        left = [event.data async for commit in store.history("s", after=9) for event in commit.events if event.type == "large"]
        assert len(left) == 3
        await store.verify("s")


def bodies(place: Path) -> list[Path]:
    """The objects of bodies."""
    return [path for path in (place / "blobs").rglob("*") if path.is_file()]


async def test_an_age_is_kept_again_and_again() -> None:
    """Commits that were dropped before are not asked for: each round in which some are too old drops them."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        await store.append("s", Event("start"))
        await store.configure("s", keep=DAY, drop=True)
        for _ in range(4):
            for _ in range(12):
                await store.append("s", Event("more"))
            clock.advance(days=3)
            assert await swept(store) == [("s", "trimmed")]
        await store.verify("s")
