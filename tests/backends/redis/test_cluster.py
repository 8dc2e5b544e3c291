"""A Cluster that changes while clients write: slots that move from node to node, and its own elections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

import perdure
from perdure import Durability, Event
from perdure.backends.redis.layout import prefix, shard_of
from perdure.model.ids import SessionKey
from tests.backends.test_engine_faults import TIMEOUTS, handles
from tests.servers.fixture import Servers
from tests.servers.valkey import ValkeyCluster, ValkeyClusterElecting, ask
from tests.support.backends.engines import Engine
from tests.support.backends.load import SESSIONS, Load
from tests.support.backends.scenarios import retrying

CLUSTER = Engine("valkey-cluster", ValkeyCluster)


def place(namespace: str, session: SessionKey) -> tuple[str, int]:
    """What the keys of a session's shard begin with, and their slot."""
    name = prefix(namespace, shard_of(session))
    return name, key_slot(name.encode())


async def more_of_each(load: Load, sessions: Iterable[SessionKey]) -> None:
    """Until each of these sessions has taken another append."""
    before = {session: len(load.acknowledged[session]) for session in sessions}
    while any(len(load.acknowledged[session]) == count for session, count in before.items()):
        await load.more(1)


def other_primary(server: ValkeyCluster, source: str) -> str:
    return next(node for node in server.primaries if node != source)


def keys_of(server: ValkeyCluster, node: str, slot: int) -> list[bytes]:
    with server.client(node) as client:
        return client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10_000)


async def test_a_slot_that_moves_under_load(servers: Servers[ValkeyCluster]) -> None:
    """Twelve clients append while a shard's slot moves key by key to another primary, and back. Sessions of other shards go on meanwhile,
    those of the shard as soon as it has arrived; nothing acknowledged is lost, and what was seen has one order."""
    server, namespace = servers(ValkeyCluster), "moving"
    name, slot = place(namespace, SESSIONS[0])
    there = [session for session in SESSIONS if place(namespace, session)[0] == name]
    elsewhere = [session for session in SESSIONS if session not in there]

    async def move(load: Load) -> None:
        source = server.owner(slot)
        target = other_primary(server, source)
        await asyncio.to_thread(server.begin_move, slot, source, target)
        await load.more(20)
        for key in keys_of(server, source, slot):
            await asyncio.to_thread(server.move_key, key, source, target)
            await load.more(3)
        await more_of_each(load, elsewhere)
        assert not keys_of(server, source, slot)
        await asyncio.to_thread(server.end_move, slot, source, target)
        await more_of_each(load, SESSIONS)
        assert server.owner(slot) == target

    async with handles(CLUSTER.url(server, namespace) + TIMEOUTS, 3) as opened:
        load = Load(opened)
        await load.more(200)
        await more_of_each(load, SESSIONS)
        await move(load)
        await move(load)
        await load.stop()
        await load.check()


@pytest.mark.parametrize("first", ["h", "l:", "k:", "f", "n:", "b"])
async def test_a_shard_whose_keys_are_on_two_nodes_waits(servers: Servers[ValkeyCluster], first: str) -> None:
    """While one kind of key is on the new node and the rest on the old, nothing is written in the shard and no session is taken for
    missing; heads and keys are still told. When all have arrived, and before the slot is handed over, it goes on, on a node that had to be
    given the functions; and after that too."""
    server, namespace = servers(ValkeyCluster), f"half{ord(first[0])}"
    session = SessionKey("default", "s0")
    fresh = next(key for n in range(1000) if shard_of(key := SessionKey("default", f"fresh{n}")) == shard_of(session))
    name, slot = place(namespace, session)
    source = server.owner(slot)
    target = other_primary(server, source)

    url = CLUSTER.url(server, namespace)
    async with perdure.open(f"{url}&timeout=1") as hasty, perdure.open(url) as store:
        for number in range(3):
            await store.append("s0", Event("a", number), key=f"k{number}")
        server.begin_move(slot, source, target)
        for key in keys_of(server, source, slot):
            if key.startswith(f"{name}{first}".encode()):
                server.move_key(key, source, target)
        refused = await asyncio.gather(
            hasty.append("s0", Event("b")), hasty.append(fresh.id, Event("b")), hasty.history("s0").__anext__(), return_exceptions=True
        )
        assert all(isinstance(error, perdure.Unavailable) for error in refused), refused
        assert any("moving" in str(error) for error in refused), refused  # One may have waited for the other, and was not sent.
        backend = store._core.backend
        assert [head and head.version for head in await backend.heads([session, fresh])] == [3, None]
        assert (await backend.find_key(session, "k1")).version == 2
        assert await backend.find_key(session, "k9") is None
        waiting = [asyncio.ensure_future(retrying(lambda id=id: store.append(id, Event("b"), key="late"))) for id in ("s0", fresh.id)]
        others = [f"o{n}" for n in range(100) if shard_of(SessionKey("default", f"o{n}")) != shard_of(session)]
        await asyncio.gather(*[store.append(id, Event("a")) for id in others])
        assert not any(call.done() for call in waiting)
        ask(server.port(target), "FUNCTION", "FLUSH")
        for key in keys_of(server, source, slot):
            server.move_key(key, source, target)
        assert [receipt.version for receipt in await asyncio.gather(*waiting)] == [4, 1]
        assert "perdure_2" in functions(server, target)
        assert (await store.append("s0", Event("c"))).version == 5
        server.end_move(slot, source, target)
        assert (await store.append("s0", Event("d"))).version == 6
        assert (await hasty.append("s0", Event("e"))).version == 7
        assert (await store.append("s0", Event("b"), key="late")).duplicate
        assert [commit.version async for commit in store.history("s0")] == list(range(1, 8))
        assert len([info async for info in store.list()]) == 2 + len(others)


async def test_a_slot_that_the_servers_move_by_themselves_under_load(servers: Servers[ValkeyCluster]) -> None:
    """The same, with Valkey's own atomic move of a slot (9.0 and newer): no session waits for long, and nothing acknowledged is lost."""
    server, namespace = servers(ValkeyCluster), "atomic"
    slots = sorted({place(namespace, session)[1] for session in SESSIONS})[:3]

    def move(slot: int) -> None:
        source = server.owner(slot)
        target = other_primary(server, source)
        with server.client(source) as client:
            try:
                client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", server.id(target))
            except ResponseError as error:
                pytest.skip(f"This server has no atomic move: {error}")
        server.wait("the slot moved", lambda: server.owner(slot) == target)

    async with handles(CLUSTER.url(server, namespace) + TIMEOUTS, 3) as opened:
        load = Load(opened)
        await load.more(200)
        for slot in slots:
            await asyncio.to_thread(move, slot)
            await more_of_each(load, SESSIONS)
        await load.stop()
        await load.check()


async def test_an_election_loses_nothing_acknowledged_at_quorum(server_of_my_own: Servers[ValkeyClusterElecting]) -> None:
    """A primary is killed with -9 while twelve clients append at `quorum` with `replicas=1`; the Cluster elects its replica, without help.
    Then `local` commits go on by themselves in every shard, those at `quorum` when the new primary has a replica again: nothing
    acknowledged at `quorum` is lost, no key is applied twice. Less is not claimed: `failover_loss` is `local`, and reads may show what an
    election drops."""
    server = server_of_my_own(ValkeyClusterElecting)
    url = f"{server.url}?namespace=elected"

    async with handles(f"{url}&replicas=1{TIMEOUTS}", 3) as opened, perdure.open(f"{url}{TIMEOUTS}") as store:
        claimed = opened[0].capabilities
        assert (claimed.durability, claimed.failover_loss, claimed.linearizable_reads) == (Durability.quorum, Durability.local, False)
        load = Load(opened)
        await more_of_each(load, SESSIONS)
        server.kill("p1")
        await elected(server, "r1")
        for session in SESSIONS:
            assert (await retrying(lambda id=session.id: store.append(id, Event("a"), key="after"))).durability is Durability.local
        await asyncio.to_thread(server.start)
        assert "role:slave" in ask(server.port("p1"), "INFO", "replication")
        await more_of_each(load, SESSIONS)
        await load.stop()
        await load.check_chains()
        assert "perdure_2" in functions(server, "r1")


async def test_what_only_a_dead_primary_had_is_gone_and_nothing_more(server_of_my_own: Servers[ValkeyClusterElecting]) -> None:
    """With its replica cut off, a primary acknowledges at `local` alone: at `quorum` it is `Unknown`. After kill -9 and the election just
    those commits are gone; sent again under its key, the unknown one is applied once."""
    server = server_of_my_own(ValkeyClusterElecting)
    url = f"{server.url}?namespace=cut"

    async with (
        perdure.open(f"{url}&replicas=1", durability="quorum") as patient,
        perdure.open(f"{url}&replicas=1{TIMEOUTS}", durability="quorum") as safe,
        perdure.open(f"{url}{TIMEOUTS}") as quick,
    ):
        id = next(f"s{n}" for n in range(1000) if server.owner(place("cut", SessionKey("default", f"s{n}"))[1]) == "p1")
        assert (await patient.append(id, Event("kept"))).durability is Durability.quorum
        server.pause("r1")
        ask(server.port("p1"), "CLIENT", "KILL", "TYPE", "replica")
        assert (await quick.append(id, Event("lost"))).durability is Durability.local
        with pytest.raises(perdure.Unknown):
            await safe.append(id, Event("unknown"), key="k")
        server.kill("p1")
        server.resume("r1")
        await elected(server, "r1")
        assert await retrying(lambda: types(quick, id)) == ["kept"]
        await asyncio.to_thread(server.start)
        assert (await retrying(lambda: safe.append(id, Event("unknown"), key="k"))).version == 2
        assert (await retrying(lambda: quick.append(id, Event("next")))).version == 3
        assert await types(quick, id) == ["kept", "unknown", "next"]


async def types(store: perdure.Store, id: str) -> list[str]:
    """The types of a session's events, a commit each."""
    return [commit.events[0].type async for commit in store.history(id)]


async def elected(server: ValkeyCluster, node: str) -> None:
    """Until the Cluster has made a replica a primary, by itself."""
    await asyncio.to_thread(server.wait, "an election", lambda: "role:master" in ask(server.port(node), "INFO", "replication"))


def functions(server: ValkeyCluster, node: str) -> str:
    with server.client(node) as client:
        return str(client.execute_command("FUNCTION", "LIST"))
