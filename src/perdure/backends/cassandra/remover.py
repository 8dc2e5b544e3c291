"""What takes away: truncation and purge, each bucket by a conditional write that keeps its head."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.backends.cassandra import cells, layout
from perdure.backends.cassandra.buckets import Chain
from perdure.backends.cassandra.cell_writer import CellWriter
from perdure.backends.cassandra.due import DueRows
from perdure.backends.cassandra.layout import KEY_SLOTS, BucketHeader, snapshot_time
from perdure.backends.cassandra.reader import snapshot_name
from perdure.backends.common.pages import VERSION_END
from perdure.backends.common.refusals import check_anchor, check_deleted, not_deleted
from perdure.errors import Unavailable
from perdure.model.ids import SessionKey

TRIES = 8
"""How often a bucket's head may change while it is emptied."""
LOOKED_AT = 500
"""Records looked through at once for pieces."""


class Remover:
    """The removing half of the driver."""

    def __init__(self, chain: Chain, due: DueRows, cell_writer: CellWriter) -> None:
        self._chain, self._client, self._due, self._cell_writer = chain, chain.client, due, cell_writer

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Backend.truncate`. Oldest bucket first, so what is left is in one piece at any time."""
        held = await self._chain.ascend(session, anchor[0], anchor[0], 1)
        check_anchor(session, held[0].record if held else None, below, anchor)
        last = self._chain.buckets.of(below - 1, await self._chain.base(session, below - 1))
        for bucket in range(self._chain.known(session).dropped, last + 1):
            await self._empty(session, bucket, below, keys=False)
        if snapshot:
            await self._drop_all_snapshots(session)
        if below > 2:
            versions = await self._client.run("snapshots", self._chain.ns, session.tenant, session.id)
            await self.drop_snapshots(session, [version for (version,) in versions if version < below - 1])
            # A snapshot's timestamp goes by its version: this hides those that come late, too.
            await self._client.run("drop_snapshots", self._time(below - 2), self._chain.ns, session.tenant, session.id, below - 2)
        if last > 0:
            # A record may lie one bucket lower than its version says.
            await self._client.run("dropped", last, last - 1, self._chain.ns, session.tenant, session.id)
            self._chain.learn(session, dropped=last - 1)

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`. The buckets' heads stay, so that no new life can begin after them."""
        for _ in range(TRIES):
            latest = await self._chain.latest_bucket(session)
            if latest is None:
                raise not_deleted(session)
            head = check_deleted(session, latest[1].head)
            newest = latest[0]
            (last,) = await self._chain.ascend(session, head.version, head.version, 1)
            stub = layout.encode_record(msgspec.structs.replace(last.record, body=b""), 0)
            at = self._chain.at(session, newest)
            blob = layout.encode_head(head)
            statements: list[tuple[str, Sequence[object]]] = [
                ("stub", (stub, *at, head.version, blob)), ("drop_records", (*at, head.version)), ("drop_claims", at)
            ]  # fmt: skip
            if self._chain.schema >= 2:
                statements.append(("end_cells", (cells.without_due(latest[1].cells), *at, blob)))
            refused = await self._client.decide(*statements)
            if refused is None:
                break
        else:
            raise Unavailable(f"Session {session.id!r} is being written to.")
        if self._chain.schema >= 2:
            await self._end_cells(session, *latest)
        for bucket in range(newest):
            await self._empty(session, bucket, VERSION_END, keys=True)
        ns, tenant, id = self._chain.ns, session.tenant, session.id
        await self._client.run("drop_snapshots", self._time(head.version), ns, tenant, id, VERSION_END)
        for slot in range(KEY_SLOTS):
            await self._client.run("drop_sealed_keys", head.version, ns, tenant, id, slot)
        for (name,) in await self._client.run("large", ns, tenant, id):
            await self._chain.drop_body(session, name)
        if newest > 0:
            await self._client.run("dropped", newest, newest, ns, tenant, id)
            self._chain.learn(session, dropped=newest)

    async def _end_cells(self, session: SessionKey, bucket: int, header: BucketHeader) -> None:
        """What belongs to the cells that are gone: those beside a sealed head, and the row of what is due."""
        if self._chain.sealed(header, bucket):
            following = await self._chain.bare(session, bucket + 1)
            if following is not None and following.cells is not None:
                await self._client.decide(("end_cells", (cells.without_due(following.cells), *self._chain.at(session, bucket + 1), None)))
        if (due := cells.due_row(header.cells)) is not None:
            await self._due.drop(session, *due)

    async def _drop_all_snapshots(self, session: SessionKey) -> None:
        spot = await self._chain.spot(session)
        # A snapshot that is put from now on is newer than what drops these.
        await self._cell_writer.change(session, cells.drop_snapshots)
        versions = await self._client.run("snapshots", self._chain.ns, session.tenant, session.id)
        await self.drop_snapshots(session, [version for (version,) in versions], cells.snapshot_drops(spot.cells))

    def _time(self, version: int, drops: int | None = None) -> int:
        return snapshot_time(self._chain.schema, version, drops)

    async def drop_snapshots(self, session: SessionKey, versions: Sequence[int], drops: int | None = None) -> None:
        """Remove snapshots and the pieces that they lie in; `drops`: those that were put while all were dropped so often."""
        of = (self._chain.ns, session.tenant, session.id)
        for version in versions:
            rows = await self._client.run("snapshot", *of, version)
            await self._client.run("drop_snapshots", self._time(version, drops), *of, version)
            if rows and rows[0][0] == version:
                hash, pieces, _ = layout.decode_state(rows[0][1])
                if pieces:
                    await self._chain.drop_body(session, snapshot_name(version, hash))

    async def _empty(self, session: SessionKey, bucket: int, below: int, *, keys: bool) -> None:
        """Drop a bucket's records below a version, and its keys; the pieces of their bodies last, when nothing refers to them."""
        names = await self._with_pieces(session, bucket, below)
        at = self._chain.at(session, bucket)
        for _ in range(TRIES):
            header: BucketHeader | None = await self._chain.bucket_header(session, bucket)
            if header is None:
                break
            head = layout.encode_head(header.head)
            dropping: Sequence[tuple[str, Sequence[object]]] = [("drop_records", (*at, below))]
            if keys:
                dropping = [*dropping, ("drop_claims", at)]
            if await self._client.decide(("keep", (head, *at, head)), *dropping) is None:
                break
        else:
            raise Unavailable(f"Session {session.id!r} is being written to.")
        for name in names:
            await self._chain.drop_body(session, name)

    async def _with_pieces(self, session: SessionKey, bucket: int, below: int) -> list[str]:
        names: list[str] = []
        first = 0
        while rows := await self._client.run("outlines", *self._chain.at(session, bucket), first, below, LOOKED_AT):
            for version, blob in rows:
                record = layout.decode_row((version, blob, b"", 0))
                first = version + 1
                if record.pieces:
                    names.append(record.record.id.hex())
        return names
