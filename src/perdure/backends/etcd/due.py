"""What is due: a key for each session that is, beside the cell in its index row. A key counts while the row says the same time."""

from __future__ import annotations

from perdure.backends.common.checks import LOOKED_MAX, fits
from perdure.backends.common.schema import read_due_cursor, write_due_cursor
from perdure.backends.etcd import layout
from perdure.backends.etcd.gateway import Gateway, Json, data, delete, get, items, prefix_end, put
from perdure.backends.etcd.layout import IndexCells, Layout
from perdure.backends.spi import Page, Query, Row
from perdure.model.ids import SessionKey

LOOKED_AT_ONCE = 60
"""Sessions whose rows one transaction reads: etcd takes 128 requests in one."""


def moved(keys: Layout, session: SessionKey, before: int | None, after: int | None) -> list[Json]:
    """The requests that keep the keys of what is due in step with a row whose `due_at` changes."""
    if before == after:
        return []
    gone = [] if before is None else [delete(keys.due(before, session))]
    return gone if after is None else [*gone, put(keys.due(after, session), b"")]


async def scan_due(gateway: Gateway, keys: Layout, query: Query, cursor: str | None, limit: int) -> Page[Row]:
    """See `spi.Backend.scan`, in the order `due`; at most about `LOOKED_MAX` rows are looked at."""
    start, end = keys.all(b"d"), prefix_end(keys.all(b"d"))
    if cursor is not None:
        start = keys.due(*read_due_cursor(cursor)) + b"\0"
    if query.due_before is not None:
        end = keys.due(max(query.due_before, 0))
    rows: list[Row] = []
    looked = 0
    while start < end:
        found = items(await gateway.range(key=start, end=end, limit=LOOKED_AT_ONCE, keys_only=True))
        for row in await _rows(gateway, keys, [keys.due_of(item) for item in found]):
            if fits(query, row.session, row.head, row.tags):
                rows.append(row)
                if len(rows) == limit:
                    return Page(rows, write_due_cursor(row.due_at or 0, row.session))
        looked += len(found)
        if len(found) < LOOKED_AT_ONCE:
            break
        if looked >= LOOKED_MAX:
            return Page(rows, write_due_cursor(*keys.due_of(found[-1])))
        start = data(found[-1], "key") + b"\0"
    return Page(rows, None)


async def _rows(gateway: Gateway, keys: Layout, due: list[tuple[int, SessionKey]]) -> list[Row]:
    """The rows of these sessions that are due at these times still."""
    if not due:
        return []
    requests = [get(keys.of(kind, session)) for _, session in due for kind in (b"h", b"i")]
    found = [items(response) for response in (await gateway.txn([], requests, writes=False))["responses"]]
    rows = []
    for (due_at, session), head, index in zip(due, found[::2], found[1::2], strict=True):
        cells: IndexCells | None = layout.decode_index(index[0]) if index else None
        if head and cells is not None and cells.due_at == due_at:
            rows.append(cells.row(session, layout.decode_head(head[0])))
    return rows
