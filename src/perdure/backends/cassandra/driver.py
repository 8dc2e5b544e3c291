"""The driver: what the other modules do, under one roof."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.backends.cassandra import cells, layout
from perdure.backends.cassandra.announcer import FeedAnnouncer
from perdure.backends.cassandra.buckets import INLINE, Chain, Spot
from perdure.backends.cassandra.cell_writer import CellWriter
from perdure.backends.cassandra.checkup import checkup
from perdure.backends.cassandra.due import DueRows
from perdure.backends.cassandra.feed import Feed
from perdure.backends.cassandra.header import StoreRow
from perdure.backends.cassandra.reader import Reader, snapshot_name
from perdure.backends.cassandra.remover import Remover
from perdure.backends.cassandra.store import Promise
from perdure.backends.cassandra.tables import add_header_columns
from perdure.backends.cassandra.upgrade import migrate
from perdure.backends.cassandra.writer import Writer
from perdure.backends.common import schema
from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.refusals import check_snapshot_size
from perdure.backends.common.schema import WriterCheck
from perdure.backends.common.store_header import StoreHeader
from perdure.backends.common.upgrade import require_writer
from perdure.backends.remote import Answer, Attempt, Stored
from perdure.backends.spi import Capabilities, Change, Checkup, Index, Page, Progress, Query, Row, Snapshot
from perdure.clock import Clock
from perdure.errors import Error
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 16 << 20


class CassandraDriver(Reader, Remover):
    """A `Driver` on one cluster. `lanes`: appends under way at once; each is a write of its own."""

    batch_max = 1
    proves_heads = False

    def __init__(
        self, chain: Chain, feed: Feed, announcer: FeedAnnouncer, header: StoreRow, store: StoreHeader, promised: Promise, lanes: int,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._due = DueRows(chain, clock, feed.horizon)
        self._cell_writer = CellWriter(chain, self._due)
        Reader.__init__(self, chain)
        Remover.__init__(self, chain, self._due, self._cell_writer)
        self._clock, self._header, self.schema = clock, header, store.schema
        tick = asyncio.get_running_loop().time
        self._writers = WriterCheck(chain.client.place, store, header.min_writer, tick)
        self.client, self.store_id, self.lanes = chain.client, store.id, lanes
        self._feed, self._writer, self._horizon = feed, Writer(chain, self, announcer, self._cell_writer), feed.horizon
        self.durability_read = promised.durability
        self.capabilities = Capabilities(
            durability=promised.durability,
            linearizable_reads=True,
            failover_loss=None,
            atomic_batch=False,
            batched=False,
            keys_remembered=None,
            notification=False,
            record_bytes_max=RECORD_BYTES_MAX,
            scan_orders=("id", "due") if self.schema >= 2 else ("id",),
            min_writer_seconds=schema.MIN_WRITER_SECONDS,
        )

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`: all at once, each by itself."""
        try:
            await self._writers.check()
        except Error as error:
            return [error] * len(attempts)
        if len(attempts) == 1:
            return [await self._attempt(attempts[0])]
        return await asyncio.gather(*map(self._attempt, attempts))

    async def _attempt(self, attempt: Attempt) -> Answer:
        try:
            return await self._writer.append(attempt) or Stored(self.durability_read)
        except Error as error:
            return error

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`. Its timestamp goes by its version, so a late one does not outlive a purge."""
        await self._writers.check()
        check_snapshot_size(snapshot, RECORD_BYTES_MAX, "Cassandra")
        version, of = snapshot.version, (self._ns, session.tenant, session.id)
        drops = cells.snapshot_drops((await self._chain.spot(session)).cells) if self.schema >= 2 else 0
        found = await self._chain.ascend(session, version, version, 1)
        if not found or found[0].record.head.hash != snapshot.hash:
            return
        name = snapshot_name(version, snapshot.hash)
        pieces = await self._chain.cut(session, name, snapshot.body) if len(snapshot.body) > INLINE else 0
        state = layout.encode_state(snapshot.hash, pieces, b"" if pieces else snapshot.body)
        await self._client.run("put_snapshot", *of, version, state, layout.snapshot_time(self.schema, version, drops))
        versions = [old for (old,) in await self._client.run("snapshots", *of)]
        await self.drop_snapshots(session, versions[SNAPSHOTS_KEPT:])
        if size_bytes is not None and version in versions[:SNAPSHOTS_KEPT]:
            await self._cell_writer.change(session, lambda fields: cells.changed(fields, Index(size_bytes=size_bytes)))

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`."""
        await self._writers.check()

        def wanted(spot: Spot) -> bool:
            if spot.header is None:
                return False
            stored = cells.index_row(row.session, spot.header._replace(cells=spot.cells))
            return (stored.head.version, stored.head.hash, stored.due_at) == (row.head.version, row.head.hash, row.due_at)

        return await self._cell_writer.change(row.session, lambda fields: cells.changed(fields, index), wanted)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`."""
        await self._writers.check()
        await super().truncate(session, below, anchor, snapshot=snapshot)

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        await self._writers.check()
        await super().purge(session)

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """See `spi.Backend.scan`."""
        return await (self._due.scan if query.order == "due" else super().scan)(query, cursor, limit)

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await add_header_columns(self.client)
        await require_writer(self._header, version)
        self._writers.forget()

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`."""
        await migrate(self.client, self._header, from_version, progress)
        self._writers.forget()

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        return await self._feed.read(cursor, limit)

    async def checkup(self) -> Checkup:
        """See `spi.Examined`."""
        return await checkup(self.client, self._horizon)

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self.client.close()
