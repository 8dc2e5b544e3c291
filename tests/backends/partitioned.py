"""Run in the client's namespace of a network: a cluster on its hosts, clients at work, and each of two nodes cut off from the others."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.backends.engines import Engine
from tests.backends.load import Load
from tests.backends.test_engine_faults import TIMEOUTS, handles
from tests.servers.etcd import EtcdCluster
from tests.servers.mongodb import MongoDBSet
from tests.servers.network import Network

CLUSTERS: dict[str, type[EtcdCluster | MongoDBSet]] = {"etcd": EtcdCluster, "mongodb": MongoDBSet}
CUT_SECONDS = 4.0
"""Longer than an election, and than the client's time-out."""


async def partitioned(cluster: EtcdCluster | MongoDBSet, network: Network) -> None:
    """The leader is cut off, then a follower; clients reach all nodes all the time, those cut off too."""
    url = Engine("cluster", type(cluster)).url(cluster) + TIMEOUTS
    async with handles(url, 3) as opened:
        load = Load(opened)
        await load.more(200)
        for leading in (True, False):
            leader = await asyncio.to_thread(lambda: cluster.primary)
            victim = leader if leading else next(node for node in cluster.names if node != leader)
            number = 1 + cluster.names.index(victim)
            network.cut(number)
            await asyncio.sleep(CUT_SECONDS)
            await load.more(50)
            network.heal(number)
            await load.more(100)
        await load.stop()
        await load.check()
        print(f"{load.writes} appends acknowledged, {load.unknown} unknown")


def main() -> None:
    """`partitioned.py ENGINE NETWORK FOLDER`."""
    kind, network = CLUSTERS[sys.argv[1]], Network(sys.argv[2], 3)
    cluster = kind(Path(sys.argv[3]))
    cluster.network = network
    try:
        cluster.start()
        asyncio.run(asyncio.wait_for(partitioned(cluster, network), 200))
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
