"""The store is away, slow, loses answers or refuses: nothing is lost, nothing comes twice, and shipping goes on by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.engine.spool.shipper import BACKOFF_FIRST, BACKOFF_MAX, Backoff
from tests.engine.spool.conftest import until
from tests.servers.valkey import Valkey
from tests.support.engine.flaky import Flaky


async def steps(store: perdure.Store, session: str) -> list[Any]:
    return [event.data async for commit in store.history(session) for event in commit.events if event.type == "step"]


async def test_a_store_that_is_away(spool: str, caplog: pytest.LogCaptureFixture) -> None:
    """While it is away all sessions together try it seldom, the log says so once, and when it is back everything arrives."""
    async with perdure.open("memory:", spool=spool) as store:
        flaky = Flaky(store)
        flaky.away = True
        for number in range(200):
            await store.enqueue(f"s{number}", Event("step", number))
        before = flaky.tries
        await asyncio.sleep(1.0)
        assert flaky.tries - before < 50
        assert caplog.text.count("does not take what the spool") == 1
        flaky.away = False
        assert (await store.flush()).entries == 0
        assert [await steps(store, f"s{number}") for number in range(200)] == [[number] for number in range(200)]


def test_pauses_grow_and_end() -> None:
    """Each failure doubles the pause up to `BACKOFF_MAX`, chance takes up to a half of it, and an hour of failures stays there."""
    backoff = Backoff()
    pauses = []
    for _ in range(3_000):
        backoff.fail(0.0, 1.0)
        pauses.append(backoff.until)
    assert pauses[:3] == [BACKOFF_FIRST, 2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST]
    assert pauses[-1] == BACKOFF_MAX == max(pauses)
    backoff.fail(0.0, 0.0)
    assert backoff.until == BACKOFF_MAX / 2
    backoff.succeed()
    backoff.fail(0.0, 1.0)
    assert backoff.until == BACKOFF_FIRST


@pytest.mark.parametrize("error", [perdure.Unauthorized("no"), perdure.QuotaExceeded("no"), perdure.Unsupported("no"), perdure.Busy("no")])
async def test_a_store_that_refuses_everybody(spool: str, error: perdure.Error) -> None:
    """What is wrong with the store, and not with the entry, is waited out: nothing fails, nothing is parked."""
    async with perdure.open("memory:", spool=spool) as store:
        flaky = Flaky(store)
        flaky.refusing = error
        queued = await store.enqueue("s", Event("step", 1))
        await store.enqueue("s", Event("step", 2))
        await until(lambda: _tried(flaky, 3))
        assert (await store.flush(timeout=0)).queued == 2
        flaky.refusing = None
        assert (await queued.receipt()).version == 1
        await store.flush()
        assert await steps(store, "s") == [1, 2]


async def _tried(flaky: Flaky, times: int) -> bool:
    return flaky.tries >= times


async def test_one_session_that_fails_does_not_hold_up_the_others(spool: str) -> None:
    """An entry that the store can never take now keeps its own session only."""
    async with perdure.open("memory:", spool=spool) as store:
        real = store._core.backend.append

        async def poisoned(appends: Any) -> Any:
            if any(append.session.id == "poison" for append in appends):
                raise perdure.Unavailable("injected")
            return await real(appends)

        store._core.backend.append = poisoned  # type: ignore[method-assign]
        await store.enqueue("poison", Event("step", 0))
        queued = [await store.enqueue(f"s{number}", Event("step", number)) for number in range(100)]
        for each in queued:
            await each.receipt()
        assert (await store.flush(timeout=0)).queued == 1


async def test_lost_answers(url: str, spool: str) -> None:
    """Entries that were written and whose answers were lost are sent again and applied once, in order."""
    async with perdure.open(url, spool=spool) as store:
        flaky = Flaky(store)
        for number in range(30):
            if number % 3 == 0:
                await store.flush()
                flaky.lossy = 1
            await store.enqueue("s", Event("step", number, (op.add("/n", 1),) if number % 2 else ()))
        assert (await store.flush()).entries == 0
        assert await steps(store, "s") == list(range(30))
        assert (await store.read("s")).state == {"n": 15}


async def test_a_slow_store(spool: str) -> None:
    """Sessions are shipped beside one another, so that a slow store is slow for each of them and not for their sum; `close` does not wait
    for the queue."""
    store = await perdure.open("memory:", spool=spool)
    flaky = Flaky(store)
    flaky.slow = 0.2
    queued = [await store.enqueue(f"s{number}", Event("step", number)) for number in range(40)]
    for each in queued:
        await each.receipt()
    before, flaky.slow = flaky.tries, 60
    await store.enqueue("s", Event("step", 1))
    await until(lambda: _tried(flaky, before + 1))
    left = await store.close()
    assert left is not None and left.queued == 1


@pytest.mark.xdist_group("valkey")
async def test_a_server_that_stops_and_comes_back(server_of_my_own: Any, tmp_path: Path, spool: str) -> None:
    """A real server is killed while entries are shipped and enqueued, and started again: each arrives once and in order."""
    server = server_of_my_own(Valkey)
    async with perdure.open(server.url, spool=spool) as store:
        for number in range(40):
            await store.enqueue("s", Event("step", number, (op.add("/n", 1),)))
            await store.enqueue(f"t{number % 5}", Event("step", number))
            if number == 10:
                server.kill("primary")
            if number == 30:
                server.launch("primary")
        assert (await store.flush(timeout=120)).entries == 0
        assert await steps(store, "s") == list(range(40))
        assert (await store.read("s")).state == {"n": 40}
        for number in range(5):
            assert await steps(store, f"t{number}") == list(range(number, 40, 5))


@pytest.mark.xdist_group("valkey")
async def test_a_server_that_lost_everything(server_of_my_own: Any, spool: str) -> None:
    """A store that was created again at the same place is another store: its entries are not shipped there, and the next `open` says so."""
    server = server_of_my_own(Valkey)
    async with perdure.open(server.url, spool=spool) as store:
        await (await store.enqueue("s", Event("step", 1))).receipt()
        flaky = Flaky(store)
        flaky.away = True
        await store.enqueue("s", Event("step", 2))
    server.ask("primary", "FLUSHALL")
    with pytest.raises(perdure.Invalid, match="belongs to the store"):
        await perdure.open(server.url, spool=spool)
    async with perdure.open(server.url) as store:
        assert [info async for info in store.list()] == []
