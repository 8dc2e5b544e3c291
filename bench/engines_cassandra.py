"""Turns a second of 64 sessions at once on Cassandra: Perdure, and a bare cassandra-driver that makes the same conditional write in a loop.

The server is the tests' own, one node that syncs its commit log before it answers; all systems take turns on it, after a warm-up. A turn is
one append of two messages of 400 bytes. The bare client writes a head and a row on the condition of the head, and nothing else: no
listing, no feed, no keys.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any
from uuid import uuid4

import msgspec
from _harness import folder, machine, run, small, table, turn
from _turns import perdure_turns, warmed
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy, RoundRobinPolicy
from cassandra.query import tuple_factory

from tests.servers.cassandra import Cassandra

TURNS = 3 if small() else 60
WARM = 1 if small() else 30
ROUNDS = 1 if small() else 7


class Modern(Cassandra):
    """A node with the newer Paxos."""

    paxos = "v2"


async def fresh_turns(server: Cassandra, turns: int) -> float:
    """Ours, in a namespace of its own."""
    return await perdure_turns(f"{server.url}&namespace=b{uuid4().hex[:12]}", turns)


async def bare_turns(server: Cassandra, turns: int) -> float:
    """The conditional write alone."""
    profile = ExecutionProfile(RoundRobinPolicy(), FallthroughRetryPolicy(), row_factory=tuple_factory)
    cluster = Cluster(server.hosts, port=server.cql, protocol_version=4, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    client = await asyncio.to_thread(cluster.connect)
    client.execute("CREATE KEYSPACE IF NOT EXISTS bare WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 1}")
    client.execute(
        "CREATE TABLE IF NOT EXISTS bare.log (id text, version bigint, head blob static, record blob, body blob, PRIMARY KEY (id, version))"
    )
    write = client.prepare("UPDATE bare.log SET head = ?, record = ?, body = ? WHERE id = ? AND version = ? IF head = ?")
    write.consistency_level, write.serial_consistency_level = ConsistencyLevel.QUORUM, ConsistencyLevel.SERIAL
    loop, name = asyncio.get_running_loop(), uuid4().hex
    heads: dict[int, bytes] = {}

    async def session(number: int, turns: int) -> None:
        for count in range(turns):
            head = b"%096d" % count
            body = msgspec.json.encode(turn(count))
            answer: asyncio.Future[Any] = loop.create_future()
            response = client.execute_async(write.bind((head, bytes(150), body, f"{name}/{number}", count, heads.get(number))))
            response.add_callbacks(
                lambda rows, answer=answer: loop.call_soon_threadsafe(answer.set_result, rows),
                lambda error, answer=answer: loop.call_soon_threadsafe(answer.set_exception, error),
            )
            ((applied, *_),) = await answer
            assert applied
            heads[number] = head

    figure = await warmed(session, turns)
    await asyncio.to_thread(cluster.shutdown)
    return figure


SYSTEMS = {"Perdure": fresh_turns, "bare cassandra-driver": bare_turns}


def main() -> None:
    """Print the table."""
    machine()
    figures: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    with folder() as place:
        server = Modern(place)
        server.start()
        try:
            for measure in SYSTEMS.values():
                asyncio.run(measure(server, WARM))
            for _ in range(ROUNDS):
                for name, measure in SYSTEMS.items():
                    figures[name].append(asyncio.run(measure(server, TURNS)))
        finally:
            server.stop()
    ratio = statistics.median(mine / bare for mine, bare in zip(*figures.values(), strict=True))
    rows = [(name, f"{statistics.median(found):,.0f}", "" if name == "Perdure" else f"{ratio:.2f} x") for name, found in figures.items()]
    table("Cassandra, one node, 64 sessions at once", [("turns/s", "", "Perdure is"), *rows])


if __name__ == "__main__":
    run(main)
