"""etcd's schema 2 beside the kit: what a later version wrote is kept, keys of what is due follow the rows, races for a row are settled."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.backends.conformance import behind
from perdure.backends.etcd.gateway import data, items, prefix_end, put
from perdure.backends.spi import NEVER, Index, Snapshot
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.servers.etcd import Etcd
from tests.servers.fixture import Servers
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened
from tests.support.backends.schema import (
    S,
    a_later_header_is_kept,
    appends_and_changes_of_a_row_race,
    due_entries_follow_the_rows,
)


@pytest.fixture
def url(servers: Servers[Etcd]) -> str:
    return Engine("etcd", Etcd).url(servers(Etcd))


async def value(backend: Any, key: bytes) -> Any:
    """What a key holds, decoded."""
    found = await backend.run(backend.driver.gateway.range(key=key))
    return msgspec.msgpack.decode(data(items(found)[0], "value"))


async def change(backend: Any, key: bytes, new: Any) -> None:
    """Set a key, as another program would."""
    await backend.run(backend.driver.gateway.txn([], [put(key, msgspec.msgpack.encode(new))]))


async def due_keys(backend: Any) -> int:
    """How many keys say that a session is due."""
    start = backend.driver._keys.all(b"d")
    return len(items(await backend.run(backend.driver.gateway.range(key=start, end=prefix_end(start)))))


async def test_what_a_later_version_put_into_a_row_stays(url: str) -> None:
    """Fields behind those of this version outlive appends, changes without a commit, snapshots and a purge."""
    async with opened(url) as backend:
        (made,) = await backend.append([behind(S, index=Index({"a": "b"}, 5))])
        row = backend.driver._keys.of(b"i", S)
        await change(backend, row, [*await value(backend, row), "later", {"x": 1}])
        await backend.append([behind(S, index=Index({"c": "d"}, 6, b"control"))])
        await backend.change_index((await backend.load(S)).row, Index(due_at=7))
        await backend.put_snapshot(S, Snapshot(1, made.head.hash, b"state"), size_bytes=8)
        assert (await value(backend, row))[1:] == [{"c": "d"}, 7, b"control", 8, "later", {"x": 1}]
        await backend.append([behind(S, kind=Kind.tombstone, status=Status.deleted)])
        await backend.purge(S)
        assert (await value(backend, row))[1:] == [{}, None, b"", 0, "later", {"x": 1}]


async def test_a_row_without_cells_is_as_schema_1_has_it(url: str) -> None:
    """A session that never had a cell, or has none any more, takes no more room for it."""
    async with opened(url) as backend:
        await backend.append([behind(S)])
        row = backend.driver._keys.of(b"i", S)
        assert len(await value(backend, row)) == 2
        await backend.append([behind(S, index=Index(due_at=5))])
        assert len(await value(backend, row)) == 5
        await backend.append([behind(S, index=Index(due_at=NEVER))])
        assert len(await value(backend, row)) == 2


async def test_cells_cost_one_more_round_trip_and_others_none(url: str) -> None:
    """An append without cells is one request, one with cells two, a change without a commit two, for as many sessions."""
    async with opened(url) as backend:
        sessions = [SessionKey("acme", f"s{number}") for number in range(20)]
        requests = backend.driver.gateway
        await backend.append([behind(session) for session in sessions])
        counts = []
        for index in (None, Index(due_at=5)):
            before = requests.requests
            await backend.append([behind(session, index=index) for session in sessions])
            counts.append(requests.requests - before)
        row = (await backend.load(sessions[0])).row
        before = requests.requests
        assert await backend.change_index(row, Index(due_at=6))
        assert [*counts, requests.requests - before] == [1, 2, 2]


async def test_a_later_schema_that_takes_this_writer_is_opened_and_its_header_kept(url: str) -> None:
    """A header of schema 3 with `min_writer` 2 opens and works; what it says beside is kept; with 3 it is refused."""

    async def make_later(backend: Any) -> None:
        meta = backend.driver._keys.meta
        await change(backend, meta, {**await value(backend, meta), "schema": 3, "region": "north"})

    async def read(backend: Any) -> tuple[Any, Any, Any]:
        header = await value(backend, backend.driver._keys.meta)
        return header["schema"], header["min_writer"], header["region"]

    await a_later_header_is_kept(url, make_later, read, "north")


async def test_keys_of_what_is_due_follow_the_rows(url: str) -> None:
    """A session has one entry while it is due, and none after it is not, or was purged."""
    await due_entries_follow_the_rows(url, due_keys)


async def test_appends_and_changes_of_a_row_do_not_overtake_one_another(url: str) -> None:
    """Two handles append with cells, and change the row, at the same time: all are stored, and the entry is that of the row."""
    await appends_and_changes_of_a_row_race(url, due_keys)
