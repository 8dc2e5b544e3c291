"""From schema 1 to 2: columns and tables that stores of schema 1 do not look at. The lock and the order are `common.upgrade`'s."""

from __future__ import annotations

from perdure.backends.cassandra.client import Client
from perdure.backends.cassandra.header import MIN_WRITER_SECONDS, StoreRow
from perdure.backends.cassandra.tables import add_cells, add_due_tables, add_header_columns
from perdure.backends.common.upgrade import upgrade
from perdure.backends.spi import Progress
from perdure.clock import Clock
from perdure.errors import Invalid
from perdure.model.ids import uuid7


async def migrate(client: Client, row: StoreRow, clock: Clock, from_version: int, progress: Progress) -> None:
    """See `spi.Versioned.migrate`. Other stores in the keyspace see new columns and tables, and need not know them."""
    if from_version != 1:
        raise Invalid(f"There is no way to a newer schema from schema {from_version}.")
    await add_header_columns(client)
    await upgrade(
        row,
        from_version,
        [("the column of cells", lambda: add_cells(client)), ("the tables of what is due", lambda: add_due_tables(client))],
        progress,
        token=uuid7(clock.now(), clock.bits(74)).hex(),
        settle_seconds=MIN_WRITER_SECONDS,
    )
