"""DynamoDB's schema 2 beside the kit: attributes of later versions, items of what is due, races for a row, requests."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.backends.conformance import behind
from perdure.backends.dynamodb.layout import SHARDS, number, text
from perdure.backends.spi import Index, Snapshot
from perdure.model.commit import Kind, Status
from tests.support.backends.scenarios import opened
from tests.support.backends.schema import (
    S,
    a_later_header_is_kept,
    appends_and_changes_of_a_row_race,
    due_entries_follow_the_rows,
)


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


async def test_a_later_schema_that_takes_this_writer_is_opened_and_its_header_kept(url: str) -> None:
    """A header of schema 3 with `min_writer` 2 opens and works; what it says beside is kept; with 3 it is refused."""

    async def make_later(backend: Any) -> None:
        await change(backend, backend.driver._keys.meta, v=number(3), of_later=text("north"))

    async def read(backend: Any) -> tuple[Any, Any, Any]:
        found = await item(backend, backend.driver._keys.meta)
        return int(found["v"]["N"]), int(found["min_writer"]["N"]), found["of_later"]

    await a_later_header_is_kept(url, make_later, read, text("north"))


async def test_items_of_what_is_due_follow_the_rows(url: str) -> None:
    """A session has one entry while it is due, and none after it is not, or was purged."""
    await due_entries_follow_the_rows(url, due_items)


async def test_appends_and_changes_of_a_row_do_not_overtake_one_another(url: str) -> None:
    """Two handles append with cells, and change the row, at the same time: all are stored, and the entry is that of the row."""
    await appends_and_changes_of_a_row_race(url, due_items, appends=10, changes=10)
