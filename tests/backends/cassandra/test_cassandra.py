"""Cassandra: what is its own beside the shared suites: requests counted, large bodies, logins, keyspaces, strangers, promises."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind
from perdure.backends.registry import open_backend
from perdure.backends.spi import Appended, Durability
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey
from tests.servers.cassandra import Cassandra
from tests.servers.fixture import Servers
from tests.servers.process import free_port
from tests.support.backends.engines import Engine, diagnosis
from tests.support.backends.scenarios import large_ones_come_back_whole, nothing_left, visit, warm_read_is_one_request

ENGINE = Engine("cassandra", Cassandra)


@pytest.fixture
def url(servers: Servers[Cassandra]) -> str:
    return ENGINE.url(servers(Cassandra))


async def test_requests_are_as_few_as_promised(url: str) -> None:
    """64 sessions at once are one write each and a few tellings; a lone append is told and written; a warm read asks for the head alone."""

    backend: Any = await open_backend(url, clock=SystemClock())
    client = backend.driver.client
    sessions = [SessionKey("acme", f"s{number}") for number in range(64)]
    for round in range(3):
        before = client.requests
        outcomes = await backend.append([behind(session, key=f"k{round}") for session in sessions])
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        # A new session is listed first. The first append to come is told alone, the others while that is under way.
        assert client.requests - before <= 64 + 2 + (64 + 1 if round == 0 else 0)
    lone = SessionKey("acme", "lone")
    await backend.append([behind(lone)])
    await asyncio.sleep(2)  # Longer than it would be told of ahead.
    before = client.requests
    await backend.append([behind(lone)])
    assert client.requests == before + 2
    await backend.close()
    await warm_read_is_one_request(url, lambda backend: backend.driver.client.requests)


async def test_what_is_larger_than_a_row_goes_in_pieces(url: str) -> None:
    """A commit of 5 MiB and a state of 3 MiB with its snapshot come back whole, and purged they leave no piece; above 16 MiB it is
    `TooLarge` and nothing is stored."""

    await large_ones_come_back_whole(url)
    async with perdure.open(url) as store:
        backend: Any = store._core.backend
        names = [name for (name,) in await backend.run(backend.driver.client.run("large", _ns(url), "default", "s"))]
        assert len(names) >= 2
        await store.delete("s")
        await backend.purge(SessionKey("default", "s"))
        for name in names:
            assert not await backend.run(backend.driver.client.run("pieces", _ns(url), "default", "s", name, 0))
        assert not await backend.run(backend.driver.client.run("large", _ns(url), "default", "s"))


def _ns(url: str) -> str:
    return url.rpartition("namespace=")[2].partition("&")[0]


class Guarded(Cassandra):
    """A node that asks who one is. Its first user is Cassandra's own."""

    name = "cassandra-guarded"
    more = "authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer\nrole_manager: CassandraRoleManager\n"
    login = ("cassandra", "cassandra")


async def test_logins_and_rights(server_of_my_own: Servers[Guarded]) -> None:
    """No login or a wrong one is `Unauthorized`, never shown; the right one works; one that may only read is told so at its first write."""
    server = server_of_my_own(Guarded)

    def at(login: str) -> str:
        return server.url.replace("//", f"//{login}")

    for login in ("", "cassandra:wr0ng@", "nobody:wr0ng@"):
        with pytest.raises(perdure.Unauthorized) as refused:
            await perdure.open(at(login))
        assert "wr0ng" not in str(refused.value)
    async with perdure.open(at("cassandra:cassandra@")) as store:
        assert "cassandra:cassandra" not in repr(store) + repr(store._core.backend)
        await store.append("s", Event("a"))
    server.query("CREATE ROLE reader WITH PASSWORD = 's3cret' AND LOGIN = true")
    server.query("GRANT SELECT ON KEYSPACE perdure TO reader")
    async with perdure.open(at("reader:s3cret@")) as store:
        assert (await store.read("s")).version == 1
        with pytest.raises(perdure.Unauthorized) as refused:
            await store.append("s", Event("b"))
        assert "s3cret" not in str(refused.value) + repr(store)


async def test_a_keyspace_is_made_when_asked_for(servers: Servers[Cassandra]) -> None:
    """Without `replication` a missing keyspace is `Invalid` and says what to do; with it, eight make it once, whatever its name."""
    server = servers(Cassandra)
    place = server.url.partition("/perdure?")[0] + "/table"

    with pytest.raises(perdure.Invalid, match="replication="):
        await visit(place)
    stores = await asyncio.gather(*[perdure.open(f"{place}?replication=1") for _ in range(8)])
    receipts = await asyncio.gather(*[store.append(f"s{number}", Event("a")) for number, store in enumerate(stores)])
    assert [receipt.version for receipt in receipts] == [1] * 8
    assert len([row async for row in stores[0].list()]) == 8
    await asyncio.gather(*[store.close() for store in stores])
    await visit(place)


async def test_foreign_and_newer_stores_are_refused(servers: Servers[Cassandra], url: str) -> None:
    """A newer layout is `Unsupported`; a row or a table that is not as Perdure made it is `Corrupt`; nothing is changed."""
    server = servers(Cassandra)
    await visit(url)
    server.query("INSERT INTO perdure.store (ns, layout, id, bucket) VALUES ('newer', 99, 'x', 1000)")
    server.query("INSERT INTO perdure.store (ns, layout) VALUES ('foreign', 1)")
    base = url.partition("&namespace=")[0]
    with pytest.raises(perdure.Unsupported, match="schema version 99"):
        await visit(f"{base}&namespace=newer")
    with pytest.raises(perdure.Corrupt, match="not written by Perdure"):
        await visit(f"{base}&namespace=foreign")
    assert list(server.query("SELECT layout, id FROM perdure.store WHERE ns = 'foreign'")) == [(1, None)]
    changed = base.replace("/perdure?", "/changed?")
    await visit(changed)
    server.query("ALTER TABLE changed.log DROP told")

    async with perdure.open(changed) as store:
        with pytest.raises(perdure.Corrupt, match="not as Perdure made them"):
            await store.append("s", Event("a"))


async def test_a_record_changed_by_hand_is_found(servers: Servers[Cassandra], url: str) -> None:
    """Bytes that nobody wrote are `Corrupt` when they are read, and `verify` finds them."""
    server = servers(Cassandra)

    async with perdure.open(url) as store:
        await store.append("s", Event("a"))
        await store.append("s", Event("b"))
    where = f"ns = '{_ns(url)}' AND tenant = 'default' AND id = 's' AND bucket = 0 AND part = 'r' AND version = 1 AND key = ''"
    server.query(f"UPDATE perdure.log SET record = 0x00 WHERE {where}")
    async with perdure.open(url) as store:
        with pytest.raises(perdure.Corrupt):
            await store.verify("s")


class Periodic(Cassandra):
    """A node as upstream ships it: it acknowledges before it syncs."""

    name = "cassandra-periodic"
    commitlog = "periodic"


async def test_what_is_not_synced_is_not_called_local(server_of_my_own: Servers[Periodic]) -> None:
    """With a periodic commit log `local` is refused at `open`, `buffered` is what receipts say, and doctor tells why."""
    server = server_of_my_own(Periodic)
    with pytest.raises(perdure.Unsupported, match="buffered"):
        await perdure.open(server.url, durability="local")
    async with perdure.open(server.url) as store:
        assert (await store.append("s", Event("a"))).durability == Durability.buffered
    told = diagnosis(server.url)
    assert told["server"]["commitlog_sync"] == "periodic"
    assert any("commitlog_sync: batch" in finding["fix"] for finding in told["findings"])


async def test_doctor_names_what_weakens_a_keyspace(servers: Servers[Cassandra]) -> None:
    """One replica, rows that end by themselves, durable_writes off: each is a finding with the statement that mends it."""
    server = servers(Cassandra)
    weak = server.url.replace("/perdure?", "/weak?")
    await visit(weak)
    server.query("ALTER TABLE weak.log WITH default_time_to_live = 86400")
    server.query("ALTER KEYSPACE weak WITH durable_writes = false")
    told = diagnosis(weak)
    said = " ".join(finding["what"] + finding["fix"] for finding in told["findings"])
    for words in ("replication factor 1", "weak.log vanish after 86,400 s", "default_time_to_live = 0", "durable_writes = true"):
        assert words in said, told
    assert told["server"]["durability"] == "memory"


async def test_bad_urls_strangers_and_nobody(servers: Servers[Cassandra], tmp_path: Path) -> None:
    """A URL that means nothing is `Invalid` before anything is asked; where nobody answers, or a stranger, it is `Unavailable` in time."""
    host = f"127.0.0.1:{servers(Cassandra).cql}"
    for bad in (
        "cassandra://",
        f"cassandra://{host}/key-space",
        f"cassandra://{host}/a/b",
        "cassandra://127.0.0.1:none/perdure",
        f"cassandra://{host}/perdure?replication=many",
        f"cassandra://{host}/perdure?replication=east:3;DROP",
        f"cassandra://{host}/perdure?consistency=one",
        f"cassandra://{host}/perdure?serial=local_serial&consistency=quorum",
        f"cassandra://{host}/perdure?bucket=1",
        f"cassandra://{host}/perdure?tls=on&ca={tmp_path}/none.pem",
        f"cassandra://{host}/perdure?colour=red",
    ):
        with pytest.raises(perdure.Invalid):
            await visit(bad)
    start = time.monotonic()
    with pytest.raises(perdure.Unavailable, match="no node can be reached"):
        await visit(f"cassandra://127.0.0.1:{free_port()},127.0.0.2:{free_port()}/perdure?connect_timeout=1")
    assert time.monotonic() - start < 30

    async def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(perdure.Unavailable):
            await perdure.open(f"cassandra://127.0.0.1:{port}/perdure?connect_timeout=1")


async def test_one_datacentre_decides_where_it_is_told_to(url: str, servers: Servers[Cassandra]) -> None:
    """With serial=local_serial all is decided in the datacentre that is named, and doctor says so."""
    local = url + "&serial=local_serial&datacenter=datacenter1"
    async with perdure.open(local) as store:
        for number in range(3):
            await store.append("s", Event("a"), key=f"k{number}")
        assert (await store.append("s", Event("a"), key="k1")).version == 2
    assert diagnosis(local)["server"]["consistency"] == "local_quorum, local_serial"


async def test_closing_leaves_nothing_behind(url: str) -> None:
    """After 200 appends at once and `close`, no thread and no socket of the store is left."""
    await visit(url)

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(200)))
            assert any(thread.name.startswith("perdure-cassandra") for thread in threading.enumerate())

    with nothing_left(within=10):  # The driver's thread ends when it sees that its last connection is gone.
        await scenario()
