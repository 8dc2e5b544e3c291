"""The driver: what the other modules do, under one roof."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.backends.cassandra import layout
from perdure.backends.cassandra.announcer import FeedAnnouncer
from perdure.backends.cassandra.buckets import INLINE, Chain
from perdure.backends.cassandra.checkup import checkup
from perdure.backends.cassandra.feed import Feed
from perdure.backends.cassandra.reader import Reader, snapshot_name
from perdure.backends.cassandra.remover import Remover
from perdure.backends.cassandra.store import Promise
from perdure.backends.cassandra.writer import Writer
from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.refusals import check_snapshot_size
from perdure.backends.remote import Answer, Attempt, Stored
from perdure.backends.spi import Capabilities, Change, Checkup, Page, Snapshot
from perdure.errors import Error
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 16 << 20


class CassandraDriver(Reader, Remover):
    """A `Driver` on one cluster. `lanes`: appends under way at once; each is a write of its own."""

    batch_max = 1

    def __init__(self, chain: Chain, feed: Feed, announcer: FeedAnnouncer, store_id: str, promised: Promise, lanes: int) -> None:
        super().__init__(chain)
        self.client, self.store_id, self.lanes = chain.client, store_id, lanes
        self._feed, self._writer, self._horizon = feed, Writer(chain, self, announcer), feed.horizon
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
        )

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`: all at once, each by itself."""
        if len(attempts) == 1:
            return [await self._attempt(attempts[0])]
        return await asyncio.gather(*map(self._attempt, attempts))

    async def _attempt(self, attempt: Attempt) -> Answer:
        try:
            return await self._writer.append(attempt) or Stored(self.durability_read)
        except Error as error:
            return error

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        """See `spi.Backend.put_snapshot`. Its timestamp is its version, so a late one does not outlive a purge."""
        check_snapshot_size(snapshot, RECORD_BYTES_MAX, "Cassandra")
        version, of = snapshot.version, (self._ns, session.tenant, session.id)
        found = await self._chain.ascend(session, version, version, 1)
        if not found or found[0].record.head.hash != snapshot.hash:
            return
        name = snapshot_name(version, snapshot.hash)
        pieces = await self._chain.cut(session, name, snapshot.body) if len(snapshot.body) > INLINE else 0
        state = layout.encode_state(snapshot.hash, pieces, b"" if pieces else snapshot.body)
        await self._client.run("put_snapshot", *of, version, state, version)
        versions = [old for (old,) in await self._client.run("snapshots", *of)]
        await self.drop_snapshots(session, versions[SNAPSHOTS_KEPT:])

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        return await self._feed.read(cursor, limit)

    async def checkup(self) -> Checkup:
        """See `spi.Examined`."""
        return await checkup(self.client, self._horizon)

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self.client.close()
