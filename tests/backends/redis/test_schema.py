"""Redis' schema 2 beside the kit: headers of later versions, the sorted set of what is due, races, round trips."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

import perdure
from perdure.backends.conformance import behind
from perdure.backends.spi import NEVER, Appended, Index
from perdure.model.commit import Status
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.valkey import Valkey
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened
from tests.support.backends.schema import (
    Count,
    S,
    a_later_header_is_kept,
    appends_and_changes_of_a_row_race,
    due_entries_follow_the_rows,
)


@pytest.fixture
def url(servers: Servers[Valkey]) -> str:
    return Engine("valkey", Valkey).url(servers(Valkey))


@pytest.fixture
def client(servers: Servers[Valkey]) -> Any:
    with redis.Redis.from_url(servers(Valkey).url) as client:
        yield client


@pytest.fixture
def due_members(client: Any) -> Count:
    """How many entries say that a session is due; while there are none, there is no key of cells either."""

    async def count(backend: Any) -> int:
        found = sum(client.zcard(f"{prefix}d") for prefix in backend.driver._prefixes)
        (head,) = await backend.heads([S])
        if not found and head.status == Status.deleted:
            assert not [key for prefix in backend.driver._prefixes for kind in "adoz" for key in client.keys(prefix + kind)]
        return found

    return count


async def test_a_session_without_cells_has_no_key_of_schema_2(url: str, client: Any) -> None:
    """What a store of schema 1 holds and what one of schema 2 holds differ by the header alone while no cell is set."""
    async with opened(url) as backend:
        await backend.append([behind(S, key="k", index=Index({"a": "b"}, due_at=NEVER, control=b"", size_bytes=0))])
        assert not [key for prefix in backend.driver._prefixes for kind in "adozm" for key in client.keys(prefix + kind)]


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


async def test_a_later_schema_that_takes_this_writer_is_opened_and_its_header_kept(url: str, client: Any) -> None:
    """A header of schema 3 with `min_writer` 2 opens and works; what it says beside is kept; with 3 it is refused."""

    async def make_later(backend: Any) -> None:
        key = f"{backend.driver._prefixes[0]}store"
        client.set(key, json.dumps({**json.loads(client.get(key)), "schema": 3, "region": ["north"]}))

    async def read(backend: Any) -> tuple[Any, Any, Any]:
        header = json.loads(client.get(f"{backend.driver._prefixes[0]}store"))
        return header["schema"], header["min_writer"], header["region"]

    await a_later_header_is_kept(url, make_later, read, ["north"])


async def test_entries_of_what_is_due_follow_the_rows(url: str, due_members: Count) -> None:
    """A session has one entry while it is due, and none after it is not, or was purged."""
    await due_entries_follow_the_rows(url, due_members)


async def test_appends_and_changes_of_a_row_do_not_overtake_one_another(url: str, due_members: Count) -> None:
    """Two handles append with cells, and change the row, at the same time: all are stored, and the entry is that of the row."""
    await appends_and_changes_of_a_row_race(url, due_members)
