"""From schema 1 to 2: columns and tables that stores of schema 1 do not look at. The lock and the order are `common.upgrade`'s."""

from __future__ import annotations

from perdure.backends.cassandra.client import Client
from perdure.backends.cassandra.header import StoreRow
from perdure.backends.cassandra.tables import add_cells, add_due_tables, add_header_columns
from perdure.backends.common import schema
from perdure.backends.common.upgrade import upgrade
from perdure.backends.spi import Progress


async def migrate(client: Client, row: StoreRow, from_version: int, progress: Progress) -> None:
    """See `spi.Versioned.migrate`. Other stores in the keyspace see new columns and tables, and need not know them."""
    await add_header_columns(client)
    await upgrade(
        row,
        from_version,
        [("the column of cells", lambda: add_cells(client)), ("the tables of what is due", lambda: add_due_tables(client))],
        progress,
        settle_seconds=schema.MIN_WRITER_SECONDS,
    )
