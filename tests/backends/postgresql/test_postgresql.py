"""PostgreSQL: what is its own beside the shared suites: statements counted, levels of durability, logins, schemas, replicas."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import perdure
from perdure import Durability, Event
from perdure.backends.conformance import behind, expecting
from perdure.backends.registry import open_backend
from perdure.backends.spi import Appended, Known, Refused
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL, PostgreSQLStandby
from tests.servers.process import free_port
from tests.support.backends.engines import Engine, diagnosis
from tests.support.backends.scenarios import (
    group_is_one_request,
    nothing_left,
    opened,
    pause_ends_in_time,
    visit,
    warm_read_is_one_request,
)

ENGINE = Engine("postgresql", PostgreSQL)


@pytest.fixture
def url(servers: Servers[PostgreSQL]) -> str:
    return ENGINE.url(servers(PostgreSQL))


def statements(backend: Any) -> int:
    return backend.driver.connections.statements


async def test_a_group_is_one_statement_and_so_is_a_warm_read(url: str) -> None:
    """64 sessions, new or known, with keys, are appended to in one statement; a read of a session in memory asks for its head alone."""

    async with opened(url) as backend:
        await group_is_one_request(backend, statements)
    await warm_read_is_one_request(url, statements)


async def test_a_key_that_is_applied_while_its_retry_waits_is_known(url: str, servers: Servers[PostgreSQL]) -> None:
    """A retry waits for the head that the first try holds: its look for the key is older than that head, yet it hears of the key."""
    server = servers(PostgreSQL)

    def waiting() -> int:
        return int(server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    async def until(count: int) -> None:
        while await asyncio.to_thread(waiting) != count:
            pass

    one, two = [await open_backend(url, clock=SystemClock()) for _ in range(2)]
    session = SessionKey("acme", "s")
    (made,) = await one.append([behind(session)])
    holder = await psycopg.AsyncConnection.connect(server.url)
    await holder.execute(f"SELECT FROM {url.partition('namespace=')[2]}.session FOR UPDATE")
    first = asyncio.create_task(one.append([expecting(session, made.head, key="k")]))
    await until(1)
    retry = asyncio.create_task(two.append([expecting(session, None, key="k")]))
    await until(2)
    await holder.close()
    assert isinstance((await first)[0], Appended)
    (known,) = await retry
    assert isinstance(known, Known) and known.version == 2
    for backend in (one, two):
        await backend.close()


async def test_two_stores_that_make_one_session_at_once(url: str) -> None:
    """Of writers in two stores that start the same sessions in different orders, one wins, the other learns its head."""

    one, two = [await open_backend(url, clock=SystemClock()) for _ in range(2)]
    for turn in range(10):
        sessions = [SessionKey("acme", f"{turn}-{number}") for number in range(32)]
        mine, theirs = await asyncio.gather(
            one.append([expecting(session, None, salt=b"1") for session in sessions]),
            two.append([expecting(session, None, salt=b"2") for session in reversed(sessions)]),
        )
        for outcomes in zip(mine, reversed(theirs), strict=True):
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Appended", "Refused"]
            won = next(outcome for outcome in outcomes if isinstance(outcome, Appended))
            lost = next(outcome for outcome in outcomes if isinstance(outcome, Refused))
            assert lost.head == won.head
    await one.close()
    await two.close()


async def test_levels_are_what_the_server_does(servers: Servers[Any]) -> None:
    """Alone a server reaches `local`, on request `buffered`, and refuses `quorum`; with a synchronous standby it says `quorum`."""
    alone, pair = ENGINE.url(servers(PostgreSQL)), ENGINE.url(servers(PostgreSQLStandby))

    async with perdure.open(alone) as store:
        assert (await store.append("s", Event("a"))).durability is Durability.local
        assert (await store.append("s", Event("a"), durability="buffered")).durability is Durability.buffered
        with pytest.raises(perdure.Unsupported):
            await store.append("s", Event("a"), durability="quorum")
    async with perdure.open(pair, durability="quorum") as store:
        assert (await store.append("s", Event("a"))).durability is Durability.quorum


async def test_a_replica_is_refused(servers: Servers[Any]) -> None:
    """A standby takes no writes, and opening it says so."""
    pair = servers(PostgreSQLStandby)
    with pytest.raises(perdure.Unsupported, match="takes no writes"):
        await visit(pair.url.replace(str(pair.port("primary")), str(pair.port("standby"))))


async def test_a_standby_that_hangs_is_unknown_in_time(server_of_my_own: Servers[PostgreSQLStandby]) -> None:
    """While the standby is frozen, a commit that must reach it is `Unknown` in time, stored once, and goes on when it wakes."""
    server = server_of_my_own(PostgreSQLStandby)

    async with perdure.open(server.url + "?timeout=1", durability="quorum") as store:
        await store.append("s", Event("a"))
        await pause_ends_in_time(server, store, "standby", seconds=20)
        await asyncio.sleep(1)
        assert (await store.append("s", Event("b"), key="k")).version == 2
        assert [commit.version async for commit in store.history("s")] == [1, 2]


async def test_logins_and_databases(servers: Servers[PostgreSQL]) -> None:
    """A wrong password, a user without rights and a database that is not there are told apart; no message holds a password."""
    server = servers(PostgreSQL)
    rules = server.home / "primary" / "pg_hba.conf"
    rules.write_text(f"host all guest 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("CREATE ROLE guest LOGIN PASSWORD 'pa55word'")
        admin.execute("SELECT pg_reload_conf()")
    server.wait("the new rule", lambda: "guest" in server.sql("SELECT user_name::text FROM pg_hba_file_rules"), 10)
    for password in ("wr0ng", "pa55word"):  # The right one may log in, and has no right to make a schema.
        with pytest.raises(perdure.Unauthorized) as refused:
            await visit(server.url.replace("postgres@", f"guest:{password}@") + "?namespace=guests")
        assert password not in str(refused.value)
    assert "permission denied" in str(refused.value)
    with pytest.raises(perdure.Invalid, match="CREATE DATABASE"):
        await visit(server.url.removesuffix("/postgres") + "/nowhere")
    with pytest.raises(perdure.Unavailable):
        await visit(f"postgresql://127.0.0.1:{free_port()}/postgres?connect_timeout=1")
    for bad in ("postgresql://h/d?namespace=a-b", "postgresql://h/d?colour=red", "postgresql://h/d?timeout=-1"):
        with pytest.raises(perdure.Invalid):
            await visit(bad)


async def test_a_login_that_is_not_there_is_told_as_one(servers: Servers[PostgreSQL]) -> None:
    """A role that is not there and a password that was not given are `Unauthorized`, in words that say so."""
    server = servers(PostgreSQL)
    rules = server.home / "primary" / "pg_hba.conf"
    rules.write_text(f"host all asked 127.0.0.1/32 scram-sha-256\nhost all barred 127.0.0.1/32 reject\n{rules.read_text()}")
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("CREATE ROLE asked LOGIN PASSWORD 'pa55word'")
        admin.execute("CREATE ROLE idle NOLOGIN")
        admin.execute("SELECT pg_reload_conf()")
    server.wait("the new rule", lambda: "asked" in server.sql("SELECT user_name::text FROM pg_hba_file_rules"), 10)
    for role, says in (("nowhere", "does not exist"), ("asked", "no password"), ("barred", "rejects"), ("idle", "not permitted to log in")):
        with pytest.raises(perdure.Unauthorized, match=says):
            await visit(server.url.replace("postgres@", f"{role}@"))


def test_a_socket_of_this_machine(servers: Servers[PostgreSQL]) -> None:
    """`postgresql:///database?host=/folder` reaches the server by its Unix socket; so does the folder in the place of the host."""
    server = servers(PostgreSQL)
    folder, port = server.home / "primary", server.port("primary")
    where = f"user=postgres&port={port}&namespace=by_socket"
    for url in (
        f"postgresql:///postgres?host={folder}&{where}",
        f"postgresql://{quote(str(folder), safe='')}/postgres?{where}",
        f"postgresql://postgres@/postgres?host={folder}&port={port}&namespace=by_socket",
    ):
        with perdure.sync.open(url) as store:
            store.append("s", Event("a"))
    with perdure.sync.open(f"{server.url}?namespace=by_socket", create=False) as store:
        assert store.read("s").version == 3


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_does_not_hold_every_text_is_refused(servers: Servers[PostgreSQL], encoding: str) -> None:
    """Another encoding than UTF8 is `Unsupported` at open, with the command that makes a good one; nothing is made in it."""
    server, name = servers(PostgreSQL), encoding.lower()
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = server.url.removesuffix("/postgres") + f"/{name}"
    with pytest.raises(perdure.Unsupported, match=f"{encoding}.*ENCODING 'UTF8'"):
        await visit(url)
    with psycopg.connect(url) as inside:
        assert inside.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'perdure'").fetchone() == (0,)


async def test_another_encoding_of_the_client_changes_nothing(url: str) -> None:
    """Whatever encoding the URL asks for, ids and tags outside it are stored and found."""

    async with perdure.open(f"{url}&client_encoding=LATIN1") as store:
        await store.append("🙂", Event("a"))
        await store.configure("🙂", tags={"mood": "🙂"})
        assert [info.session async for info in store.list(tags={"mood": "🙂"})] == ["🙂"]


async def test_connections_that_the_server_closed_while_idle_are_not_noticed(url: str, servers: Servers[PostgreSQL]) -> None:
    """Pooled connections that were ended meanwhile cost no failed call, reads and writes alike."""
    server = servers(PostgreSQL)

    async with perdure.open(f"{url}&application_name=idle_ones&pool=4") as store:
        await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(32)))
        for call in (
            lambda: asyncio.gather(*(store.read(f"s{number}") for number in range(32))),
            lambda: store.append("s0", Event("b")),
            lambda: asyncio.gather(*(store.verify(f"s{number}") for number in range(32))),
        ):
            await asyncio.gather(*(store.verify(f"s{number}") for number in range(32)))
            ended = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'idle_ones'"
            assert int(await asyncio.to_thread(server.sql, ended)) >= 1
            await call()


async def test_a_value_that_cannot_be_stored_fails_alone(url: str) -> None:
    """One append whose key the server cannot hold is `Invalid`; the others of its group are stored."""

    async with opened(url) as backend:
        sessions = [SessionKey("acme", f"s{number}") for number in range(20)]
        outcomes = await backend.append([behind(session, key="a\0b" if number == 7 else "k") for number, session in enumerate(sessions)])
        assert isinstance(outcomes[7], perdure.Invalid)
        assert all(isinstance(outcome, Appended) for number, outcome in enumerate(outcomes) if number != 7)
        assert [head is not None for head in await backend.heads(sessions)] == [number != 7 for number in range(20)]


async def test_a_group_that_is_too_much_for_one_statement_is_sent_in_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large appends that come together are stored in several statements, each once."""
    monkeypatch.setattr("perdure.backends.postgresql.driver.BATCH_BYTES", 1000)

    async with opened(url) as backend:
        sessions = [SessionKey("acme", f"s{number}") for number in range(9)]
        outcomes = await backend.append([behind(session, body=b"x" * 400) for session in sessions])
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        assert [head and head.version for head in await backend.heads(sessions)] == [1] * 9


@pytest.mark.parametrize("namespace", ["pg_x", "PG_X", "pg_catalog", "information_schema"])
async def test_names_that_postgresql_keeps_for_itself(servers: Servers[PostgreSQL], namespace: str) -> None:
    """A namespace that is PostgreSQL's is `Invalid`, in words that say so."""
    with pytest.raises(perdure.Invalid, match="PostgreSQL's own"):
        await visit(f"{servers(PostgreSQL).url}?namespace={namespace}")


@pytest.mark.parametrize(
    "table",
    [
        "store (a int)",
        "store (name int, value int)",
        "store (name text, value text)",
        "session (a int)",
        "log (n bigint)",
        "snapshot (x text)",
    ],
)
async def test_tables_of_something_else(servers: Servers[PostgreSQL], table: str) -> None:
    """A schema that has a table of one of our names is not ours: `Corrupt` at open, with or without creating, and it stays as it is."""
    server = servers(PostgreSQL)
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("DROP SCHEMA IF EXISTS others CASCADE; CREATE SCHEMA others")
        admin.execute(f"CREATE TABLE others.{table}")  # type: ignore[call-overload, arg-type, unused-ignore]
        with pytest.raises(perdure.Corrupt, match="another namespace"):
            await visit(f"{server.url}?namespace=others")
        with pytest.raises((perdure.Corrupt, perdure.NotFound), match="others"):
            perdure.sync.open(f"{server.url}?namespace=others", create=False)
        found = admin.execute("SELECT relname FROM pg_class WHERE relnamespace = 'others'::regnamespace AND relkind = 'r'").fetchall()
    assert [name for (name,) in found] == [table.partition(" ")[0]]


async def test_schemas_of_another_kind(servers: Servers[PostgreSQL]) -> None:
    """A newer schema is `Unsupported`, one that something else made `Corrupt`; a table dropped by hand is said to be gone."""
    server = servers(PostgreSQL)
    url = ENGINE.url(server, "strange")
    await visit(url)
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("UPDATE strange.store SET value = '99' WHERE name IN ('schema', 'min_writer')")
        with pytest.raises(perdure.Unsupported, match="schema version 99"):
            await visit(url)
        admin.execute("DELETE FROM strange.store")
        with pytest.raises(perdure.Corrupt, match="not made by Perdure"):
            await visit(url)
        admin.execute("INSERT INTO strange.store VALUES ('schema', '1'), ('id', 'x')")
        admin.execute("DROP TABLE strange.log")

    async with perdure.open(url) as store:
        with pytest.raises(perdure.Unavailable, match="changed or dropped by hand"):
            await store.append("s", Event("a"))


async def test_many_open_an_empty_database_at_once(servers: Servers[PostgreSQL]) -> None:
    """Ten stores that open a namespace that is not there yet agree on one store id."""
    url = ENGINE.url(servers(PostgreSQL))

    stores = await asyncio.gather(*(perdure.open(url)._open() for _ in range(10)))
    assert len({store.id for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_the_feed_refuses_to_miss_what_another_server_wrote(servers: Servers[PostgreSQL]) -> None:
    """Records restored from a server that had begun more transactions make the feed `Unsupported`; after the statement that the error and
    `perdure doctor` name they all come, with what was written since. Appends and reads work all the time."""
    server = servers(PostgreSQL)
    url = ENGINE.url(server, name := "restored")
    async with opened(url) as backend:
        for _ in range(3):
            await backend.append([behind(SessionKey("acme", "s"))])
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"UPDATE {name}.log SET xid = (xid::text::bigint + 1000000000)::text::xid8")  # type: ignore[arg-type, unused-ignore]
        async with opened(url) as backend:
            assert isinstance((await backend.append([behind(SessionKey("acme", "s"))]))[0], Appended)
            assert len(await backend.read(SessionKey("acme", "s"))) == 4
            with pytest.raises(perdure.Unsupported, match="restored from another server") as caught:
                await backend.feed()
            statement = str(caught.value).split("`")[1]
            assert any(statement in finding.mend for finding in (await backend.checkup()).findings)
            admin.execute(statement)  # type: ignore[arg-type, unused-ignore]
            assert [change.record.head.version for change in (await backend.feed()).items] == [1, 2, 3, 4]
            assert not [finding for finding in (await backend.checkup()).findings if finding.level == "bad" and "restored" in finding.what]


async def test_the_feed_waits_for_the_oldest_transaction(servers: Servers[PostgreSQL]) -> None:
    """A transaction that started earlier and commits later is not passed over: the feed stops before it until it ends."""
    server = servers(PostgreSQL)
    url = ENGINE.url(server, name := "feeding")

    backend = await open_backend(url, clock=SystemClock())
    await backend.append([behind(SessionKey("acme", "a"))])
    with psycopg.connect(server.url) as slow:
        slow.execute(f"UPDATE {name}.store SET value = value WHERE name = 'id'")
        await backend.append([behind(SessionKey("acme", "b"))])
        page = await backend.feed()
        seen = [change.session.id for change in page.items]
        assert "b" not in seen
    rest = await backend.feed(page.cursor)
    assert seen + [change.session.id for change in rest.items] == ["a", "b"]
    await backend.close()


async def test_closing_leaves_nothing_behind(servers: Servers[PostgreSQL]) -> None:
    """After `close` no connection and no thread of the store is left; 200 tasks share a bounded pool."""
    server = servers(PostgreSQL)

    async def scenario() -> None:
        async with perdure.open(ENGINE.url(server, "closing") + "&pool=3&application_name=closing") as store:
            await asyncio.gather(*(store.append(f"s{number % 50}", Event("a")) for number in range(200)))
            assert 1 <= connections() <= 3

    def connections() -> int:
        return int(server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'"))

    with nothing_left():
        await scenario()
    server.wait("connections gone", lambda: connections() == 0, 10)


def test_doctor_finds_a_server_that_does_not_sync(server_of_my_own: Servers[PostgreSQL]) -> None:
    """Fsync off is bad, and the exit code says so; a commit there is promised no more than `buffered`."""
    server = server_of_my_own(PostgreSQL)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    told = diagnosis(server.url)
    assert (told["healthy"], told["status"] != 0, told["durability"]) == (False, True, "buffered")
    assert told["server"]["fsync"] == "off"
    assert any("fsync = on" in finding["fix"] for finding in told["findings"])
