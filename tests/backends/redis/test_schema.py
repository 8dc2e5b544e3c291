"""Redis' schema 2 beside the kit: headers of later versions, the sorted set of what is due, races, round trips."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis

import perdure
from perdure.backends.conformance import behind
from perdure.backends.spi import NEVER, Appended, Index, Query
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.valkey import Valkey
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened

S = SessionKey("acme", "s")
DUE = Query(None, order="due")


@pytest.fixture
def url(servers: Servers[Valkey]) -> str:
    return Engine("valkey", Valkey).url(servers(Valkey))


@pytest.fixture
def client(servers: Servers[Valkey]) -> Any:
    with redis.Redis.from_url(servers(Valkey).url) as client:
        yield client


def due_members(client: Any, backend: Any) -> int:
    """How many entries say that a session is due."""
    return sum(client.zcard(f"{prefix}d") for prefix in backend.driver._prefixes)


async def test_a_later_schema_that_takes_this_writer_is_opened_and_its_header_kept(url: str, client: Any) -> None:
    """A header of schema 3 with `min_writer` 2 opens and works; what it says beside is kept; with 3 it is refused."""
    async with opened(url) as backend:
        key = f"{backend.driver._prefixes[0]}store"
        client.set(key, json.dumps({**json.loads(client.get(key)), "schema": 3, "region": ["north"]}))
    async with opened(url) as backend:
        assert isinstance((await backend.append([behind(S, index=Index(due_at=5))]))[0], Appended)
        assert [row.session for row in (await backend.scan(DUE)).items] == [S]
        await backend.require_writer(3)
        header = json.loads(client.get(key))
        assert (header["schema"], header["min_writer"], header["region"]) == (3, 3, ["north"])
        assert isinstance((await backend.append([behind(S)]))[0], perdure.Unsupported)
    with pytest.raises(perdure.Unsupported, match="upgrade perdure"):
        async with opened(url):
            pass


async def test_entries_of_what_is_due_follow_the_rows(url: str, client: Any) -> None:
    """A session has one entry while it is due, and none after it is not, or was purged; no cell is left then."""
    async with opened(url) as backend:
        await backend.append([behind(S, index=Index(due_at=5, control=b"\r\n\0\xff", size_bytes=(1 << 63) - 1))])
        for due_at in (6, 6, 1 << 62):
            await backend.append([behind(S, index=Index(due_at=due_at))])
            assert due_members(client, backend) == 1
        row = (await backend.load(S)).row
        assert (row.control, row.size_bytes) == (b"\r\n\0\xff", (1 << 63) - 1)
        await backend.change_index(row, Index(due_at=NEVER))
        assert due_members(client, backend) == 0
        await backend.append([behind(S, index=Index(due_at=9), kind=Kind.tombstone, status=Status.deleted)])
        assert due_members(client, backend) == 1
        await backend.purge(S)
        assert not [key for prefix in backend.driver._prefixes for kind in "adoz" for key in client.keys(prefix + kind)]


async def test_a_session_without_cells_has_no_key_of_schema_2(url: str, client: Any) -> None:
    """What a store of schema 1 holds and what one of schema 2 holds differ by the header alone while no cell is set."""
    async with opened(url) as backend:
        await backend.append([behind(S, key="k", index=Index({"a": "b"}, due_at=NEVER, control=b"", size_bytes=0))])
        assert not [key for prefix in backend.driver._prefixes for kind in "adozm" for key in client.keys(prefix + kind)]


async def test_appends_and_changes_of_a_row_do_not_overtake_one_another(url: str, client: Any) -> None:
    """Two handles append with cells, and change the row, at the same time: each append is stored, and the entry is that of the row."""

    async def append(backend: Any, first: int) -> None:
        for number in range(20):
            (outcome,) = await backend.append([behind(S, index=Index(due_at=first + number, size_bytes=number))])
            assert isinstance(outcome, Appended)

    async def touch(backend: Any) -> None:
        for number in range(40):
            await backend.change_index((await backend.load(S)).row, Index(due_at=9000 + number, control=b"%d" % number))

    async with opened(url) as one, opened(url) as other:
        await one.append([behind(S, index=Index(due_at=1))])
        await asyncio.gather(append(one, 100), append(other, 200), touch(one), touch(other))
        row = (await one.load(S)).row
        assert row.head.version == 41
        assert due_members(client, one) == 1
        assert [found.due_at for found in (await other.scan(DUE)).items] == [row.due_at]


async def test_a_key_of_another_type_is_found_before_anything_is_written(url: str, client: Any) -> None:
    """Where a key of the cells is not what it should be, the append is `Corrupt`, and neither a record nor a head is left."""
    async with opened(url) as backend:
        (await backend.append([behind(S)]))[0]
        for prefix in backend.driver._prefixes:
            client.set(f"{prefix}d", "not a sorted set")
        (outcome,) = await backend.append([behind(S, index=Index(due_at=5))])
        assert isinstance(outcome, perdure.Corrupt)
        assert (await backend.heads([S]))[0].version == 1
        assert len(await backend.read(S)) == 1
        assert isinstance((await backend.append([behind(S)]))[0], Appended)


async def test_cells_cost_no_round_trip(url: str) -> None:
    """An append with cells is one request, as one without; so is a change without a commit."""
    async with opened(url) as backend:
        sessions = [SessionKey("acme", f"s{number}") for number in range(20)]
        connections = backend.driver.connections
        await backend.append([behind(session) for session in sessions])
        counts = []
        for index in (None, Index(due_at=5, control=b"c", size_bytes=1)):
            before = connections.requests
            await backend.append([behind(session, index=index) for session in sessions])
            counts.append(connections.requests - before)
        row = (await backend.load(sessions[0])).row
        before = connections.requests
        assert await backend.change_index(row, Index(due_at=6))
        assert [*counts, connections.requests - before] == [1, 1, 1]
