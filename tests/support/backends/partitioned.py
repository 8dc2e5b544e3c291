"""Run in the client's namespace of a network: a cluster on its hosts, clients at work, and nodes cut off from the others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from perdure.backends.spi import Backend, Durability
from perdure.errors import Unavailable
from tests.backends.test_engine_faults import TIMEOUTS, handles
from tests.servers.cassandra import CassandraCluster
from tests.servers.etcd import EtcdCluster
from tests.servers.mongodb import MongoDBTorn
from tests.servers.network import Network
from tests.servers.postgresql import PostgreSQLStandby
from tests.servers.process import Server
from tests.servers.valkey import ValkeySentinel
from tests.support.backends.load import SESSIONS, Load
from tests.support.backends.rewinding import Rewinding

CUT_SECONDS = 4.0
"""Longer than an election, and than the client's time-out."""


class Partition(NamedTuple):
    """What is partitioned, over how many hosts, and what happens to it."""

    server: type[Server]
    hosts: int
    scenario: Callable[[Any, Network], Awaitable[None]]


def ours(url: str) -> str:
    """A URL for the data of this test, with short time-outs."""
    return f"{url}{'&' if '?' in url else '?'}namespace=torn{TIMEOUTS}"


async def leader_and_follower(cluster: EtcdCluster | MongoDBTorn, network: Network) -> None:
    """The leader is cut off, then a follower. Clients reach all nodes all the time, those cut off too; while the leader is, some know it
    alone, and ask it without a word of its successor."""
    leader = await asyncio.to_thread(lambda: cluster.primary)
    async with handles(ours(cluster.url), 3) as opened, handles(ours(cluster.alone(leader)), 1) as loyal:
        load = Load(opened)
        await load.more(200)
        network.cut(cluster.place(leader))
        if isinstance(cluster, MongoDBTorn):
            await asyncio.to_thread(cluster.succeed, leader)
        load.handles += loyal
        await asyncio.sleep(CUT_SECONDS)
        await load.more(20)  # With MongoDB the others write about three a second, until they give their old leader up.
        if isinstance(cluster, MongoDBTorn):
            assert cluster.hello(leader)["isWritablePrimary"], "It gave up too soon for this test to mean anything."
        load.handles = opened
        network.heal(cluster.place(leader))
        await load.more(100)
        leader = await asyncio.to_thread(lambda: cluster.primary)
        follower = next(node for node in cluster.names if node != leader)
        network.cut(cluster.place(follower))
        await asyncio.sleep(CUT_SECONDS)
        await load.more(50)
        network.heal(cluster.place(follower))
        await load.more(100)
        await load.stop()
        await load.check()
        print(f"{load.writes} appends acknowledged, {load.unknown} unknown")


async def one_of_three(cluster: CassandraCluster, network: Network) -> None:
    """One of three equals is cut off, and clients go on asking it as they ask the others: who asks it for a session is served by them."""
    async with handles(ours(cluster.url), 3) as opened:
        load = Load(opened)
        await load.more(100)
        network.cut(1)
        await asyncio.sleep(CUT_SECONDS)
        await load.more(50)
        assert await retrying(lambda: opened[0].heads(SESSIONS)), "It takes a while until the node sees that it is alone."
        network.heal(1)
        await load.more(100)
        await load.stop()
        await load.check()
        print(f"{load.writes} appends acknowledged, {load.unknown} unknown")


async def retrying(call: Callable[[], Awaitable[Any]], tries: int = 10) -> Any:
    """What a call gives, when it is `Unavailable` no more."""
    for _ in range(tries - 1):
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(1)
    return await call()


async def standby_and_primary(pair: PostgreSQLStandby, network: Network) -> None:
    """A synchronous standby is cut off: appends are `Unknown` in time, none is acknowledged, and work comes back with the standby.
    Cut off again, the primary dies and the standby takes its place: nothing acknowledged is lost, what was `Unknown` is applied once or
    never. The new primary waits for nobody yet: handles that were promised `quorum` do not say it before it has a standby of its own."""
    async with handles(ours(pair.either), 3) as opened:
        load = Load(opened)
        await load.more(200)
        network.cut(pair.place("standby"))
        await nothing_more(load)
        network.heal(pair.place("standby"))
        await load.more(100)
        network.cut(pair.place("primary"))
        await nothing_more(load)
        pair.kill("primary")
        await asyncio.to_thread(pair.sql, "SELECT pg_promote()", "standby")
        await nothing_more(load)
        network.heal(pair.place("primary"))
        await asyncio.to_thread(pair.copy, "standby", "primary")
        await asyncio.to_thread(pair.launch, "primary")
        await asyncio.to_thread(pair.await_standby, "standby", "primary")
        await load.more(100)
        await load.stop()
        await load.check()
        print(f"{load.writes} appends acknowledged, {load.unknown} unknown")


async def nothing_more(load: Load) -> None:
    """Where no append can reach its durability, clients go on being told so, and none is acknowledged."""
    await asyncio.sleep(1)  # What was on its way.
    acknowledged, unknown = load.writes, load.unknown
    await asyncio.sleep(CUT_SECONDS)
    assert load.writes == acknowledged
    assert load.unknown > unknown


async def primary_and_sentinels(servers: ValkeySentinel, network: Network) -> None:
    """The primary is cut off with one Sentinel, and the other two make its replica the primary. Clients who know the first Sentinel, or are
    connected already, go on with the old one. Nothing acknowledged above `failover_loss` is lost, no key is applied twice; what the old one
    acknowledged as `local` is dropped, and a store that saw it says `Rewound` to who built on it, and reads what there is."""
    wrong, right = ours(servers.guided_by("s1")), ours(servers.guided_by("s2", "s3"))
    async with AsyncExitStack() as stack:
        sides = await stack.enter_async_context(Rewinding(wrong, right))

        async def opened(url: str) -> list[Backend]:
            levels = [(await stack.enter_async_context(handles(f"{url}{more}", 1)))[0] for more in ("", "&replicas=1")]
            assert [one.capabilities.durability for one in levels] == [Durability.local, Durability.quorum]
            assert {one.capabilities.failover_loss for one in levels} == {Durability.local}
            return levels

        load = Load(await opened(wrong))
        await load.more(200)
        network.cut(1)
        await asyncio.to_thread(servers.wait, "a new primary", lambda: servers.names("s2", "replica") and servers.names("s3", "replica"))
        load.handles += await opened(right)
        await sides.split()
        await load.more(20)
        network.heal(1)
        await asyncio.to_thread(servers.wait, "the old one following", lambda: servers.follows("primary") == "up")
        await load.more(100)
        await sides.seen()
        await load.stop()
        dropped = await load.check_chains(Durability.local)
        assert dropped, "Nothing was dropped, so this test saw nothing."
        print(f"{load.writes} appends acknowledged, {dropped} of them as `local` and dropped, {load.unknown} unknown")


PARTITIONS = {
    "etcd": Partition(EtcdCluster, 3, leader_and_follower),
    "cassandra": Partition(CassandraCluster, 3, one_of_three),
    "postgresql": Partition(PostgreSQLStandby, 2, standby_and_primary),
    "valkey-sentinel": Partition(ValkeySentinel, 3, primary_and_sentinels),
    "mongodb": Partition(MongoDBTorn, 3, leader_and_follower),
}


def main() -> None:
    """`partitioned.py PARTITION NETWORK FOLDER`."""
    partition = PARTITIONS[sys.argv[1]]
    network, cluster = Network(sys.argv[2], partition.hosts), partition.server(Path(sys.argv[3]))
    cluster.network = network
    try:
        cluster.start()
        asyncio.run(asyncio.wait_for(partition.scenario(cluster, network), 200))
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
