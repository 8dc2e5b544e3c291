"""A store of a later schema that still takes writers of this version: what they do not know is kept, until they are shut out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind
from perdure.backends.spi import Index, Query, Snapshot
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened

S = SessionKey("acme", "s")
Change = Callable[..., list[Any]]


def sqlite(url: str) -> Change:
    """Statements on the file."""

    def change(*statements: str) -> list[Any]:
        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        with connection:
            rows = [row for statement in statements for row in connection.execute(statement)]
        connection.close()
        return rows

    return change


def postgresql(url: str) -> Change:
    """Statements in the schema."""
    server, _, namespace = url.partition("?namespace=")

    def change(*statements: str) -> list[Any]:
        rows: list[Any] = []
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f"SET search_path TO {namespace}")  # type: ignore[arg-type, unused-ignore]
            for statement in statements:
                cursor = admin.execute(statement)  # type: ignore[arg-type, unused-ignore]
                rows += cursor.fetchall() if cursor.description else []
        return rows

    return change


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, servers: Servers[Any], tmp_path: Path) -> tuple[str, Change, str]:
    """A store's URL, what changes it by hand, and the statement that gives it a later schema."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/store.db"
        return url, sqlite(url), "PRAGMA user_version = 3"
    url = Engine("postgresql", PostgreSQL).url(servers(PostgreSQL))
    return url, postgresql(url), "UPDATE store SET value = '3' WHERE name = 'schema'"


async def test_unknown_columns_are_kept(store: tuple[str, Change, str]) -> None:
    """Each table of a later schema has a column that nobody here knows: all writes work, and leave it as it is."""
    url, change, later = store
    async with opened(url) as backend:
        await backend.append([behind(S, index=Index({"a": "b"}, 5, b"policy", 7), key="k")])
    tables = ("session", "log", "key", "snapshot")
    change(*[f"ALTER TABLE {table} ADD COLUMN future TEXT DEFAULT 'new'" for table in tables], later)
    change("UPDATE session SET future = 'kept'")
    async with opened(url) as backend:
        assert backend.schema == 3
        (outcome,) = await backend.append([behind(S, index=Index({"c": "d"}, due_at=6), key="k2")])
        assert await backend.change_index((await backend.load(S)).row, Index(control=b"other"))
        await backend.put_snapshot(S, Snapshot(2, outcome.head.hash, b"state"), size_bytes=9)
        (row,) = (await backend.scan(Query(None, order="due"))).items
        assert (row.tags, row.due_at, row.control, row.size_bytes) == ({"c": "d"}, 6, b"other", 9)
        assert len(await backend.read(S)) == 2
    assert change("SELECT future FROM session") == [("kept",)]
    assert change("SELECT future FROM snapshot") == [("new",)]
    async with perdure.open(url, tenant="acme") as opened_store:
        await opened_store.append("another", Event("a"))


async def test_a_later_version_shuts_writers_out(store: tuple[str, Change, str]) -> None:
    """With a least writer of 3 an open store's next append is refused and writes nothing, and the store does not open any more."""
    url, change, later = store
    async with perdure.open(url) as mine:
        await mine.append("s", Event("a"))
        change(later, "UPDATE store SET value = '3' WHERE name = 'min_writer'")
        for call in (mine.append("s", Event("b")), mine.append("new", Event("b")), mine.configure("s", tags={"a": "b"}), mine.delete("s")):
            with pytest.raises(perdure.Unsupported, match="upgrade perdure") as caught:
                await call
            assert (caught.value.min_writer, caught.value.writer) == (3, 2)
        assert (await mine.read("s")).version == 1
        assert [info.session async for info in mine.list()] == ["s"]
    with pytest.raises(perdure.Unsupported, match="upgrade perdure"):
        await perdure.open(url)


async def test_a_least_writer_that_is_no_number(store: tuple[str, Change, str]) -> None:
    """A header that was changed by hand is `Corrupt`, and nothing is written."""
    url, change, _ = store
    async with perdure.open(url) as mine:
        await mine.append("s", Event("a"))
    change("UPDATE store SET value = 'many' WHERE name = 'min_writer'")
    with pytest.raises(perdure.Corrupt):
        await perdure.open(url)
