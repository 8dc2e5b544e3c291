"""Failovers to a replica with older data, of the shared cache and of the engine: no reader gets an older state than it was promised."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import perdure
from perdure import Event, Rewound, Store, op
from perdure.model.ids import SessionKey
from tests.engine.read.test_shared_cache import PATIENT, cache_url, flush, offered, shared, until
from tests.servers.fixture import Servers
from tests.servers.process import HOST, Server
from tests.servers.proxy import Proxy
from tests.servers.valkey import Valkey, ValkeyCluster

S = SessionKey("default", "s")


class ValkeyPair(Valkey):
    """Two servers, of which one follows the other. Nobody watches them: a test fails over by hand."""

    name = "valkey-pair"

    def start(self) -> None:
        self.launch("a")
        self.follow("b", "a")

    def follow(self, node: str, leader: str) -> None:
        """Start a node, if need be, and have it follow the other one, with all that this one has."""
        self.launch(node)
        self.ask(node, "REPLICAOF", HOST, str(self.port(leader)))
        self.wait(f"{node} follows", lambda: "master_link_status:up" in self.ask(node, "INFO", "replication"))

    def stay(self, node: str) -> None:
        """Have a node that follows stay as it is: what comes after this it does not get."""
        self.ask(node, "REPLICAOF", "NO", "ONE")


async def add(store: Store, count: int = 1) -> None:
    for _ in range(count):
        await store.append("s", Event("x", None, (op.add("/n", 1),)))


async def test_a_cache_that_fails_over_to_older_data(
    file_url: str, server_of_my_own: Servers[ValkeyPair], caplog: pytest.LogCaptureFixture
) -> None:
    """Clients read strongly and by tokens of one another while the cache's primary is killed and its replica has older states: each answer
    is as new as what its token names, and as what was acknowledged."""
    caplog.set_level(logging.CRITICAL)
    server = server_of_my_own(ValkeyPair)
    leader, follower = "a", "b"
    async with Proxy(server.port(leader)) as address:
        url = f"redis://{HOST}:{address.port}/3"
        async with (
            perdure.open(file_url) as writer,
            perdure.open(file_url, shared_cache=url, cache_timeout=PATIENT) as first,
            perdure.open(file_url, shared_cache=url, cache_timeout=PATIENT) as second,
        ):

            async def checked(rounds: int) -> None:
                for _ in range(rounds):
                    await add(writer)
                    stored = shared(first).stored
                    for store in (first, second):
                        store._core.cache.drop(S)
                    promised = await first.read("s")
                    found = await second.read("s", consistency="eventual", at_least=promised.token)
                    for view in (promised, found):
                        assert view.version == (await writer.read("s")).version
                        assert view.state == {"n": view.version}
                    await until(lambda stored=stored: shared(first).stored > stored or shared(first).failures)

            for _ in range(3):
                await checked(5)
                await asyncio.to_thread(server.stay, follower)
                await checked(5)
                await asyncio.to_thread(server.kill, leader)
                address.lead_to(server.port(follower))
                before = shared(first).stale + shared(second).stale
                await checked(1)
                await until(lambda: first._core.shared is not None and first._core.shared._breaker.closed)
                await checked(5)
                assert shared(first).stale + shared(second).stale > before, "the older data were looked at"
                leader, follower = follower, leader
                await asyncio.to_thread(server.follow, follower, leader)
            assert shared(first).hits + shared(second).hits > 0
            assert shared(first).forged == shared(second).forged == 0


async def test_an_engine_that_fails_over_to_older_data(server_of_my_own: Servers[Any], servers: Servers[Server]) -> None:
    """The cache has a state that the engine has lost. Nobody is given it, also when another commit has its version; a token of what is lost
    is `Rewound`."""
    server, cache = server_of_my_own(ValkeyPair), servers(Valkey)
    flush(cache)
    async with Proxy(server.port("a")) as address:
        url, shared_url = f"redis://{HOST}:{address.port}/0", cache_url(cache)
        async with perdure.open(url) as writer, perdure.open(url, shared_cache=shared_url, cache_timeout=PATIENT) as reader:
            await add(writer, 3)
            await asyncio.to_thread(server.stay, "b")
            await add(writer, 4)
            await offered(url, shared_url)
            promised = await reader.read("s")
            assert (promised.version, shared(reader).hits) == (7, 1)
            await asyncio.to_thread(server.kill, "a")
            address.lead_to(server.port("b"))
            async with perdure.open(url, shared_cache=shared_url, cache_timeout=PATIENT) as other:
                assert (await other.read("s")).state == {"n": 3}
                assert (shared(other).hits, shared(other).stale) == (0, 1)
                with pytest.raises(Rewound):
                    await other.read("s", consistency="eventual", at_least=promised.token)
                await other.append("s", Event("x", None, (op.add("/n", 10),)))
                for _ in range(3):
                    await add(other)
                other._core.cache.drop(S)
                assert (await other.read("s")).state == {"n": 16}
                for store in (other, reader):
                    with pytest.raises(Rewound):
                        await store.read("s", at_least=promised.token)
            reader._core.cache.drop(S)
            view = await reader.read("s")
            assert (view.version, view.state) == (7, {"n": 16})


async def test_a_node_of_a_cluster_is_no_cache(file_url: str, servers: Servers[ValkeyCluster], caplog: pytest.LogCaptureFixture) -> None:
    """A cache is one server. A Cluster's node refuses keys that others have: that costs time, and every state is the engine's."""
    caplog.set_level(logging.CRITICAL)
    server = await asyncio.to_thread(servers, ValkeyCluster)
    async with perdure.open(file_url, shared_cache=f"redis://{HOST}:{server.port('p1')}/0", cache_timeout=PATIENT) as store:
        for number in range(20):
            await store.append(f"s{number}", Event("x", None, (op.set("/n", number),)))
            for _ in range(2):
                store._core.cache.drop(SessionKey("default", f"s{number}"))
                assert (await store.read(f"s{number}")).state == {"n": number}
        await until(lambda: shared(store).failures > 0)
        assert shared(store).forged == 0
