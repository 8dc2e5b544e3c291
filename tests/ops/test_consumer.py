"""Consumers: every change is handled at least once and in order, whatever fails, restarts or runs twice; keys make effects happen once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Change, Event, Store, ops
from perdure.engine.store import system_store
from tests.support.engine.following import versions
from tests.support.engine.watchers import until
from tests.support.ops.consumers import Recorder, effects_happen_once, handled_in_order, parked, quick, until_true
from tests.support.ops.registered import until_saved, write

__all__ = ["quick"]


async def test_a_consumer_goes_on_where_it_was(url: str) -> None:
    """Each run handles, in order and in batches of the size asked for, what came since the one before; nothing twice if nothing fails."""
    async with perdure.open(url) as store:
        seen = Recorder()
        for commits in (3, 0, 1, 4):
            await write(store, "abc", commits)
            done = await ops.consume(store, "indexer", seen, batch=5, follow=False)
            assert done == ops.Consumed(handled=3 * commits, parked=0)
        assert versions(seen.changes) == {session: list(range(1, 9)) for session in "abc"}
        assert max(seen.batches) <= 5
        (info,) = await ops.consumers(store)
        assert (info.name, info.code, info.handled, info.waiting, info.parked) == ("indexer", "Recorder", 24, 0, ())


async def test_handlers_get_what_comes_while_they_run(url: str) -> None:
    """A consumer that follows handles what is committed while it waits; when it is cancelled, the next run goes on."""
    async with perdure.open(url) as store:
        seen = Recorder()
        for turn in range(2):
            running = asyncio.create_task(ops.consume(store, "indexer", seen))
            await write(store, "ab", 2)
            await until(lambda: len(seen.changes) == 4 * (turn + 1))  # noqa: B023 - it is waited for here
            await until_saved(store, seen.changes[-1])
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert versions(seen.changes) == {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4]}


async def two_are_parked(store: Store) -> bool:
    """Whether something of two sessions is parked."""
    return await parked(store) == 2


async def test_what_fails_again_and_again_is_parked(url: str) -> None:
    """The commit that a handler fails on, and all later ones of its session, in this run and in others, are parked; the others are handled.
    `retry` hands them over in order, and what fails again stays parked."""
    async with perdure.open(url) as store:
        seen = Recorder(bad={("b", 2)})
        await write(store, "abc", 3)
        assert await ops.consume(store, "indexer", seen, attempts=3, follow=False) == ops.Consumed(7, 1)
        assert seen.failures == 1 + 3  # together, and three times alone
        await write(store, "ab", 2)
        assert await ops.consume(store, "indexer", seen, follow=False) == ops.Consumed(2, 1)
        assert handled_in_order(seen.changes) == {"a": [1, 2, 3, 4, 5], "b": [1], "c": [1, 2, 3]}
        (info,) = await ops.consumers(store)
        (one,) = info.parked
        assert (one.session, one.first, one.last, one.retry) == ("b", 2, 5, False)
        assert one.error == "ValueError: not ('b', 2)"
        assert info.waiting == 0

        assert await ops.retry(store, "indexer") == 1
        assert (await ops.consumers(store))[0].parked[0].retry
        assert await ops.consume(store, "indexer", seen, attempts=2, follow=False) == ops.Consumed(0, 1)
        assert not (await ops.consumers(store))[0].parked[0].retry
        seen.bad = {("b", 4)}
        await ops.retry(store, "indexer", "b")
        assert await ops.consume(store, "indexer", seen, attempts=2, follow=False) == ops.Consumed(2, 1)
        assert (await ops.consumers(store))[0].parked[0].first == 4
        seen.bad = set()
        await ops.retry(store, "indexer", "b")
        await write(store, "b")
        assert await ops.consume(store, "indexer", seen, follow=False) == ops.Consumed(3, 0)
        assert handled_in_order(seen.changes)["b"] == [1, 2, 3, 4, 5, 6]


async def test_what_is_dropped_is_not_handled(url: str) -> None:
    """`drop` gives up what is parked and no more: what came later is handled, also what a consumer at work has parked since."""
    async with perdure.open(url) as store:
        seen = Recorder(bad={("a", 2)})
        running = asyncio.create_task(ops.consume(store, "indexer", seen, attempts=1))
        await write(store, "a", 3)
        await until(lambda: seen.failures >= 1)
        await until_true(lambda: parked(store))
        last = (await ops.consumers(store))[0].parked[0].last
        await write(store, "a", 2)
        await asyncio.sleep(0.1)  # Passed over, so not in the checkpoint, or not yet read: both must come out right.
        assert await ops.drop(store, "indexer") == 1
        await until(lambda: [change.commit.version for change in seen.changes][-1:] == [5])
        assert handled_in_order(seen.changes)["a"] == [1, *range(last + 1, 6)]
        await write(store, "a")
        await until(lambda: seen.changes[-1].commit.version == 6)
        running.cancel()


async def test_a_consumer_at_work_is_asked_to_retry(url: str) -> None:
    """`retry` and `drop` from elsewhere do not take a consumer for two: it goes on, and does what it was asked for."""
    async with perdure.open(url) as store:
        seen = Recorder(bad={("a", 1), ("b", 1)})
        await write(store, "abc")
        running = asyncio.create_task(ops.consume(store, "indexer", seen, attempts=1))
        await until_true(lambda: two_are_parked(store))
        seen.bad = set()
        await ops.retry(store, "indexer", "a")
        await ops.drop(store, "indexer", "b")
        await write(store, "c", 3)
        await until(lambda: len(seen.changes) == 5)
        assert handled_in_order(seen.changes) == {"a": [1], "c": [1, 2, 3, 4]}

        async def saved() -> bool:
            (info,) = await ops.consumers(store)
            return (info.handled, info.parked) == (5, ())

        await until_true(saved)
        assert not running.done()
        running.cancel()


async def test_retryable_errors_park_nothing(url: str) -> None:
    """An error of Perdure that may go away is waited out, however often it comes; the batch then comes again as a whole."""
    async with perdure.open(url) as store:
        await write(store, "ab", 2)
        calls: list[int] = []

        async def handler(changes: list[Change]) -> None:
            calls.append(len(changes))
            if len(calls) < 12:
                raise perdure.Unavailable("The index is away.")

        assert await ops.consume(store, "indexer", handler, attempts=2, follow=False) == ops.Consumed(4, 0)
        assert calls == [4] * 12


async def test_a_handler_that_fails_on_everything_stops(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the most sessions that may be parked the consumer stops with `TooLarge`, and nothing is passed over: after the handler was
    corrected, all is handled in order."""
    monkeypatch.setattr("perdure.ops.consumer.PARKED_MAX", 2)
    async with perdure.open(url) as store:
        await write(store, "abcde", 2)
        seen = Recorder(bad={(session, 1) for session in "abcd"})
        with pytest.raises(perdure.TooLarge, match="consumers --retry indexer"):
            await ops.consume(store, "indexer", seen, attempts=1, batch=1, follow=False)
        assert len((await ops.consumers(store))[0].parked) == 2
        seen.bad = set()
        await ops.retry(store, "indexer")
        await ops.consume(store, "indexer", seen, follow=False)
        assert handled_in_order(seen.changes) == {session: [1, 2] for session in "abcde"}


async def test_what_was_purged_is_not_retried(url: str) -> None:
    """What is parked of a session that was purged since is gone: a retry ends, and the next life is handled."""
    async with perdure.open(url) as store:
        seen = Recorder(bad={("a", 2)})
        await write(store, "a", 3)
        await ops.consume(store, "indexer", seen, attempts=1, follow=False)
        await store.delete("a")
        await store.purge("a")
        await ops.retry(store, "indexer")
        await ops.consume(store, "indexer", seen, attempts=1, follow=False)
        await store.append("a", Event("n"), recreate=True)
        await ops.consume(store, "indexer", seen, attempts=1, follow=False)
        assert (await ops.consumers(store))[0].parked == ()
        assert versions(seen.changes)["a"] == [1, 4, 5]


async def test_of_two_at_once_one_works(url: str) -> None:
    """See `consumers.effects_happen_once`: two runs of one name, in two stores or in one."""
    async with perdure.open(url) as store:
        if url == "memory:":
            await effects_happen_once(store, store)
        else:
            async with perdure.open(url) as other:
                await effects_happen_once(store, other)


async def test_a_run_that_lost_its_lease_waits_for_it(url: str) -> None:
    """A run that is overtaken while its handler is busy writes no checkpoint: it waits for the run that took over, and goes on after it.
    What both have handled counts once."""
    async with perdure.open(url) as store:
        await write(store, "ab", 3)
        busy, go_on = asyncio.Event(), asyncio.Event()
        first, second = Recorder(), Recorder()

        async def slow(changes: list[Change]) -> None:
            if not busy.is_set():
                busy.set()
                await go_on.wait()
            await first(changes)

        running = asyncio.create_task(ops.consume(store, "indexer", slow, code="Recorder"))
        await busy.wait()
        with pytest.raises(perdure.Held, match="indexer in process"):
            await ops.consume(store, "indexer", second, follow=False, wait=0)
        other = asyncio.create_task(ops.consume(store, "indexer", second))
        assert await system_store(store).break_lease("consumer/indexer") is not None
        await until(lambda: len(second.changes) == 6)
        await until_saved(store, second.changes[-1])
        go_on.set()
        await until(lambda: len(first.changes) == 6)
        await write(store, "a")
        await until(lambda: len(second.changes) == 7)
        await until_saved(store, second.changes[-1])
        other.cancel()
        await write(store, "b")
        await until(lambda: len(first.changes) == 7)
        await until_saved(store, first.changes[-1])
        assert (await ops.consumers(store))[0].handled == 8
        assert not running.done()
        running.cancel()


async def test_without_leases_the_second_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store of schema 1, which has no leases, two runs may work at once: the one that writes its checkpoint second is `Fenced`, and
    what it has handled is not lost."""
    monkeypatch.setattr("perdure.ops.consumer.indexed", lambda _: None)
    async with perdure.open("memory:") as store:
        await write(store, "ab", 3)
        both = asyncio.Barrier(2)
        seen = Recorder()

        async def handler(changes: list[Change]) -> None:
            await both.wait()
            await seen(changes)

        runs = (ops.consume(store, "indexer", handler, follow=False) for _ in range(2))
        done = await asyncio.gather(*runs, return_exceptions=True)
        assert sorted(type(one).__name__ for one in done) == ["Consumed", "Fenced"]
        assert (await ops.consumers(store))[0].handled == 6


def test_blocking_stores_have_consumers_too(url: str) -> None:
    """With `perdure.sync.Store` the same functions block; a handler may write with the same store."""
    with perdure.sync.open(url) as store:
        index = store.for_tenant("index")
        store.append("a", Event("n", 1))
        store.append("b", Event("n", 2))

        def handler(changes: list[Change]) -> None:
            for change in changes:
                index.append("all", *change.commit.events, key=change.key("indexer"))

        assert ops.consume(store, "indexer", handler, follow=False) == ops.Consumed(2, 0)
        assert [event.data for commit in index.history("all") for event in commit.events] == [1, 2]
        (info,) = ops.consumers(store)
        assert (info.name, info.handled) == ("indexer", 2)
        assert ops.retry(store, "indexer") == 0
        ops.forget(store, "indexer")
        assert ops.consumers(store) == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "must not be empty"),
    ({"name": "x" * 201}, "at most 200 bytes"),
    ({"name": "a\nb"}, "control characters"),
    ({"name": 7}, "must be a string"),
    ({"batch": 0}, "from 1 to 1,000"),
    ({"batch": 1_001}, "from 1 to 1,000"),
    ({"batch": 1.5}, "from 1 to 1,000"),
    ({"batch": True}, "from 1 to 1,000"),
    ({"attempts": 0}, "from 1"),
    ({"ttl": 0}, "ttl must be 3 to 86,400 seconds"),
    ({"ttl": float("nan")}, "ttl must be"),
    ({"ttl": "30"}, "ttl must be"),
    ({"wait": -1}, "wait must be 0 to 86,400 seconds"),
    ({"wait": float("inf")}, "wait must be"),
    ({"handler": lambda changes: None}, "pass code="),
    ({"handler": None}, "a function"),
    ({"code": ""}, "must not be empty"),
    ({"types": "message"}, "a collection of event types"),
    ({"prefix": "a\nb"}, "control characters"),
    ({"tags": {"a": 1}}, "must be a string"),
    ({"after": "nonsense"}, "no cursor"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[f"{next(iter(options))} {number}" for number, (options, _) in enumerate(BAD)])
async def test_bad_input(options: dict[str, Any], words: str) -> None:
    """What cannot be is `Invalid`, and nothing is registered."""
    async with perdure.open("memory:") as store:
        given = {"name": "indexer", "handler": Recorder(), "follow": False} | options
        with pytest.raises(perdure.Invalid, match=words):
            await ops.consume(store, **given)
        assert await ops.consumers(store) == []
        for missing in (ops.retry, ops.drop, ops.forget, ops.consumers):
            with pytest.raises(perdure.NotFound, match="no consumer 'nobody'"):
                await missing(store, "nobody")
        await ops.consume(store, "indexer", Recorder(), follow=False)
        with pytest.raises(perdure.NotFound, match="nothing parked of session 's'"):
            await ops.retry(store, "indexer", "s")
    with pytest.raises(perdure.Invalid, match="an open store"):
        ops.consume(perdure.open("memory:"), "indexer", Recorder())  # type: ignore[call-overload]
    with perdure.sync.open("memory:") as blocking, pytest.raises(perdure.Invalid, match="a plain function"):
        await asyncio.to_thread(ops.consume, blocking, "indexer", _coroutine, follow=False)


async def _coroutine(changes: list[Change]) -> None: ...


METRICS = """
import asyncio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

import perdure
from perdure import Event, ops

async def main():
    async with perdure.open("memory:") as store:
        for session in "abc":
            await store.append(session, Event("n"))

        def handler(changes):
            if any(change.session == "b" for change in changes):
                raise ValueError

        await ops.consume(store, "indexer", handler, attempts=1, follow=False)
    found = {
        metric.name: metric.data.data_points[0]
        for resource in reader.get_metrics_data().resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    }
    handled, lag, parked = (found["perdure.consumer." + name] for name in ("handled", "lag", "parked"))
    assert (handled.value, lag.value, parked.value) == (2, 0, 1), found
    assert dict(handled.attributes) == {"perdure.tenant": "default", "perdure.consumer": "indexer"}

asyncio.run(main())
"""


def test_metrics() -> None:
    """With an SDK what was handled, the lag and what is parked are measured, for each consumer."""
    pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")
    run = subprocess.run([sys.executable, "-W", "error", "-c", METRICS], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
