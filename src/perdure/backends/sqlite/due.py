"""What is due: its listing by the partial index, and the change of an index row without a commit."""

from __future__ import annotations

from typing import Any

import apsw

from perdure.backends.common.schema import read_due_cursor, write_due_cursor
from perdure.backends.spi import SCHEMA_VERSION, Index, Page, Query, Row
from perdure.backends.sqlite.heads import Heads
from perdure.backends.sqlite.reader import add_conditions, select
from perdure.backends.sqlite.rows import cells
from perdure.backends.sqlite.writer import BatchWriter

_CELLS = cells(SCHEMA_VERSION, "s.")
_ORDER = "s.due_at, s.tenant, s.id"


def scan(connection: apsw.Connection, proven: Heads, query: Query, cursor: str | None, limit: int) -> Page[Row]:
    """Index rows that are due, behind the row that the cursor names."""
    where, values = ["s.due_at IS NOT NULL"], list[Any]()
    if query.due_before is not None:
        where.append("s.due_at < ?")
        values.append(query.due_before)
    if cursor is not None:
        due_at, session = read_due_cursor(cursor)
        where.append(f"({_ORDER}) > (?, ?, ?)")
        values += [due_at, *session]
    if query.tenant is not None:
        where.append("s.tenant = ?")
        values.append(query.tenant)
    add_conditions(query, [*query.tags.items()], "s", where, values)
    rows = select(connection, proven, query, "session s INDEXED BY session_due", _CELLS, where, _ORDER, (*values, limit))
    last = rows[-1] if len(rows) == limit else None
    return Page(rows, None if last is None or last.due_at is None else write_due_cursor(last.due_at, last.session))


def change(writer: BatchWriter, row: Row, index: Index) -> bool:
    """See `spi.Indexed.change_index`. Inside a transaction."""
    place = writer.place(row.session)
    if place.head != row.head:
        return False
    if writer.connection.execute("SELECT due_at FROM session WHERE n = ?", (place.n,)).get != row.due_at:
        return False
    writer.set_cells(place.n, index)
    return True
