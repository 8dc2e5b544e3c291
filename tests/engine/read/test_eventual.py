"""Eventual reads: how old an answer may be, what is never taken back, and what is loaded once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import Event, Invalid, NotFound, Store, op, sync
from perdure.clock import SystemClock
from perdure.engine.read.cache import FLOORS_MAX


class HandClock(SystemClock):
    """A monotonic clock that a test moves."""

    seconds = 100.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.seconds


def loads_of(store: Store) -> list[str]:
    """From now on, the names of the calls that read states and heads from the engine."""
    calls: list[str] = []
    backend: Any = store._core.backend
    for name in ("load", "heads", "read"):
        real = getattr(backend, name)

        async def counted(*arguments: Any, name: str = name, real: Any = real, **options: Any) -> Any:
            calls.append(name)
            await asyncio.sleep(0.01)  # Else the engine may answer before another reader comes.
            return await real(*arguments, **options)

        setattr(backend, name, counted)
    return calls


async def put(store: Store, value: int) -> None:
    async with store.edit("s") as draft:
        draft.state["n"] = value


async def test_an_answer_is_no_older_than_asked(file_url: str) -> None:
    """Within `max_staleness` seconds of the last look memory answers, and does not ask the engine; after them another's commit is seen."""
    clock = HandClock()
    async with perdure.open(file_url, clock=clock) as store, perdure.open(file_url) as other:
        await put(store, 1)
        await put(other, 2)
        calls = loads_of(store)
        clock.seconds += 5
        assert (await store.read("s", consistency="eventual", max_staleness=5)).state == {"n": 1}
        assert calls == []
        clock.seconds += 0.1
        assert (await store.read("s", consistency="eventual", max_staleness=5)).state == {"n": 2}
        assert calls[0] == "heads"


async def test_a_look_that_finds_nothing_new_counts(file_url: str) -> None:
    """A strong read that finds the state in memory to be the newest makes it fresh again."""
    clock = HandClock()
    async with perdure.open(file_url, clock=clock) as store:
        await put(store, 1)
        clock.seconds += 50
        await store.read("s")
        calls = loads_of(store)
        clock.seconds += 5
        await store.read("s", consistency="eventual", max_staleness=5)
        assert calls == []


async def test_cache_ttl_bounds_every_eventual_read(file_url: str) -> None:
    """Without `max_staleness`, and with a larger one, an answer from memory is no older than `cache_ttl`."""
    for asked in (None, 1000.0):
        clock = HandClock()
        async with perdure.open(file_url, clock=clock, cache_ttl=10) as store, perdure.open(file_url) as other:
            await put(store, 1)
            await put(other, 2)
            clock.seconds += 10
            assert (await store.read("s", consistency="eventual", max_staleness=asked)).state == {"n": 1}
            clock.seconds += 1
            assert (await store.read("s", consistency="eventual", max_staleness=asked)).state == {"n": 2}


async def test_the_age_counts_from_before_the_engine_was_asked(file_url: str) -> None:
    """A look that took long is as old as its beginning: what was committed meanwhile may not be in its answer."""
    clock = HandClock()
    async with perdure.open(file_url, clock=clock) as store:
        await put(store, 1)
        backend: Any = store._core.backend
        real = backend.heads

        async def slow(sessions: Any) -> Any:
            found = await real(sessions)
            clock.seconds += 30
            return found

        backend.heads = slow
        clock.seconds += 1
        await store.read("s")
        backend.heads = real
        calls = loads_of(store)
        await store.read("s", consistency="eventual", max_staleness=20)
        assert calls == ["heads"]


async def test_a_write_that_memory_cannot_follow_is_seen(file_url: str) -> None:
    """Another process wrote, then this one appended events alone: the state in memory is older than what was acknowledged here."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        await put(store, 1)
        await put(other, 2)
        receipt = await store.append("s", Event("note"))
        view = await store.read("s", consistency="eventual", max_staleness=1000)
        assert (view.version, view.state) == (receipt.version, {"n": 2})


@pytest.mark.parametrize("shown", ["history", "watch", "find"])
async def test_what_was_shown_is_not_taken_back(file_url: str, shown: str) -> None:
    """A version that history, a watch or a receipt has shown is there for the next eventual read."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        await put(store, 1)
        await other.append("s", Event("note", None, (op.set("/n", 2),)), key="k")
        if shown == "history":
            assert [commit.version async for commit in store.history("s")] == [1, 2]
        elif shown == "watch":
            async for commit in store.watch("s"):
                if commit.version == 2:
                    break
        else:
            found = await store.find("s", "k")
            assert found is not None
        assert (await store.read("s", consistency="eventual")).version == 2


async def test_a_slow_load_does_not_take_back_what_was_shown_meanwhile(file_url: str) -> None:
    """A load that began before a commit ends after that commit was shown: its state is no answer."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        await put(other, 1)
        backend: Any = store._core.backend
        real, gate, loaded = backend.load, asyncio.Event(), asyncio.Event()

        async def slow(*arguments: Any) -> Any:
            found = await real(*arguments)
            loaded.set()
            await gate.wait()
            return found

        backend.load = slow
        reading = asyncio.create_task(store.read("s", consistency="eventual"))
        await loaded.wait()
        backend.load = real
        await put(other, 2)
        receipt = await store.append("s", Event("note"))
        gate.set()
        await reading
        view = await store.read("s", consistency="eventual", max_staleness=1000)
        assert (view.version, view.state) == (receipt.version, {"n": 2})


async def test_what_was_shown_counts_after_it_was_forgotten() -> None:
    """The store remembers of some thousand sessions what it has shown; what is older than a forgotten one is looked at again."""
    async with perdure.open("memory:") as store:
        core = store._core
        await put(store, 1)
        core.cache.saw(store._context.key("s"), 99)
        for number in range(FLOORS_MAX):
            core.cache.saw(store._context.key(f"other {number}"), 1)
        assert store._context.key("s") not in core.cache._floors
        calls = loads_of(store)
        await store.read("s", consistency="eventual")
        assert calls == ["heads"]


async def test_a_missing_session_is_believed_for_a_second(file_url: str) -> None:
    """Only by eventual reads, for a second at most, and never against a write of this store."""
    clock = HandClock()
    async with perdure.open(file_url, clock=clock) as store, perdure.open(file_url) as other:
        for _ in range(2):
            with pytest.raises(NotFound):
                await store.read("s", consistency="eventual")
        await put(other, 1)
        clock.seconds += 1
        with pytest.raises(NotFound):
            await store.read("s", consistency="eventual")
        clock.seconds += 0.1
        assert (await store.read("s", consistency="eventual")).state == {"n": 1}
        with pytest.raises(NotFound):
            await store.read("t", consistency="eventual")
        await store.append("t", Event("note"))
        assert (await store.read("t", consistency="eventual")).version == 1
        with pytest.raises(NotFound):
            await store.read("u", consistency="eventual")
        await other.append("u", Event("note"))
        assert (await store.read("u")).version == 1


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
async def test_readers_at_once_load_once(file_url: str, consistency: Any) -> None:
    """Of many readers of a session that is not in memory one loads; the others wait, and strong ones then look at the head."""
    async with perdure.open(file_url) as writer:
        await put(writer, 1)
    async with perdure.open(file_url) as store:
        calls = loads_of(store)
        views = await asyncio.gather(*[store.read("s", consistency=consistency) for _ in range(20)])
        assert {view.version for view in views} == {1}
        assert calls.count("load") == 1
        assert calls.count("heads") == (19 if consistency == "strong" else 0)
        views[0].state["mine"] = True
        assert "mine" not in views[1].state


async def test_a_strong_read_that_waited_sees_what_came_before_it(file_url: str) -> None:
    """A load under way is older than a strong read that waits for it: a commit acknowledged in between is seen."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        await put(other, 1)
        backend: Any = store._core.backend
        real, gate, loaded = backend.load, asyncio.Event(), asyncio.Event()

        async def slow(*arguments: Any) -> Any:
            found = await real(*arguments)
            loaded.set()
            await gate.wait()
            return found

        backend.load = slow
        first = asyncio.create_task(store.read("s"))
        await loaded.wait()
        await put(other, 2)
        second = asyncio.create_task(store.read("s"))
        await asyncio.sleep(0)
        gate.set()
        await first
        assert (await second).state == {"n": 2}


async def test_a_load_that_is_cancelled_leaves_the_others_to_load(file_url: str) -> None:
    """Who waits for a load that fails or is cancelled loads itself."""
    async with perdure.open(file_url) as writer:
        await put(writer, 1)
    async with perdure.open(file_url) as store:
        backend: Any = store._core.backend
        real, begun = backend.load, asyncio.Event()

        async def never(*_: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

        backend.load = never
        first = asyncio.create_task(store.read("s"))
        await begun.wait()
        second = asyncio.create_task(store.read("s"))
        await asyncio.sleep(0)
        backend.load = real
        first.cancel()
        assert (await second).state == {"n": 1}


def test_nobody_waits_for_ever_for_a_load_whose_loop_has_stopped(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load whose loop does not run any more is given up: others load themselves, in other threads too."""
    monkeypatch.setattr("perdure.engine.read.loads.WAIT_MAX", 0.05)
    with sync.open(file_url) as blocking:
        blocking.append("s", Event("note"))
    with sync.open(file_url) as blocking:
        store = blocking.asynchronous
        backend: Any = store._core.backend
        real = backend.load
        loop = asyncio.new_event_loop()

        async def stop(*_: Any) -> Any:
            loop.stop()
            await asyncio.Event().wait()

        backend.load = stop
        task = loop.create_task(store.read("s"))
        loop.run_forever()
        backend.load = real
        versions: list[int] = []
        thread = threading.Thread(target=lambda: versions.append(blocking.read("s").version), daemon=True)
        thread.start()
        thread.join(30)
        assert versions == [1]
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


async def test_the_counts_say_what_memory_did(file_url: str) -> None:
    """Hits, misses, evictions and bytes, of all tenants; the blocking API gives the same."""
    async with perdure.open(file_url, cache_bytes=2_000) as store:
        assert (store.cache_info().hits, store.cache_info().misses, store.cache_info().bytes_max) == (0, 0, 2_000)
        await put(store, 1)
        before = store.cache_info()
        assert (before.sessions, before.bytes > 512) == (1, True)
        await store.read("s")
        await store.read("s", consistency="eventual")
        assert store.cache_info().hits == before.hits + 2
        for number in range(8):
            async with store.for_tenant("other").edit(f"s{number}") as draft:
                draft.state["n"] = number
        after = sync.Store(store).cache_info()
        assert after.evictions > 0
        assert after.bytes <= 2_000
        assert after.misses > before.misses
        assert after.to_dict()["shared"] is None


@pytest.mark.parametrize("seconds", [0, -1, 0.0, float("inf"), float("nan"), 86_401, "5", True, None.__class__])
async def test_a_staleness_that_makes_no_sense_is_invalid(file_url: str, seconds: Any) -> None:
    """It is a number of seconds, above none and at most a day."""
    async with perdure.open(file_url) as store:
        with pytest.raises(Invalid, match="max_staleness must be more than 0"):
            await store.read("s", consistency="eventual", max_staleness=seconds)


async def test_a_strong_read_takes_no_staleness(file_url: str) -> None:
    """`max_staleness` without `consistency="eventual"` says what to do, and so does a consistency that there is not."""
    async with perdure.open(file_url) as store:
        with pytest.raises(Invalid, match="consistency 'eventual'"):
            await store.read("s", max_staleness=5)
        with pytest.raises(Invalid, match="'strong' or 'eventual'"):
            await store.read("s", consistency="weak")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"cache_ttl": 0}, {"cache_ttl": -1}, {"cache_ttl": float("inf")}, {"cache_timeout": 0}, {"cache_timeout": 11}]
)
async def test_durations_out_of_range_are_invalid(file_url: str, settings: Any) -> None:
    """Said at `open`."""
    with pytest.raises(Invalid, match="cache_ttl must be"):
        async with perdure.open(file_url, **settings):
            pass
