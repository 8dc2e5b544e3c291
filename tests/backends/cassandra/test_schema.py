"""Cassandra's schema 2 beside the kit: what a later version wrote is kept, rows of what is due, cells beside a sealed head."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

import perdure
from perdure.backends.conformance import behind
from perdure.backends.spi import NEVER, Appended, Index, Query, Snapshot
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.servers.cassandra import Cassandra
from tests.servers.fixture import Servers
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened
from tests.support.golden import places
from tests.support.golden.cassandra import BUCKET, NAMESPACE, CassandraKeyspace

S = SessionKey("acme", "s")
DUE = Query(None, order="due")
DELETED = Query(None, order="due", status=int(Status.deleted))


@pytest.fixture
def url(servers: Servers[Cassandra]) -> str:
    """A store of its own, whose buckets hold two versions."""
    return Engine("cassandra", Cassandra).url(servers(Cassandra)) + "&bucket=2"


async def asked(backend: Any, text: str) -> list[Any]:
    """What a statement on the store's tables gives."""
    driver = backend.driver
    where = text.format(ks=f'"{driver.client.keyspace}"', ns=driver._ns)
    return [tuple(row) for row in await backend.run(driver.client.ask(where))]


async def counts(backend: Any) -> tuple[int, int]:
    """How many rows say that a session is due, and how many windows there are to look in."""
    rows = [row for row in await asked(backend, "SELECT ns FROM {ks}.due") if row[0] == backend.driver._ns]
    windows = await asked(backend, "SELECT \"window\" FROM {ks}.due_window WHERE ns = '{ns}'")
    return len(rows), len({*windows})


async def due(backend: Any, query: Query = DUE) -> list[tuple[str, int | None]]:
    """The sessions that are due, and when."""
    return [(row.session.id, row.due_at) for row in (await backend.scan(query)).items]


def hurry(backend: Any) -> None:
    """Let scans look at rows that are younger than the horizon, too."""
    backend.driver._due._horizon = 0


async def cells(backend: Any) -> tuple[int | None, bytes, int]:
    row = (await backend.load(S)).row
    return row.due_at, row.control, row.size_bytes


async def fields(backend: Any, bucket: int) -> Any:
    """The cells that stand in a bucket."""
    where = f"WHERE ns = '{{ns}}' AND tenant = 'acme' AND id = 's' AND bucket = {bucket}"
    found = await asked(backend, f"SELECT DISTINCT cells FROM {{ks}}.log {where}")
    return msgspec.msgpack.decode(found[0][0]) if found and found[0][0] is not None else None


async def put_fields(backend: Any, bucket: int, new: dict[str, Any]) -> None:
    """Change the cells, as a later version would."""
    where = f"WHERE ns = '{{ns}}' AND tenant = 'acme' AND id = 's' AND bucket = {bucket}"
    await asked(backend, f"UPDATE {{ks}}.log SET cells = 0x{msgspec.msgpack.encode(new).hex()} {where} IF EXISTS")


async def test_what_a_later_version_put_into_the_cells_stays(url: str) -> None:
    """Fields of a later version outlive appends, new buckets, changes without a commit, snapshots and a purge."""
    async with opened(url) as backend:
        await backend.append([behind(S, index=Index({"a": "b"}, 5))])
        await put_fields(backend, 0, {**await fields(backend, 0), "later": {"x": 1}})
        (made,) = await backend.append([behind(S, index=Index(due_at=6, control=b"control"))])
        assert await backend.change_index((await backend.load(S)).row, Index(due_at=7))
        await backend.put_snapshot(S, Snapshot(2, made.head.hash, b"state"), size_bytes=8)
        await backend.append([behind(S)])
        assert await cells(backend) == (7, b"control", 8)
        assert (await fields(backend, 1))["later"] == {"x": 1}
        await backend.append([behind(S, kind=Kind.tombstone, status=Status.deleted)])
        await backend.purge(S)
        await backend.append([behind(S)])
        assert await cells(backend) == (None, b"", 0)
        assert (await fields(backend, 2)) == {"later": {"x": 1}}


async def test_a_later_schema_that_takes_this_writer_is_opened_and_its_columns_kept(url: str) -> None:
    """A store of schema 3 with `min_writer` 2 opens and works, and keeps columns nobody here knows; with 3 it is refused."""
    async with opened(url) as backend:
        for table in ("store", "log"):
            await asked(backend, f"ALTER TABLE {{ks}}.{table} ADD later_{backend.driver._ns} text")
        await asked(backend, f"UPDATE {{ks}}.store SET layout = 3, later_{backend.driver._ns} = 'kept' WHERE ns = '{{ns}}' IF EXISTS")
    async with opened(url) as backend:
        assert backend.schema == 3
        assert isinstance((await backend.append([behind(S, index=Index(due_at=5))]))[0], Appended)
        assert await due(backend) == [("s", 5)]
        await backend.require_writer(3)
        names = f"layout, min_writer, later_{backend.driver._ns}"
        assert await asked(backend, f"SELECT {names} FROM {{ks}}.store WHERE ns = '{{ns}}'") == [(3, 3, "kept")]
    with pytest.raises(perdure.Unsupported, match="upgrade perdure"):
        async with opened(url):
            pass


async def test_rows_of_what_is_due_follow_the_cells(url: str) -> None:
    """A session has one row while it is due, and none when it is not, or was purged; empty windows are forgotten by the next scan."""
    async with opened(url) as backend:
        await backend.append([behind(S, index=Index(due_at=5))])
        for due_at in (6, 6, 1 << 62, 1 << 61):
            await backend.append([behind(S, index=Index(due_at=due_at))])
            assert (await counts(backend))[0] == 1
        assert await counts(backend) == (1, 3)
        assert await due(backend) == [("s", 1 << 61)]
        assert await counts(backend) == (1, 1)
        assert await backend.change_index((await backend.load(S)).row, Index(due_at=NEVER))
        assert (await counts(backend))[0] == 0
        await backend.append([behind(S, index=Index(due_at=9), kind=Kind.tombstone, status=Status.deleted)])
        assert await due(backend, DELETED) == [("s", 9)]
        await backend.purge(S)
        assert (await counts(backend))[0] == 0
        assert await due(backend, DELETED) == []
        assert await counts(backend) == (0, 0)


async def test_a_window_that_was_forgotten_is_found_again(url: str) -> None:
    """What becomes due in a window that a scan has left out is found, whichever handle wrote it and remembers the window."""
    async with opened(url) as one, opened(url) as other:
        for number in range(4):
            backend = (one, other)[number % 2]
            await backend.append([behind(S, index=Index(due_at=5))])
            assert await due(other) == [("s", 5)]
            await one.append([behind(S, index=Index(due_at=NEVER))])
            assert await due(one) == []
            assert await counts(one) == (0, 0)


@pytest.mark.parametrize("session", [S, SessionKey("acme", "unborn")], ids=str)
async def test_a_row_whose_writer_died_is_removed(url: str, session: SessionKey) -> None:
    """A row that no cells name is shown to nobody; a scan removes it when it is older than the horizon."""
    async with opened(url) as backend:
        await backend.append([behind(S, index=Index(due_at=7))])
        await backend.run(backend.driver._due.put(session, 3))
        assert await due(backend) == [("s", 7)]
        assert (await counts(backend))[0] == 2
        hurry(backend)
        assert await due(backend) == [("s", 7)]
        assert (await counts(backend))[0] == 1
        assert isinstance((await backend.append([behind(session, index=Index(due_at=8))]))[0], Appended)
        assert (session.id, 8) in await due(backend)


@pytest.mark.parametrize("what", ["append", "first append", "change"])
async def test_a_writer_that_sleeps_after_its_row_is_fenced_off_and_tries_again(
    url: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan removes the row of a writer that sleeps before its conditional write: that write fails, and the next has a row of its own."""
    async with opened(url) as slow, opened(url) as other:
        if what != "first append":
            await other.append([behind(S)])
        asleep, awake = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        client = slow.driver.client
        decide, sleeps = client.decide, [True]

        async def sleepy(*statements: Any) -> Any:
            if sleeps and statements[0][0] in ("append_cells", "change_cells"):
                sleeps.clear()
                loop.call_soon_threadsafe(asleep.set)
                await awake.wait()
            return await decide(*statements)

        async def wake() -> None:
            awake.set()

        monkeypatch.setattr(client, "decide", sleepy)
        if what == "change":
            writing = asyncio.ensure_future(slow.change_index((await slow.load(S)).row, Index(due_at=5)))
        else:
            writing = asyncio.ensure_future(slow.append([behind(S, index=Index(due_at=5))]))
        await asleep.wait()
        hurry(other)
        assert await due(other) == []
        assert (await counts(other))[0] == 0
        await slow.run(wake())
        written = await writing
        assert written is True or isinstance(written[0], Appended)
        assert await due(other) == [("s", 5)]
        assert (await counts(other))[0] == 1


async def test_the_cells_of_a_sealed_head_change(url: str) -> None:
    """A head that sealed its bucket is due, changes and is not due any more; the next append, of either handle, has what was changed."""
    async with opened(url) as one, opened(url) as other:
        await one.append([behind(S, index=Index({"a": "b"}, 5, b"policy"))])
        await one.append([behind(S)])
        assert await other.change_index((await other.load(S)).row, Index(due_at=6, size_bytes=3))
        for backend in (one, other):
            assert await cells(backend) == (6, b"policy", 3)
            assert await due(backend) == [("s", 6)]
        stale = msgspec.structs.replace((await one.load(S)).row, due_at=5)
        assert not await one.change_index(stale, Index(due_at=9))
        assert isinstance((await one.append([behind(S, index=Index(control=b"new"))]))[0], Appended)
        row = (await other.load(S)).row
        assert (row.head.version, row.tags, row.due_at, row.control, row.size_bytes) == (3, {"a": "b"}, 6, b"new", 3)
        await one.append([behind(S, kind=Kind.tombstone, status=Status.deleted)])
        assert await other.change_index((await other.load(S)).row, Index(due_at=7))
        await other.purge(S)
        assert await cells(one) == (None, b"", 0)
        assert (await counts(one))[0] == 0
        await one.append([behind(S)])
        assert await cells(other) == (None, b"", 0)


async def test_appends_and_changes_do_not_overtake_one_another(url: str) -> None:
    """Two handles append with cells, over many buckets, and change them, at the same time: all is stored, and one row is left."""

    async def append(backend: Any, first: int) -> None:
        for number in range(10):
            (outcome,) = await backend.append([behind(S, index=Index(due_at=first + number) if number % 2 else None)])
            assert isinstance(outcome, Appended)

    async def count(backend: Any) -> int:
        made = 0
        for _ in range(20):
            row = (await backend.load(S)).row
            size = row.size_bytes + 1
            made += await backend.change_index(row, Index(due_at=9000 + size, size_bytes=size))
        return made

    async with opened(url) as one, opened(url) as other:
        await one.append([behind(S, index=Index(due_at=1))])
        *_, made, more = await asyncio.gather(append(one, 100), append(other, 200), count(one), count(other))
        row = (await one.load(S)).row
        assert (row.head.version, row.size_bytes) == (21, made + more)
        assert await due(other) == [("s", row.due_at)]
        hurry(one)
        assert await due(one) == [("s", row.due_at)]
        assert (await counts(one))[0] == 1


async def test_a_new_store_beside_one_of_schema_1(servers: Servers[Cassandra], tmp_path: Path) -> None:
    """A new namespace in a keyspace of schema 1 has schema 2; the store that was there stays what it was, and works."""
    place = CassandraKeyspace(servers(Cassandra), tmp_path)
    dump = places.kept(places.FOLDER / "schema1" / "cassandra.json.xz")
    place.load(dump)
    async with opened(place.url.replace(f"namespace={NAMESPACE}", "namespace=new")) as new:
        assert new.schema == 2
        assert isinstance((await new.append([behind(S, index=Index(due_at=5))]))[0], Appended)
        assert await due(new) == [("s", 5)]
    async with opened(place.url) as old:
        assert (old.schema, old.driver._chain.buckets.size) == (1, BUCKET)
        assert isinstance((await old.append([behind(S)]))[0], Appended)
        (outcome,) = await old.append([behind(S, index=Index(due_at=5))])
        assert isinstance(outcome, perdure.Unsupported)
