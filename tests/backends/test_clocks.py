"""Clocks that are hours apart and run backwards, of clients and of a server's nodes: order is by version, no clock decides what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest

import perdure
from perdure import Event, Store
from perdure.clock import SystemClock
from tests.backends.test_engine_faults import TIMEOUTS, handles
from tests.servers.clocks import Clocks
from tests.servers.fixture import Servers, missing_skips
from tests.servers.process import Server
from tests.servers.valkey import ValkeySentinel
from tests.support.backends.engines import ENGINES, Engine
from tests.support.backends.load import Load

pytestmark = pytest.mark.slow("clocks that are wrong, on servers of their own")
HOUR = 3_600_000_000_000
"""Nanoseconds."""
ROUNDS = 6
FAKED = ("postgresql", "postgresql-standby", "pgbouncer", "valkey", "valkey-cluster", "dynamodb")
"""Whose servers can be given another time. Programs in Go ask the kernel; MongoDB and Java do not keep time-outs under libfaketime."""
SERVERS = [
    *[engine for engine in ENGINES if engine.name in FAKED],
    Engine("valkey-sentinel", ValkeySentinel, one_address=False),
]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 200))


class Wrong(SystemClock):
    """A clock that is `hours` ahead, and goes back by `step` nanoseconds more at each look."""

    def __init__(self, hours: int, *, step: int = 0) -> None:
        super().__init__()
        self._ahead, self._step = hours * HOUR, step

    def now(self) -> int:  # type: ignore[override]
        self._ahead -= self._step
        return super().now() + self._ahead


@pytest.fixture(params=["sqlite", *ENGINES], ids=str)
def url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """A store of each engine in turn that several may open."""
    if isinstance(request.param, Engine):
        servers: Servers[Server] = request.getfixturevalue("servers")
        return request.param.url(servers(request.param.server))
    return f"sqlite:///{tmp_path}/store.db"


async def test_clients_whose_clocks_are_wrong(url: str) -> None:
    """Four clients on one session, one right, one five hours ahead, one five behind, and one whose clock runs backwards: each commit is
    there once, time rises along the chain, and a key is found by who has another clock."""

    clocks = [SystemClock(), Wrong(5), Wrong(-5), Wrong(0, step=HOUR // 60)]
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(perdure.open(url, clock=clock)) for clock in clocks]
        for number in range(ROUNDS):
            await asyncio.gather(*[_turn(store, f"{number}/{place}") for place, store in enumerate(stores)])
        commits = [commit async for commit in stores[2].history("s")]
        assert [commit.version for commit in commits] == list(range(1, len(stores) * ROUNDS + 1))
        assert all(one.at < two.at for one, two in pairwise(commits))
        keys = {commit.key: commit for commit in commits}
        assert set(keys) == {f"{number}/{place}" for number in range(ROUNDS) for place in range(len(stores))}
        for place, store in enumerate(stores):
            view = await store.read("s")
            assert (view.version, view.hash) == (commits[-1].version, commits[-1].hash)
            assert view.state == {str(number): ROUNDS for number in range(len(stores))}
            again = await _turn(store, f"{ROUNDS - 1}/{(place + 1) % len(stores)}")
            assert (again.duplicate, again.version) == (True, keys[f"{ROUNDS - 1}/{(place + 1) % len(stores)}"].version)
            assert (await store.verify("s")).version == commits[-1].version
            assert [info.session async for info in store.list()] == ["s"]


async def _turn(store: Store, key: str) -> perdure.Receipt:
    async with store.edit("s", key=key) as draft:
        if draft.receipt is None:
            draft.add(f"/{key.partition('/')[2]}", 1)
            draft.event("turn", {"key": key})
    assert draft.receipt is not None
    return draft.receipt


@pytest.fixture
def clocks() -> Iterator[Clocks]:
    """For the nodes of one server; skips the test where there are none, or fails it where there should be."""
    with missing_skips():
        found = Clocks()
    yield found
    found.close()


@pytest.mark.parametrize("engine", SERVERS, ids=str)
async def test_servers_whose_clocks_are_wrong(engine: Engine, server_of_my_own: Servers[Server], clocks: Clocks) -> None:
    """Nodes three hours ahead, behind and right; then all go back by more than a day while clients work; then they die, where they may, and
    come back with clocks that are further back still. What clients saw has one order, and what was acknowledged is there."""
    kind: Any = type(engine.server.__name__, (engine.server,), {"clocks": clocks})
    server = server_of_my_own(kind)
    url = engine.url(server) + TIMEOUTS

    assert all(clocks.rule(server.pid(node)) for node in server.nodes), "A program does not take its time from the C library."
    async with handles(url, 3) as opened:
        load = Load(opened)
        await load.more(100)
        for node in server.nodes:
            clocks.set(node, -30)
        await asyncio.sleep(2)
        await load.more(100)
        if engine.survives and engine.name != "valkey-sentinel":
            server.kill()
            for node in server.nodes:
                clocks.set(node, -60)
            await asyncio.to_thread(server.start)
        await load.more(100)
        await load.stop()
        await (load.check() if opened[0].capabilities.linearizable_reads else load.check_chains())


async def test_a_session_whose_clock_was_ahead_goes_on(url: str) -> None:
    """After a commit of a clock that was a century ahead others go on, a nanosecond behind it each; their time is the chain's, and nothing
    waits for the clock to come up."""

    async with perdure.open(url, clock=Wrong(24 * 365 * 100)) as ahead, perdure.open(url) as right:
        first = await ahead.append("s", Event("a"))
        second = await right.append("s", Event("b"))
        assert second.at == first.at + 1
        assert [commit.events[0].type async for commit in right.history("s")] == ["a", "b"]
