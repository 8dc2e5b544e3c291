"""The store is away for an hour, refuses, or another store is in its place: nothing is lost, the order holds, and the log says so."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.engine.spool.shipper import BACKOFF_MAX
from tests.engine.spool.conftest import until
from tests.engine.spool.test_outages import steps
from tests.servers.valkey import Valkey
from tests.support.engine.flaky import Flaky
from tests.support.ops.simulated_clock import SimulatedClock

pytestmark = pytest.mark.xdist_group("valkey")


async def test_an_hour_away(spool: str) -> None:
    """On a clock that is moved: writes are taken all the time, the store is tried seldom, and then everything arrives once, in order."""
    clock = SimulatedClock()
    async with perdure.open("memory:", spool=spool, clock=clock) as store:
        flaky = Flaky(store)
        flaky.away = True
        queued = []
        for number in range(360):
            queued.append(await store.enqueue(f"s{number % 3}", Event("step", number, (op.add("/n", 1),))))
            clock.advance(seconds=10)
            await asyncio.sleep(0.002)
        assert flaky.tries <= 2 * 3_600 / BACKOFF_MAX + 20
        left = await store.flush(timeout=0)
        assert (left.queued, left.failed) == (360, 0)
        assert left.oldest_seconds > 3_500
        flaky.away = False
        clock.advance(seconds=BACKOFF_MAX)
        await store.enqueue("s0", Event("step", 360))
        for each in queued:
            await each.receipt()
        await store.flush()
        for session in range(3):
            assert await steps(store, f"s{session}") == list(range(session, 361 if session == 0 else 360, 3))
            assert (await store.read(f"s{session}")).state == {"n": 120}


async def test_another_store_in_the_place(server_of_my_own: Any, spool: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server comes back empty, and then another store is made there, while a process ships: it sends nothing there. When the data are
    brought back, it goes on."""
    server = server_of_my_own(Valkey)
    data, kept = server.folder / "primary", server.folder / "kept"

    def replace(old: Any, new: Any) -> None:
        server.kill("primary")
        data.rename(old)
        if new is not None:
            new.rename(data)
        server.launch("primary")

    async with perdure.open(server.url, spool=spool) as store:
        await (await store.enqueue("s", Event("step", 0))).receipt()
        await asyncio.to_thread(replace, kept, None)
        for number in (1, 2, 3):
            await store.enqueue("s", Event("step", number))
        await store.enqueue("t", Event("step", 4))
        await until(lambda: _said(caplog, "no store in the place"))
        async with perdure.open(server.url) as other:
            await other.append("mine", Event("step", 5))
            before = len(caplog.messages)
            await asyncio.to_thread(server.ask, "primary", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(1)
            assert len(caplog.messages) == before
            assert [info.session async for info in other.list()] == ["mine"]
        assert (await store.flush(timeout=0)).queued == 4
        await asyncio.to_thread(replace, server.folder / "other", kept)
        assert (await store.flush(timeout=120)).entries == 0
        assert await steps(store, "s") == [0, 1, 2, 3]
        assert await steps(store, "t") == [4]
    shutil.rmtree(server.folder / "other")


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
async def test_another_store_in_a_folder(
    tmp_path: Path, spool: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """The place is opened once more: nothing goes to the store that is there now, and all of it to the one that was there."""
    monkeypatch.setattr("perdure.engine.spool.identity.PROVE_AFTER", 0.0)
    place, kept, taken = tmp_path / "place", tmp_path / "kept", tmp_path / "taken"
    place.mkdir()
    url = f"file://{place}" if scheme == "file" else f"sqlite:///{place}/s.db"
    async with perdure.open(url, spool=spool) as store:
        await (await store.enqueue("s", Event("step", 0))).receipt()
        place.rename(kept)
        place.mkdir()
        async with perdure.open(url) as other:
            await store.enqueue("s", Event("step", 1))
            await store.enqueue("t", Event("step", 2))
            await until(lambda: _said(caplog, "in the place of the store"))
            assert [info async for info in other.list()] == []
        place.rename(taken)
        kept.rename(place)
        assert (await store.flush(timeout=60)).entries == 0
        assert await steps(store, "s") == [0, 1]
        assert await steps(store, "t") == [2]
    async with perdure.open(url) as store:
        assert await steps(store, "s") == [0, 1]


async def _said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return words in caplog.text


async def test_a_server_that_refuses(server_of_my_own: Any, spool: str) -> None:
    """It is full: writes are refused, and wait. When it has room they arrive in order."""
    server = server_of_my_own(Valkey)
    async with perdure.open(server.url, spool=spool) as store:
        await (await store.enqueue("s", Event("step", 0))).receipt()
        server.ask("primary", "CONFIG", "SET", "maxmemory", "1")
        queued = [await store.enqueue("s", Event("step", number)) for number in (1, 2, 3)]
        await asyncio.sleep(0.5)
        left = await store.flush(timeout=0)
        assert (left.queued, left.failed, left.parked) == (3, 0, 0)
        server.ask("primary", "CONFIG", "SET", "maxmemory", "0")
        for each in queued:
            await each.receipt()
        assert await steps(store, "s") == [0, 1, 2, 3]


@pytest.mark.slow("a server that is away for a minute and a half")
async def test_a_real_server_is_away_for_long(server_of_my_own: Any, spool: str) -> None:
    """It is killed while two stores of one spool write on, and started again."""
    server = server_of_my_own(Valkey)
    async with perdure.open(server.url, spool=spool) as store, perdure.open(server.url, spool=spool) as second:
        await (await store.enqueue("s", Event("step", 0))).receipt()
        server.kill("primary")
        end, number = time.monotonic() + 90, 0
        while time.monotonic() < end:
            number += 1
            await (store, second)[number % 2].enqueue("s", Event("step", number))
            await asyncio.sleep(0.05)
        assert (await store.flush(timeout=0)).queued == number
        server.launch("primary")
        assert (await store.flush(timeout=200)).entries == 0
        assert await steps(store, "s") == list(range(number + 1))
