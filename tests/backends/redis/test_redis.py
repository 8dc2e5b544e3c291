"""Valkey: what is its own beside the shared suites: round trips counted, functions, logins, hands in the data, failovers."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
import redis

import perdure
from perdure import Durability, Event
from perdure.backends.conformance import behind
from perdure.backends.redis.layout import name_of, prefix, shard_of
from perdure.backends.spi import Appended
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.process import HOST, free_port
from tests.servers.valkey import Valkey, ValkeyCluster, ValkeySentinel, ask
from tests.support.backends.engines import Engine, diagnosis
from tests.support.backends.scenarios import (
    engine,
    group_is_one_request,
    large_ones_come_back_whole,
    nothing_left,
    opened,
    retrying,
    visit,
    warm_read_is_one_request,
)

VALKEY = Engine("valkey", Valkey)


@pytest.fixture
def url(servers: Servers[Valkey]) -> str:
    return VALKEY.url(servers(Valkey))


def requests(backend: Any) -> int:
    return backend.driver.connections.requests


def namespace(url: str) -> str:
    return url.partition("namespace=")[2].partition("&")[0]


async def test_a_group_is_one_round_trip_and_so_is_a_warm_read(url: str) -> None:
    """64 sessions, new or known, with keys, are appended to in one round trip; a read of a session in memory asks for its head alone."""

    async with opened(url) as backend:
        await backend.append([behind(SessionKey("acme", "first"))])  # loads the functions
        await group_is_one_request(backend, requests)
    await warm_read_is_one_request(url, requests)


async def test_large_commits_and_states_come_back_whole(url: str) -> None:
    """A commit of 5 MiB and a state of 3 MiB with its snapshot come back whole; above 16 MiB it is `TooLarge` and nothing is stored."""
    await large_ones_come_back_whole(url)


async def test_functions_that_were_flushed_are_loaded_again(server_of_my_own: Servers[Valkey]) -> None:
    """After FUNCTION FLUSH, and after a restart, appends and reads go on, and a key that was applied is known."""
    server = server_of_my_own(Valkey)

    async with perdure.open(server.url) as store:
        await store.append("s", Event("a"), key="k1")
        ask(server.port("primary"), "FUNCTION", "FLUSH")
        assert (await store.append("s", Event("b"), key="k2")).version == 2
        ask(server.port("primary"), "FUNCTION", "FLUSH")
        assert (await store.read("s")).version == 2
        server.kill()
        server.start()
        assert (await store.append("s", Event("a"), key="k1")).duplicate
        assert (await store.append("s", Event("c"))).version == 3


async def test_logins_and_addresses(server_of_my_own: Servers[Valkey]) -> None:
    """A wrong password, no rights, an address where nothing or something else listens, and a URL nobody understands are told apart; no
    message holds a password."""
    server = server_of_my_own(Valkey)
    port = server.port("primary")
    ask(port, "ACL", "SETUSER", "agent", "on", ">pa55word", "~{perdure.*", "+@all", "-config")
    ask(port, "ACL", "SETUSER", "guest", "on", ">pa55word", "~*", "+@read", "+info", "+fcall_ro")

    def at(login: str) -> str:
        return server.url.replace("//", f"//{login}@")

    for login in ("agent:wr0ng", "guest:pa55word"):
        with pytest.raises(perdure.Unauthorized) as refused:
            await visit(at(login))
        assert login.partition(":")[2] not in str(refused.value)
    async with perdure.open(at("agent:pa55word")) as store:
        receipt = await store.append("s", Event("a"))
        assert receipt.durability == Durability.buffered  # CONFIG is hidden from this user
        assert "pa55word" not in repr(store) + repr(store._core.backend)
    with pytest.raises(perdure.Unavailable):
        await visit(f"redis://{HOST}:{free_port()}?connect_timeout=0.5")
    for bad in (
        "redis://",
        "redis://h/name",
        "redis://h,i",
        "redis://h?timeout=0",
        "redis://h?colour=red",
        "redis+sentinel://h",
        "redis+cluster://h/1",
    ):
        with pytest.raises(perdure.Invalid):
            await visit(bad)


async def test_a_stranger_at_the_address_is_an_error_in_time() -> None:
    """A server that answers garbage, or hangs up, raises an error of ours."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(perdure.Error):
            await visit(f"redis://{HOST}:{listener.getsockname()[1]}?timeout=2")
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(("value", "error"), [("not ours", perdure.Corrupt), ('{"schema":3,"id":"x"}', perdure.Unsupported)])
async def test_a_namespace_of_another_kind_is_refused(servers: Servers[Valkey], value: str, error: type[perdure.Error]) -> None:
    """Where something else stands, or a newer layout, opening says so and changes nothing."""
    server = servers(Valkey)
    url = VALKEY.url(server)
    key = f"{prefix(namespace(url), 0)}store"
    ask(server.port("primary"), "SET", key, value)
    with pytest.raises(error):
        await visit(url)
    assert ask(server.port("primary"), "GET", key) == value


async def test_hands_in_the_data_are_found(servers: Servers[Valkey], url: str) -> None:
    """A key of another type, a head that is garbage and one that is gone are `Corrupt` to whoever reads them."""
    port, session = servers(Valkey).port("primary"), SessionKey("acme", "s")
    key, name = prefix(namespace(url), shard_of(session)), name_of(session).decode()

    backend = await engine(url)
    await backend.append([behind(session)])
    ask(port, "DEL", f"{key}l:{name}")
    ask(port, "SET", f"{key}l:{name}", "mine")
    with pytest.raises(perdure.Corrupt):
        await backend.read(session)
    ask(port, "HSET", f"{key}h", name, "garbage")
    with pytest.raises(perdure.Corrupt):
        await backend.heads([session])
    await backend.close()


def held(port: int, key: str, field: str) -> Any:
    with redis.Redis(HOST, port) as client:
        return client.hget(key, field)


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("damage", ["records", "keys", "head"])
async def test_a_damaged_session_spoils_nobody(servers: Servers[Valkey], url: str, damage: str, new: bool) -> None:
    """In a group with one session whose keys are damaged the others are stored and told so; the damaged one is `Corrupt`, and as it was."""
    port = servers(Valkey).port("primary")
    sessions = [SessionKey("acme", f"s{number}") for number in range(40)]
    bad = sessions[17]
    key, name = prefix(namespace(url), shard_of(bad)), name_of(bad).decode()
    place = {"records": f"{key}l:{name}", "keys": f"{key}k:{name}"}

    async with opened(url) as backend:
        if not new:
            await backend.append([behind(session, key="k1") for session in sessions])
        if damage == "head":
            ask(port, "HSET", f"{key}h", name, "garbage")
        else:
            ask(port, "DEL", place[damage])
            ask(port, "SET", place[damage], "mine")
        head = held(port, f"{key}h", name)
        outcomes = await backend.append([behind(session, key="k2") for session in sessions])
        assert isinstance(outcomes[17], perdure.Corrupt), outcomes[17]
        others = [session for session in sessions if session != bad]
        assert all(isinstance(outcome, Appended) for outcome in outcomes if outcome is not outcomes[17])
        assert {found and found.version for found in await backend.heads(others)} == {1 if new else 2}
        assert held(port, f"{key}h", name) == head
    async with opened(url) as backend:
        outcomes = await backend.append([behind(session, key="k3") for session in sessions])
        assert [isinstance(outcome, Appended) for outcome in outcomes] == [session != bad for session in sessions]


async def test_records_without_a_head_are_not_gone_on_from(servers: Servers[Valkey], url: str) -> None:
    """A session whose head was taken away is `Corrupt` to whoever would start it: its records are still there."""
    port, session = servers(Valkey).port("primary"), SessionKey("acme", "s")

    async with opened(url) as backend:
        await backend.append([behind(session)])
    ask(port, "HDEL", f"{prefix(namespace(url), shard_of(session))}h", name_of(session).decode())
    async with opened(url) as backend:
        (outcome,) = await backend.append([behind(session)])
        assert isinstance(outcome, perdure.Corrupt)


@pytest.mark.parametrize(
    "library",
    [
        "#!lua name=perdure_2\nredis.register_function('theirs', function() return 1 end)",
        "#!lua name=theirs\nredis.register_function('perdure_2_append', function() return 1 end)",
        "#!lua name=theirs\nredis.register_function('perdure_2_append', function() return {1} end)",
    ],
)
async def test_functions_of_something_else_under_our_names(server_of_my_own: Servers[Valkey], library: str) -> None:
    """Another function library of our name, or a function of ours in another one, is `Unsupported` and named; nothing is appended."""
    server = server_of_my_own(Valkey)
    ask(server.port("primary"), "FUNCTION", "LOAD", library)

    async def scenario() -> None:
        async with perdure.open(server.url) as store:
            await store.append("s", Event("a"))

    with pytest.raises(perdure.Unsupported, match="FUNCTION DELETE"):
        await scenario()
    assert ask(server.port("primary"), "FUNCTION", "LIST") == "1"


@pytest.mark.parametrize("database", ["16", "99", "999999999", "9" * 30])
async def test_a_database_that_the_server_does_not_have(servers: Servers[Valkey], database: str) -> None:
    """The number of a database out of range is `Invalid`, and says so."""
    with pytest.raises(perdure.Invalid, match="database"):
        await visit(f"{servers(Valkey).url.removesuffix('/0')}/{database}")


async def test_connections_that_the_server_closed_while_idle_are_not_noticed(url: str, servers: Servers[Valkey]) -> None:
    """Pooled connections that were ended meanwhile cost no failed call, reads and writes alike."""
    port = servers(Valkey).port("primary")

    async with perdure.open(url) as store:
        await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(32)))
        for _ in range(3):
            ask(port, "CLIENT", "KILL", "TYPE", "normal")
            assert (await store.read("s0")).version
            ask(port, "CLIENT", "KILL", "TYPE", "normal")
            await store.append("s0", Event("b"))


async def test_receipts_and_doctor_say_what_the_server_is_set_to(server_of_my_own: Servers[Valkey]) -> None:
    """`local` with appendfsync always, `buffered` with everysec, `memory` without an append-only file; eviction is bad."""
    server = server_of_my_own(Valkey)
    port = server.port("primary")

    async def level() -> Durability:
        async with perdure.open(server.url) as store:
            return (await store.append("s", Event("a"))).durability

    assert await level() == Durability.local
    assert diagnosis(server.url)["status"] == 0
    ask(port, "CONFIG", "SET", "appendfsync", "everysec")
    assert await level() == Durability.buffered
    ask(port, "CONFIG", "SET", "appendonly", "no")
    assert await level() == Durability.memory
    ask(port, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    told = diagnosis(server.url)
    assert told["status"] != 0
    said = str(told)
    assert "allkeys-lru" in said and "noeviction" in said and "append-only file" in said


async def test_replicas_that_do_not_answer_are_unknown_in_time(server_of_my_own: Servers[Valkey]) -> None:
    """At `quorum`, with `replicas=1` and no replica, an append is `Unknown` within its time-outs; sent again with its key it is known."""
    server = server_of_my_own(Valkey)

    async with perdure.open(server.url + "?replicas=1&timeout=1", durability="quorum") as store:
        start = time.monotonic()
        with pytest.raises(perdure.Unknown):
            await store.append("s", Event("a"), key="k")
        assert time.monotonic() - start < 30
    async with perdure.open(server.url) as store:
        assert (await store.append("s", Event("a"), key="k")).duplicate
        assert (await store.read("s")).version == 1


async def test_closing_leaves_nothing_behind(url: str) -> None:
    """Two hundred tasks share the pool; after `close` no thread of the store is left."""

    async def scenario() -> None:
        async with perdure.open(f"{url}&pool=2") as store:
            await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(200)))
            assert len([info async for info in store.list()]) == 200

    with nothing_left():
        await scenario()


async def test_a_failover_behind_sentinels_loses_nothing_acknowledged(server_of_my_own: Servers[ValkeySentinel]) -> None:
    """What was acknowledged at `quorum` with `replicas=1` is on the replica that takes over; work goes on when the old one follows it."""
    server = server_of_my_own(ValkeySentinel)

    async with perdure.open(server.url + "?replicas=1&timeout=5&connect_timeout=1", durability="quorum") as store:
        for number in range(5):
            receipt = await store.append("s", Event("a", number))
            assert receipt.durability == Durability.quorum
        server.kill("primary")
        await asyncio.to_thread(server.wait, "the replica in its place", lambda: "role:master" in _role(server, "replica"))
        assert (await retrying(lambda: store.read("s"))).version == 5
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.wait, "the old one following", lambda: "state=online" in _role(server, "replica"))
        assert (await retrying(lambda: store.append("s", Event("b"), key="after"))).version == 6
        assert [commit.version async for commit in store.history("s")] == list(range(1, 7))


def _role(server: Valkey, node: str) -> str:
    return ask(server.port(node), "INFO", "replication")


async def test_a_cluster_goes_on_with_a_replica(server_of_my_own: Servers[ValkeyCluster]) -> None:
    """When a replica takes a dead primary's place, its sessions are all there and take appends again, without opening anew."""
    server = server_of_my_own(ValkeyCluster)

    names = [f"s{number}" for number in range(40)]
    async with perdure.open(server.url + "?timeout=2&connect_timeout=1") as store:
        await asyncio.gather(*[store.append(name, Event("a")) for name in names])
        await asyncio.to_thread(server.wait, "replicas in step", lambda: all(_in_step(server, node) for node in server.primaries))
        server.kill("p1")
        ask(server.port("r1"), "CLUSTER", "FAILOVER", "TAKEOVER")
        await asyncio.to_thread(server.wait, "a new primary", lambda: "role:master" in _role(server, "r1"))
        for name in names:
            assert (await retrying(lambda name=name: store.append(name, Event("b"), key="after"))).version == 2
        assert len([info async for info in store.list()]) == 40


def _in_step(server: ValkeyCluster, node: str) -> bool:
    told = dict(line.split(":", 1) for line in _role(server, node).splitlines() if ":" in line)
    return f"offset={told['master_repl_offset']}" in told["slave0"]
