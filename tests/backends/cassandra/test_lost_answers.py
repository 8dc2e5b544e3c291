"""Cassandra: writes whose answer is lost, and land when nobody thinks of them any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind
from perdure.backends.registry import open_backend
from perdure.backends.remote import Attempt, Stored
from perdure.backends.spi import Appended, Durability
from perdure.clock import SystemClock
from perdure.errors import Error, Unknown
from perdure.model.ids import SessionKey
from tests.servers.cassandra import Cassandra, CassandraCluster
from tests.servers.fixture import Servers
from tests.servers.proxy import Proxy
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import pause_ends_in_time, retrying, run

ENGINE = Engine("cassandra", Cassandra)
CLUSTER = Engine("cassandra-cluster", CassandraCluster)
S = SessionKey("acme", "s")
MEMORY = Durability.memory


class Zombie:
    """Holds back the first conditional write of a driver, which is told that its answer was lost; it lands when it is let go."""

    def __init__(self, backend: Any) -> None:
        self._decide = backend.driver.client.decide
        self._held: tuple[Any, ...] | None = None
        self.sent = 0
        self.before_resending: Callable[[], Any] | None = None
        self.landed: list[bool] = []
        backend.driver.client.decide = self.decide

    async def decide(self, *statements: Any) -> Any:
        self.sent += 1
        if self._held is None:
            self._held = statements
            raise Unknown("The answer was lost.")
        if self.before_resending is not None:
            await self.before_resending()
        return await self._decide(*statements)

    async def land(self) -> None:
        assert self._held is not None
        self.before_resending = None
        self.landed.append(await self._decide(*self._held) is None)


@pytest.mark.parametrize("case", ["before the next", "after the next", "after another's"])
async def test_a_write_that_lands_later_lands_once(servers: Servers[Cassandra], case: str) -> None:
    """A write that a serial read did not see lands before the identical one is sent again, after it, or after another's: the chain has
    one record for each version, and the answer says whose."""
    url = ENGINE.url(servers(Cassandra))

    backend: Any = await open_backend(url, clock=SystemClock())
    other: Any = await open_backend(url, clock=SystemClock())
    await backend.append([behind(S)])
    zombie = Zombie(backend)

    async def win() -> None:
        zombie.before_resending = None
        await other.run(other.driver.write([Attempt(S, head, behind(S, salt=b"other").finish(head) or (), None, None, MEMORY)]))

    (head,) = await other.heads([S])
    zombie.before_resending = {"before the next": zombie.land, "after another's": win}.get(case)
    (outcome,) = await backend.append([behind(S, key="k", salt=b"mine")])
    if case != "before the next":
        await backend.run(zombie.land())
    chain = await other.read(S)
    assert isinstance(outcome, Appended)
    assert chain[-1].id == outcome.id
    assert [record.head.version for record in chain] == ([1, 2, 3] if case == "after another's" else [1, 2])
    assert zombie.landed == [case == "before the next"]
    await backend.close()
    await other.close()


async def test_answers_of_conditional_writes_that_are_cut(servers: Servers[Cassandra]) -> None:
    """Each append's conditional write reaches the server and its answer is cut: it is found again, nothing is written twice, and no
    client has sent it by itself."""
    server = servers(Cassandra)
    url = ENGINE.url(server)

    async def scenario() -> None:
        async with Proxy(server.cql) as proxy:
            backend: Any = await open_backend(url.replace(f":{server.cql}", f":{proxy.port}"), clock=SystemClock())
            decide = backend.driver.client.decide
            sent: list[int] = []
            unknown = 0

            async def cutting(*statements: Any) -> Any:
                nonlocal unknown
                version = statements[0][1][11]
                if version not in sent:
                    proxy.cut()
                sent.append(version)
                try:
                    return await decide(*statements)
                except Unknown:
                    unknown += 1
                    raise

            backend.driver.client.decide = cutting
            for number in range(10):
                (outcome,) = await backend.append([behind(S, key=f"k{number}")])
                assert isinstance(outcome, Appended), outcome
            assert [record.key for record in await backend.read(S)] == [f"k{number}" for number in range(10)]
            assert unknown >= 5
            assert sent == list(range(1, 11)), "what had landed was found by reading, not by sending"
            await backend.close()

    await scenario()


@pytest.mark.slow("three JVMs")
def test_a_paused_node_of_three(server_of_my_own: Servers[CassandraCluster]) -> None:
    """Each node in turn sleeps longer than the time-out in the midst of frozen writes; every write is sent again unchanged until it is
    settled, and what the sleeper still does when it wakes changes nothing: each chain holds its record exactly once."""
    url = CLUSTER.url(server := server_of_my_own(CassandraCluster)) + "&timeout=2&connect_timeout=1"

    async def scenario() -> None:
        backend: Any = await open_backend(url, clock=SystemClock())
        driver = backend.driver
        unknown = late = 0

        async def frozen(session: SessionKey) -> None:
            nonlocal unknown, late
            attempt = Attempt(session, None, behind(session, key="k").finish(None) or (), "k", None, MEMORY)
            answer: object = None
            absent = False
            until = time.monotonic() + 40
            while not isinstance(answer, Stored):
                assert time.monotonic() < until, answer
                (answer,) = await driver.write([attempt])
                if isinstance(answer, Stored):
                    break
                if isinstance(answer, Unknown):
                    unknown += 1
                try:
                    found = (await driver.heads([session]))[0]
                except Error:
                    await asyncio.sleep(0.2)
                    continue
                if found is not None:
                    late += absent
                    assert found == attempt.records[0].head
                    break
                absent = True

        for node in server.nodes:
            sessions = [SessionKey("acme", f"{node}/{number}") for number in range(48)]
            tasks = [asyncio.create_task(backend.run(frozen(session))) for session in sessions]
            await asyncio.sleep(0.05)
            server.pause(node)
            await asyncio.sleep(4)
            server.resume(node)
            await asyncio.gather(*tasks)
            await asyncio.sleep(1)
            for session in sessions:
                assert [record.head.version for record in await backend.read(session)] == [1]
                (known,) = await backend.append([behind(session, key="k")])
                assert known.version == 1
        assert unknown, "no write's answer was lost: this test saw nothing"
        print(f"{unknown} unknown, {late} seen absent that landed later")
        await backend.close()

    run(scenario(), 200)


async def test_a_server_that_sleeps_is_unknown_in_time_and_then_goes_on(server_of_my_own: Servers[Cassandra]) -> None:
    """While the only node sleeps an append ends within its time-outs and may be sent again; after it wakes the key was applied once."""
    server = server_of_my_own(Cassandra)

    async with perdure.open(server.url + "&timeout=2&connect_timeout=1") as store:
        await store.append("s", Event("a"))
        await pause_ends_in_time(server, store)
        assert (await retrying(lambda: store.append("s", Event("b"), key="k"))).version == 2
        assert [commit.version async for commit in store.history("s")] == [1, 2]
