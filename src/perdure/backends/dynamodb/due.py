"""What is due, in order: the items of its partitions, merged, and the header items that they name, which decide."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator
from contextlib import aclosing

from perdure.backends.common.checks import LOOKED_MAX, fits
from perdure.backends.common.schema import read_due_cursor, write_due_cursor
from perdure.backends.dynamodb import layout
from perdure.backends.dynamodb.layout import SHARDS, Item, Layout
from perdure.backends.dynamodb.table import Table
from perdure.backends.spi import Page, Query, Row

LOOKED_AT_ONCE = 100
"""Header items in one request."""
_END = "~"
"""Above every time that is due."""


async def scan_due(table: Table, keys: Layout, query: Query, cursor: str | None, limit: int) -> Page[Row]:
    """See `spi.Backend.scan`, in the order `due`; at most about `LOOKED_MAX` rows are looked at."""
    low = "0" if cursor is None else layout.due_name(*read_due_cursor(cursor)) + "\x01"
    high = _END if query.due_before is None else layout.due_start(query.due_before)
    rows: list[Row] = []
    looked, more = 0, True
    async with aclosing(_names(table, keys, low, high, min(limit, LOOKED_AT_ONCE))) as names:
        while more:
            wanted: list[str] = []
            more = False
            async for name in names:
                wanted.append(name)
                if more := len(wanted) == min(LOOKED_AT_ONCE, limit):
                    break
            for row in await _rows(table, keys, wanted):
                if fits(query, row.session, row.head, row.tags):
                    rows.append(row)
                    if len(rows) == limit:
                        return Page(rows, write_due_cursor(row.due_at or 0, row.session))
            looked += len(wanted)
            if more and looked >= LOOKED_MAX:
                return Page(rows, write_due_cursor(*layout.due_of(wanted[-1])))
    return Page(rows, None)


async def _rows(table: Table, keys: Layout, names: list[str]) -> list[Row]:
    """The rows of these sessions that are due at these times still."""
    due = [layout.due_of(name) for name in names]
    found = await table.get_many([keys.header(session) for _, session in due], layout.ROW)
    rows = []
    for due_at, session in due:
        item = found.get((keys.session(session), "t"))
        if item is not None and (row := layout.decode_row(session, item)).due_at == due_at:
            rows.append(row)
    return rows


async def _names(table: Table, keys: Layout, low: str, high: str, size: int) -> AsyncGenerator[str, None]:
    """The names of due items from `low` to below `high`, in the order of their bytes, merged from the partitions."""
    pages: list[list[str]] = [[] for _ in range(SHARDS)]
    starts: list[Item | None] = [None] * SHARDS
    more = [low < high] * SHARDS

    async def fill(shard: int) -> None:
        items, starts[shard] = await table.query(keys.due_in(shard), low, high, limit=size, start=starts[shard], only="sk")
        pages[shard] = [item["sk"]["S"] for item in items if item["sk"]["S"] < high]
        more[shard] = starts[shard] is not None

    merged: list[tuple[bytes, int]] = []
    waiting = list(range(SHARDS))
    while True:
        while empty := [shard for shard in waiting if more[shard] and not pages[shard]]:
            await asyncio.gather(*[fill(shard) for shard in empty])
        for shard in waiting:
            if pages[shard]:
                heapq.heappush(merged, (pages[shard].pop(0).encode(), shard))
        if not merged:
            return
        name, shard = heapq.heappop(merged)
        waiting = [shard]
        yield name.decode()
