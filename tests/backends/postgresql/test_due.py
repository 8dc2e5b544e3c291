"""PostgreSQL: what is due costs appends nothing, and is found by its index."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from perdure.backends.conformance import behind
from perdure.backends.spi import Index, Query
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened

APPENDS = 30
S = SessionKey("acme", "s")


async def test_appends_stay_in_their_page(servers: Servers[Any]) -> None:
    """Appends to a session that is due, with and without a control cell of their own, change no index: each update is HOT."""
    server = servers(PostgreSQL)
    async with opened(Engine("postgresql", PostgreSQL).url(server, "hot")) as backend:
        await backend.append([behind(S, index=Index({"a": "b"}, 5, b"policy", 7))])
        for number in range(APPENDS):
            await backend.append([behind(S, index=Index(control=b"%d" % number) if number % 2 else None)])
    # Its connections tell what they did when they end.
    updates = hot = 0
    async with asyncio.timeout(60):
        with psycopg.connect(server.url, autocommit=True) as admin:
            while updates < APPENDS:
                admin.execute("SELECT pg_stat_clear_snapshot()")
                told = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'hot' AND relname = 'session'"
                ((updates, hot),) = admin.execute(told).fetchall()
                await asyncio.sleep(0.05)
    assert (updates, hot) == (APPENDS, APPENDS)


async def test_what_is_due_is_found_by_its_index(servers: Servers[Any]) -> None:
    """Three sessions are due among twenty thousand: a page of them reads no others."""
    server = servers(PostgreSQL)
    async with opened(Engine("postgresql", PostgreSQL).url(server, "due")) as backend:
        await backend.append([behind(SessionKey("acme", f"due-{number}"), index=Index(due_at=number)) for number in range(3)])
        await backend.append([behind(S)])
        columns = "tenant, version, hash, at, epoch, status, data, created"
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(
                f"INSERT INTO due.session (id, {columns}) SELECT 't-' || i, {columns}"  # type: ignore[arg-type, unused-ignore]
                " FROM due.session, generate_series(1, 20000) AS i WHERE id = 's'"
            )
            admin.execute("ANALYZE due.session")
            before = admin.execute(
                "SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'due' AND relname = 'session'"
            ).fetchall()
        for query in (Query(None, order="due"), Query("acme", order="due", due_before=9), Query("acme", "due-", order="due")):
            assert [row.session.id for row in (await backend.scan(query)).items] == ["due-0", "due-1", "due-2"]
        page = await backend.scan(Query(None, order="due"), limit=2)
        assert [row.session.id for row in (await backend.scan(Query(None, order="due"), cursor=page.cursor)).items] == ["due-2"]
    with psycopg.connect(server.url, autocommit=True) as admin:
        scans = 0
        async with asyncio.timeout(60):
            while scans < 5:  # by the index, as soon as it is told
                admin.execute("SELECT pg_stat_clear_snapshot()")
                told = "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = 'due' AND indexrelname = 'session_due'"
                ((scans,),) = admin.execute(told).fetchall()
                await asyncio.sleep(0.05)
        after = admin.execute("SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'due' AND relname = 'session'").fetchall()
    assert after[0][0] - before[0][0] < 1_000
