"""One of several nodes is gone, shuts down, hangs, or has lost its engine, while many requests are on their way: nobody is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import perdure
from perdure import Event
from perdure.backends.http.pool import FAILURES_MAX
from perdure.model.ids import SessionKey
from perdure.service.records.verified import VerifiedFace
from tests.servers.process import HOST
from tests.servers.proxy import Proxy
from tests.support.service.nodes import Serving, serving_many, url_of

SESSIONS = [f"s{number}" for number in range(200)]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Serving]]:
    """Two nodes over a SQLite file."""
    with serving_many(f"sqlite:///{tmp_path}/store.db", 2) as nodes:
        yield nodes


@asynccontextmanager
async def started(url: str) -> AsyncIterator[perdure.Store]:
    """A client and two hundred sessions, each with one commit."""
    async with perdure.open(url) as store:
        await asyncio.gather(*[store.append(session, Event("note")) for session in SESSIONS])
        yield store


async def read_and_write(store: perdure.Store) -> None:
    """Many reads at once, then some writes: each is answered."""
    views = await asyncio.gather(*[store.read(session) for session in SESSIONS])
    assert {view.version for view in views} == {1}
    receipts = await asyncio.gather(*[store.append(session, Event("note")) for session in SESSIONS[:10]])
    assert {receipt.version for receipt in receipts} == {2}


async def test_a_node_that_is_gone_is_not_noticed(nodes: list[Serving]) -> None:
    """However many requests meet it at once, each is asked of the other one."""
    async with started(url_of(nodes)) as store:
        await asyncio.to_thread(nodes[0].stop)
        await read_and_write(store)


async def test_a_node_that_shuts_down_is_not_noticed(nodes: list[Serving]) -> None:
    """It says so to each request, and does nothing."""
    async with started(url_of(nodes)) as store:
        nodes[0].loop.call_soon_threadsafe(nodes[0].node.close)
        await read_and_write(store)


async def test_a_node_that_hangs_takes_no_read_with_it(nodes: list[Serving]) -> None:
    """A read leaves some of its time for another node."""
    ports = [urlsplit(node.url).port or 0 for node in nodes]
    async with Proxy(ports[0]) as proxy, started(f"http://{HOST}:{proxy.port},{HOST}:{ports[1]}?timeout=4") as store:
        proxy.silent = True
        for _ in range(5):
            await asyncio.gather(*[store.read(session) for session in SESSIONS[:50]])
        assert proxy.dropped


async def test_a_node_whose_engine_hangs_takes_no_write_with_it(nodes: list[Serving], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not know is asked of the other one, and after a few such answers it is asked no more, though it answers reads."""
    asked = 0

    async def hang(*_: object) -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    async with perdure.open(f"{url_of(nodes)}?timeout=2") as store:
        monkeypatch.setattr(nodes[0].node._parts[VerifiedFace], "append", hang)
        for number in range(40):
            assert (await store.append(f"s{number}", Event("note"), key="k")).version == 1
            await store.read(f"s{number}")
        assert FAILURES_MAX <= asked < FAILURES_MAX + 9  # Nine probes take more than two minutes.


async def test_a_node_whose_engine_hangs_holds_up_no_session_of_another_one(nodes: list[Serving], monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends of sessions at home on the other node are answered meanwhile, also where they were passed on together, and however many
    requests the node keeps. Its own sessions are answered once it goes on."""
    gate, held = asyncio.Event(), asyncio.Semaphore(0)
    face, loop = nodes[0].node._parts[VerifiedFace], asyncio.get_running_loop()
    answer = face.append

    async def hang(*asked: Any) -> Any:
        loop.call_soon_threadsafe(held.release)
        await gate.wait()
        return await answer(*asked)

    async with started(f"{url_of(nodes)}?timeout=240") as store:
        driver = store._core.backend.driver  # type: ignore[attr-defined]
        slow = [session for session in SESSIONS if driver.calls.home(SessionKey("default", session)).url == nodes[0].url]
        quick = [session for session in SESSIONS if session not in slow]
        monkeypatch.setattr(face, "append", hang)
        held_up = [asyncio.create_task(store.append(session, Event("note"))) for session in slow[:40]]
        try:
            for version in range(2, 12):
                async with asyncio.timeout(60):
                    receipts = await asyncio.gather(*[store.append(session, Event("note")) for session in quick])
                    await held.acquire() if version == 2 else None
                assert {receipt.version for receipt in receipts} == {version}
                held_up.append(asyncio.create_task(store.append(slow[38 + version], Event("note"))))
            assert not any(each.done() for each in held_up)
        finally:
            nodes[0].loop.call_soon_threadsafe(gate.set)
        assert {receipt.version for receipt in await asyncio.gather(*held_up)} == {2}
