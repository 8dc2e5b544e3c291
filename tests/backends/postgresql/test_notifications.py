"""PostgreSQL's news: what it costs and when, what a notification holds, poolers, missing rights, broken connections."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind
from perdure.backends.conformance.notifying import Ear
from perdure.backends.postgresql import notifications
from perdure.backends.postgresql.notifications import PAYLOAD_MAX, SESSIONS_MAX, notices_in, payloads
from perdure.backends.spi import Appended
from perdure.errors import Unsupported
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import PostgreSQL, PostgreSQLStandby
from tests.support.backends.engines import Engine
from tests.support.backends.notifications import a_watch_polls, many_watches_share_one_subscription
from tests.support.backends.scenarios import Handles, until, visit

ENGINE = Engine("postgresql", PostgreSQL)
S = SessionKey("acme", "s")


@pytest.fixture
def server(servers: Servers[PostgreSQL]) -> PostgreSQL:
    return servers(PostgreSQL)


async def test_with_nobody_listening_an_append_is_one_statement_and_nobody_is_notified(server: PostgreSQL) -> None:
    """Of two hundred groups each is one statement; beside them it is looked for someone who listens once a second, and nothing is told:
    one who listens without saying so hears nothing."""
    url = ENGINE.url(server, "quiet")

    async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as stranger:
        await stranger.execute('LISTEN "perdure.quiet"')
        async with Handles() as handles:
            backend = await handles.open(url)
            connections = backend.driver.connections
            sessions = [SessionKey("acme", f"s{number}") for number in range(8)]
            loop = asyncio.get_running_loop()
            before, start = connections.statements, loop.time()
            for _ in range(200):
                await backend.append([behind(session) for session in sessions])
            assert connections.statements == before + 200
            assert connections.asides <= 2 + (loop.time() - start) / notifications.LOOK_EVERY
        assert connections.asides >= 1
        await stranger.execute("""SELECT pg_notify('perdure.quiet', 'the end')""")
        assert [notify.payload async for notify in stranger.notifies(stop_after=1)] == ["the end"]


async def test_many_groups_share_an_announcement(server: PostgreSQL) -> None:
    """While someone listens an append is still one statement, and what two hundred groups stored is told in fewer."""

    async with Handles() as handles:
        url = ENGINE.url(server)
        mine, other = await handles.open(url), await handles.open(url)
        ear = Ear()
        await mine.listen(ear.hear)
        connections = other.driver.connections
        before = connections.statements
        for _ in range(200):
            await other.append([behind(S)])
        assert connections.statements == before + 200
        await ear.until(lambda: ear.newest.get(S) == 200)
        assert connections.asides < 200


@pytest.mark.parametrize("closes", [False, True])
async def test_whoever_comes_is_told_of_what_is_stored_from_then_on(server: PostgreSQL, *, closes: bool) -> None:
    """A store that has just found nobody who listens tells whoever came since of its next append, also when it is closed with that."""

    async with Handles() as handles:
        url = ENGINE.url(server)
        mine, other = await handles.open(url), await handles.open(url)
        await other.append([behind(S)])
        await until(lambda: other.driver._announcer._free_at)  # It has looked, and waits a second.
        ear = Ear()
        await mine.listen(ear.hear)
        await other.append([behind(S)])
        if closes:
            await other.close()
        await ear.until(lambda: ear.newest.get(S) == 2)


async def test_an_append_never_waits_for_notify(server_of_my_own: Servers[PostgreSQLStandby]) -> None:
    """While a commit elsewhere holds the lock that NOTIFY takes, appends are answered though someone listens, and a store can be closed;
    what was stored is told when the lock is free."""
    server = server_of_my_own(PostgreSQLStandby)

    async def append(backend: Any) -> None:
        (outcome,) = await backend.append([behind(S)])  # At `memory`: it does not wait for the standby.
        assert isinstance(outcome, Appended), outcome

    async with Handles() as handles:
        url = ENGINE.url(server)
        mine, other, third = [await handles.open(url) for _ in range(3)]
        ear = Ear()
        await mine.listen(ear.hear)
        await append(other)
        await ear.until(lambda: ear.newest.get(S) == 1)
        server.pause("standby")
        async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as holder:
            held = asyncio.create_task(holder.execute("SELECT pg_notify('x', 'y') FROM pg_create_restore_point('a')"))
            await until(lambda: server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1")
            for _ in range(20):
                await append(other)
            await until(lambda: server.sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'object'") == "1")
            await append(third)
            await third.close()
            assert ear.newest[S] == 1
            server.resume("standby")
            await held
        await append(other)
        await ear.until(lambda: ear.newest.get(S) == 23)


async def test_namespaces_and_databases_do_not_hear_each_other(server: PostgreSQL) -> None:
    """Whoever listens in one namespace is told of nothing from another, nor from a copy of it in another database; nothing is announced
    there."""
    original = server.url.removesuffix("/postgres") + "/original"
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE original")
        await visit(f"{original}?namespace=here")
        admin.execute("CREATE DATABASE copy TEMPLATE original")

    async with Handles() as handles:
        mine = await handles.open(f"{original}?namespace=here")
        ear = Ear()
        await mine.listen(ear.hear)
        for url in (f"{original}?namespace=there", original.replace("original", "copy") + "?namespace=here"):
            other = await handles.open(url)
            await other.append([behind(S)])
            assert not await other.run(other.driver._announcer._announce({S: 1}))
        await mine.append([behind(SessionKey("acme", "mine"))])
        await ear.until(lambda: bool(ear.newest))
        assert set(ear.newest) == {SessionKey("acme", "mine")}


async def test_behind_a_pooler_nobody_listens_and_everybody_tells(servers: Servers[PgBouncer]) -> None:
    """Through PgBouncer `listen` is `Unsupported` and a watch polls; what is stored through it is told to those who listen directly."""
    server = servers(PgBouncer)
    url = Engine("pgbouncer", PgBouncer).url(server)
    straight = url.replace(str(server.port("pgbouncer")), str(server.port("primary")))

    async with Handles() as handles:
        mine, pooled = await handles.open(straight), await handles.open(url)
        assert (mine.capabilities.notification, pooled.capabilities.notification) == (True, False)
        ear = Ear()
        with pytest.raises(Unsupported):
            await pooled.listen(ear.hear)
        await mine.listen(ear.hear)
        await pooled.append([behind(S)])
        await ear.until(lambda: ear.newest.get(S) == 1)
    async with perdure.open(url) as one, perdure.open(straight) as two:
        await two.append("s", Event("a"))
        commits = one.watch("s")
        for version in (1, 2, 3):
            assert (await anext(commits)).version == version
            await two.append("s", Event("a"))
        await commits.aclose()


async def test_rights_that_are_missing_hinder_no_append(server: PostgreSQL) -> None:
    """A user who may not take the lock hears nothing, and one who may not see locks tells nothing: their appends are stored, their watches
    poll."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("CREATE ROLE bound LOGIN CREATEDB")
        admin.execute("CREATE DATABASE bound OWNER bound")
    inside = server.url.removesuffix("/postgres") + "/bound"
    with psycopg.connect(inside, autocommit=True) as admin:
        admin.execute("REVOKE EXECUTE ON FUNCTION pg_advisory_lock_shared(int, int) FROM PUBLIC")
        admin.execute("REVOKE SELECT ON pg_locks FROM PUBLIC")
    url = inside.replace("postgres@", "bound@")
    await a_watch_polls(url)


async def test_a_broken_connection_is_made_again(server: PostgreSQL) -> None:
    """Those who listen, told by the lock that each holds, are put out by an administrator: they listen again, and hear what comes then."""
    lock = f"classid = {notifications.LISTENING} AND objid = 'broken.session'::regclass"
    pid = f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND {lock}"

    async with Handles() as handles:
        url = ENGINE.url(server, "broken")
        mine, other = await handles.open(url), await handles.open(url)
        ear = Ear()
        await mine.listen(ear.hear)
        for version in (1, 2, 3):
            before = server.sql(pid)
            assert before.isdecimal()
            await other.append([behind(S)])
            await ear.until(lambda version=version: ear.newest.get(S) == version)
            server.sql(f"SELECT pg_terminate_backend({before})")
            await until(lambda before=before: server.sql(pid) not in ("", before))
            await until(lambda: mine.hears)


async def test_a_server_that_hangs_is_not_heard(server_of_my_own: Servers[PostgreSQL], monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without news is asked whether it is there: while the server is frozen it counts as broken, then it is made again."""
    monkeypatch.setattr(notifications, "ALIVE_EVERY", 0.2)
    server = server_of_my_own(PostgreSQL)

    async with Handles() as handles:
        mine = await handles.open(ENGINE.url(server) + "&timeout=0.5&connect_timeout=0.5")
        ear = Ear()
        await mine.listen(ear.hear)
        assert mine.hears
        server.pause()
        await until(lambda: not mine.hears)
        server.resume()
        await until(lambda: mine.hears)
        await mine.append([behind(S)])
        await ear.until(lambda: ear.newest.get(S) == 1)


async def test_listening_takes_one_connection_beside_the_pool(server: PostgreSQL) -> None:
    """Two hundred watches have one connection more than the pool; after `close` none is left, and nobody holds the lock any more."""
    url = ENGINE.url(server, "beside") + "&pool=3&application_name=beside"

    def connections() -> int:
        return int(server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'beside'"))

    def check() -> None:
        assert 2 <= connections() <= 4

    await many_watches_share_one_subscription(url, check)
    server.wait("connections gone", lambda: connections() == 0, 10)


def test_payloads_hold_any_session_and_are_as_long_as_notify_takes() -> None:
    """What is packed is what comes out, in pieces of at most 7,999 bytes; a crowd, and what somebody else notified, mean anything."""
    ids = [character * (255 // len(character.encode())) for character in ('"', "\\", "ü", "\U0010ffff", "a")]
    crowd = {SessionKey(tenant, f"{id[:-8]}{number}"): 1 << 62 for tenant in ids for id in ids for number in range(20)}
    pieces = payloads(crowd)
    assert len(pieces) > 1
    assert max(len(piece.encode()) for piece in pieces) <= PAYLOAD_MAX
    assert [notice for piece in pieces for notice in notices_in(piece)] == list(crowd.items())
    assert payloads({S: 1}) == ['[["acme","s",1]]']
    assert payloads({SessionKey("acme", f"s{number}"): 1 for number in range(SESSIONS_MAX + 1)}) == [""]
    for strange in ("", "x", "[]x", '{"a": 1}', '[["acme", "s", "1"]]', '[["acme", 1, 1]]', "null"):
        assert notices_in(strange) == [(None, 0)]


async def test_many_long_ids_are_told(server: PostgreSQL) -> None:
    """Two hundred sessions whose ids are as long and as strange as ids may be, appended to at once, are all heard."""
    sessions = [SessionKey('"' * 255, f"{number:03}" + "\U0010ffff" * 63) for number in range(200)]

    async with Handles() as handles:
        url = ENGINE.url(server)
        mine, other = await handles.open(url), await handles.open(url)
        ear = Ear()
        await mine.listen(ear.hear)
        await other.append([behind(session) for session in sessions])
        await ear.until(lambda: ear.newest == dict.fromkeys(sessions, 1))
