"""DynamoDB's schema 2 beside the kit: attributes of later versions, items of what is due, races for a row, requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure.backends.conformance import behind
from perdure.backends.dynamodb.layout import SHARDS, number, text
from perdure.backends.spi import NEVER, Appended, Index, Query, Snapshot
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.support.backends.scenarios import opened

S = SessionKey("acme", "s")
DUE = Query(None, order="due")


@pytest.fixture(autouse=True)
def _headers_are_read_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.backends.common.schema.MIN_WRITER_SECONDS", 0.1)


async def change(backend: Any, key: dict[str, Any], **attributes: Any) -> None:
    """Set attributes of an item, as another program would."""
    names = ", ".join(f"{name} = :{name}" for name in attributes)
    values = {f":{name}": value for name, value in attributes.items()}
    table = backend.driver.table
    await backend.run(
        table.ask("update_item", TableName=table.name, Key=key, UpdateExpression=f"SET {names}", ExpressionAttributeValues=values)
    )


async def item(backend: Any, key: dict[str, Any]) -> Any:
    return await backend.run(backend.driver.table.get(key))


async def due_items(backend: Any) -> int:
    """How many items say that a session is due."""
    keys, table = backend.driver._keys, backend.driver.table
    return sum([len(await backend.run(table.query_all(keys.due_in(shard), "0", "~"))) for shard in range(SHARDS)])


async def test_what_a_later_version_put_into_a_header_item_stays(url: str) -> None:
    """Attributes that this version does not know outlive appends, changes without a commit, snapshots and a purge."""
    async with opened(url) as backend:
        (made,) = await backend.append([behind(S, index=Index({"a": "b"}, 5))])
        key = backend.driver._keys.header(S)
        await change(backend, key, later=text("kept"))
        await backend.append([behind(S, index=Index({"c": "d"}, 6, b"control"))])
        await backend.append([behind(S), behind(S, key="k")])
        await backend.change_index((await backend.load(S)).row, Index(due_at=7))
        await backend.put_snapshot(S, Snapshot(1, made.head.hash, b"state"), size_bytes=8)
        row = (await backend.load(S)).row
        assert (row.due_at, row.control, row.size_bytes) == (7, b"control", 8)
        await backend.append([behind(S, kind=Kind.tombstone, status=Status.deleted)])
        await backend.purge(S)
        found = await item(backend, key)
        assert found["later"] == text("kept")
        assert not {"u", "o", "w"} & found.keys()


async def test_a_later_schema_that_takes_this_writer_is_opened_and_its_header_kept(url: str) -> None:
    """A header of schema 3 with `min_writer` 2 opens and works; what it says beside is kept; with 3 it is refused."""
    async with opened(url) as backend:
        meta = backend.driver._keys.meta
        await change(backend, meta, v=number(3), of_later=text("north"))
    async with opened(url) as backend:
        assert isinstance((await backend.append([behind(S, index=Index(due_at=5))]))[0], Appended)
        assert [row.session for row in (await backend.scan(DUE)).items] == [S]
        await backend.require_writer(3)
        found = await item(backend, meta)
        assert (found["v"], found["min_writer"], found["of_later"]) == (number(3), number(3), text("north"))
    with pytest.raises(perdure.Unsupported, match="upgrade perdure"):
        async with opened(url):
            pass


async def test_items_of_what_is_due_follow_the_rows(url: str) -> None:
    """A session has one item while it is due, and none after it is not, or was purged."""
    async with opened(url) as backend:
        await backend.append([behind(S, index=Index(due_at=5))])
        for due_at in (6, 6, 1 << 62):
            await backend.append([behind(S, index=Index(due_at=due_at))])
            assert await due_items(backend) == 1
        await backend.change_index((await backend.load(S)).row, Index(due_at=NEVER))
        assert await due_items(backend) == 0
        await backend.append([behind(S, index=Index(due_at=9), kind=Kind.tombstone, status=Status.deleted)])
        assert await due_items(backend) == 1
        await backend.purge(S)
        assert await due_items(backend) == 0
        row = (await backend.load(S)).row
        assert await backend.change_index(row, Index(due_at=5, control=b"after the purge"))
        await backend.purge(S)
        assert await due_items(backend) == 0
        assert (await backend.load(S)).row == row


async def test_appends_and_changes_of_a_row_do_not_overtake_one_another(url: str) -> None:
    """Two handles append with cells, and change the row, at the same time: each append is stored, and the item is that of the row."""

    async def append(backend: Any, first: int) -> None:
        for count in range(10):
            (outcome,) = await backend.append([behind(S, index=Index(due_at=first + count, size_bytes=count))])
            assert isinstance(outcome, Appended)

    async def touch(backend: Any) -> None:
        for count in range(10):
            await backend.change_index((await backend.load(S)).row, Index(due_at=9000 + count, control=b"%d" % count))

    async with opened(url) as one, opened(url) as other:
        await one.append([behind(S, index=Index(due_at=1))])
        await asyncio.gather(append(one, 100), append(other, 200), touch(one), touch(other))
        row = (await one.load(S)).row
        assert row.head.version == 21
        assert await due_items(one) == 1
        assert [found.due_at for found in (await other.scan(DUE)).items] == [row.due_at]


async def test_cells_cost_no_request_of_their_own(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append with cells is one request, as one without; so is a change without a commit."""
    monkeypatch.setattr("perdure.backends.common.schema.MIN_WRITER_SECONDS", 60)
    async with opened(url) as backend:
        table = backend.driver.table
        await backend.append([behind(S)])
        counts = []
        for index in (None, Index(control=b"c", size_bytes=1), Index(due_at=5)):
            before = table.requests
            await backend.append([behind(S, index=index)])
            counts.append(table.requests - before)
        row = (await backend.load(S)).row
        before = table.requests
        assert await backend.change_index(row, Index(due_at=6))
        assert [*counts, table.requests - before] == [1, 1, 1, 1]
