"""What it costs to list a few sessions by a tag among many: counted in steps of the engine, not in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind
from perdure.backends.spi import Index, Query
from perdure.backends.sqlite.due import scan as scan_due
from perdure.backends.sqlite.heads import Heads
from perdure.backends.sqlite.reader import scan
from perdure.model.ids import SessionKey
from tests.servers.etcd import Etcd
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.servers.valkey import Valkey
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened

FewAndMany = tuple[apsw.Connection, apsw.Connection]
STEP = 50
"""Steps of SQLite's machine between two counts."""


def filled(path: Path, sessions: int) -> apsw.Connection:
    """A store with so many sessions that all have one tag, and five of them a rare one."""
    with perdure.sync.open(f"sqlite:///{path}") as store:
        store.append("s-0", Event("a"))
    connection = apsw.Connection(str(path))
    numbers = f"WITH RECURSIVE i(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM i WHERE n < {sessions})"
    with connection:
        connection.execute(
            f"{numbers} INSERT INTO session (n, tenant, id, created, status, tags)"
            " SELECT i.n, tenant, 's-' || i.n, created, status, tags FROM i, session WHERE session.n = 1"
        )
        connection.execute(
            f"{numbers} INSERT INTO log SELECT NULL, i.n, version, hash, at, epoch, status, data, id, kind, key, request, meta, body"
            " FROM i, log WHERE log.n = 1"
        )
        connection.execute("INSERT INTO tag SELECT tenant, 'team', 'ops', id FROM session")
        connection.execute(f"INSERT INTO tag SELECT tenant, 'rare', 'yes', id FROM session WHERE n % {sessions // 5} = 0")
        connection.execute("""UPDATE session SET tags = (SELECT json_group_object(name, value) FROM tag WHERE tag.id = session.id)""")
    return connection


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FewAndMany]:
    """A hundred sessions, and a hundred times as many. What a test changes it takes back."""
    folder = tmp_path_factory.mktemp("stores")
    with closing(filled(folder / "few.db", 100)) as few, closing(filled(folder / "many.db", 10_000)) as many:
        yield few, many


def steps(connection: apsw.Connection, query: Query, limit: int = 100) -> tuple[int, int]:
    """How many counts a page takes, and how many rows it has."""
    count = 0

    def tick() -> bool:
        nonlocal count
        count += 1
        return False

    connection.set_progress_handler(tick, STEP)
    rows = len(scan(connection, Heads(), query, None, limit).items)
    connection.set_progress_handler(None)
    return count, rows


@pytest.mark.parametrize("tags", [{"rare": "yes"}, {"team": "ops", "rare": "yes"}, {"rare": "yes", "team": "ops"}, {"none": "no"}])
@pytest.mark.parametrize("prefix", ["", "s-"])
def test_a_rare_tag_is_found_without_looking_at_everyone(few_and_many: FewAndMany, tags: dict[str, str], prefix: str) -> None:
    """Among a hundred times as many sessions the five with a tag are found in as many steps, also beside a tag that all have."""
    (small, found), (large, found_too) = [steps(connection, Query("default", prefix, tags)) for connection in few_and_many]
    assert found == found_too == (0 if "none" in tags else 5)
    assert large <= small + 2_000 // STEP * 10  # The rarest is found by counting up to a thousand of each.


def test_a_page_of_a_common_tag_costs_a_page(few_and_many: FewAndMany) -> None:
    """Of ten thousand sessions with a tag, the first ten are read and no others; so they are after a prefix and a cursor."""
    _, connection = few_and_many
    assert steps(connection, Query("default", "", {"team": "ops"}), 10)[0] < 20_000 // STEP
    assert [row.session.id for row in scan(connection, Heads(), Query("default", "s-99", {"team": "ops"}), "s-9998", 9).items] == ["s-9999"]


@pytest.mark.parametrize("query", [Query(None, order="due"), Query("default", "s-", order="due", due_before=9)], ids=["all", "some"])
def test_what_is_due_is_found_without_looking_at_others(few_and_many: FewAndMany, query: Query) -> None:
    """Of a hundred times as many sessions as many are due: a page of them takes as many steps, also after a cursor."""
    counts = []
    for connection in few_and_many:
        connection.execute("UPDATE session SET due_at = n WHERE n <= 7")
        count = 0

        def tick() -> bool:
            nonlocal count
            count += 1
            return False

        connection.set_progress_handler(tick, STEP)
        page = scan_due(connection, Heads(), query, None, 4)
        rest = scan_due(connection, Heads(), query, page.cursor, 4)
        connection.set_progress_handler(None)
        connection.execute("UPDATE session SET due_at = NULL")
        assert [row.due_at for row in (*page.items, *rest.items)] == [1, 2, 3, 4, 5, 6, 7]
        assert rest.cursor is None
        counts.append(count)
    assert counts[1] <= counts[0] + 5


@pytest.mark.parametrize(
    ("engine", "module"), [(Engine("valkey", Valkey), "redis.driver"), (Engine("etcd", Etcd), "etcd.reader")], ids=["valkey", "etcd"]
)
async def test_without_an_index_a_page_is_bounded(
    engine: Engine, module: str, servers: Servers[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every row has to be looked at, a call ends after so many with a short page and a cursor; all pages together miss nothing."""
    monkeypatch.setattr(f"perdure.backends.{module}.LOOKED_MAX", 16)
    monkeypatch.setattr("perdure.backends.etcd.reader.SCANNED", 8)

    async with opened(engine.url(servers(engine.server))) as backend:
        sessions = [SessionKey("acme", f"s{number:03d}") for number in range(200)]
        tagged = {"s003", "s101", "s199"}
        tags = [Index({"rare": "yes"}) if session.id in tagged else None for session in sessions]
        await backend.append([behind(session, index=index) for session, index in zip(sessions, tags, strict=True)])
        found, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            page = await backend.scan(Query("acme", "", {"rare": "yes"}), cursor=cursor, limit=2)
            found += [row.session.id for row in page.items]
            cursor, pages = page.cursor, pages + 1
        assert found == sorted(tagged)
        assert pages > 3


def test_postgresql_goes_by_its_index_of_tags(servers: Servers[Any]) -> None:
    """A rare tag among many sessions is found without reading them: PostgreSQL counts the rows that it fetched of the table."""
    server = servers(PostgreSQL)
    url = Engine("postgresql", PostgreSQL).url(server, "tagged")
    with perdure.sync.open(url) as store:
        for number in range(3):
            store.append(f"s-{number}", Event("a"))
            store.configure(f"s-{number}", tags={"rare": "yes"})
        with psycopg.connect(server.url, autocommit=True) as admin:
            columns = "tenant, version, hash, at, epoch, status, data, created"
            admin.execute(
                f"INSERT INTO tagged.session (id, tags, {columns}) SELECT 't-' || i, '{{\"team\": \"ops\"}}', {columns}"  # type: ignore[arg-type, unused-ignore]
                " FROM tagged.session, generate_series(1, 20000) AS i WHERE id = 's-0'"
            )
            admin.execute("ANALYZE tagged.session")
            before = fetched(admin)
            assert [info.session for info in store.list(tags={"rare": "yes"})] == ["s-0", "s-1", "s-2"]
            store.close()  # Its connections say what they read when they end.
            assert fetched(admin, after=before) - before < 1_000


def fetched(admin: psycopg.Connection[Any], after: int = -1) -> int:
    """Rows of the table that were read, by whatever way."""
    found = after
    while found <= after:
        admin.execute("SELECT pg_stat_clear_snapshot()")
        row = admin.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE schemaname = 'tagged' AND relname = 'session'"
        )
        ((found,),) = row.fetchall()
    return int(found)
