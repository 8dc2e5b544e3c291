"""Reads: heads and records by Paxos, so that a write whose outcome was unknown is settled by a reader; listing without."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.backends.cassandra import layout
from perdure.backends.cassandra.buckets import ROWS, Chain
from perdure.backends.cassandra.cells import index_row
from perdure.backends.cassandra.layout import SESSION_SLOTS, BucketHeader, Row
from perdure.backends.common.checks import LOOKED_MAX, selects
from perdure.backends.common.pages import VERSION_END, RecordPage, version_range
from perdure.backends.spi import Head, Known, Loaded, Page, Query, Record, Snapshot
from perdure.backends.spi import Row as IndexRow
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

FETCHED = 256
"""Most rows that a read fetches at once."""
SCANNED = 64
"""Sessions looked at together while listing."""


class Reader:
    """The reading half of the driver."""

    def __init__(self, chain: Chain) -> None:
        self._chain, self._client, self._ns = chain, chain.client, chain.ns

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """A read for each session, all at once."""
        return list(await asyncio.gather(*[self._chain.head(session) for session in sessions]))

    async def check_layout(self, session: SessionKey, oldest: Record, *, whole: bool) -> None:
        """See `remote.driver.PartitionedDriver`."""
        await self._chain.check_layout(session, oldest, whole=whole)

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """One round trip of two or three reads, while the newest bucket is known or the only one and the snapshot is no further back
        than 64 records."""
        bucket = self._chain.known(session).newest
        upto = below = VERSION_END if at is None else at
        while True:
            page, snapshot, beside = await asyncio.gather(
                self._chain.page(session, bucket, 1, upto, ROWS, reverse=True),
                self._snapshot(session, below),
                self._beside(session, bucket, at),
            )
            header = page.header or beside
            if header is None or self._chain.sealed(header, bucket):
                latest = await self._chain.latest_bucket(session)
                if latest is None:
                    return None
                if latest[0] != bucket:
                    bucket = latest[0]
                    continue
                header = latest[1]
            head = _head(header)
            rows = await self._since(session, snapshot, min(upto, head.version), page.rows)
            if snapshot is not None and not _fits(snapshot, rows or await self._right_after(session, snapshot)):
                below = snapshot.version - 1
                continue
            tail = [row for row in rows if snapshot is None or row.record.head.version > snapshot.version]
            records = await asyncio.gather(*[self._chain.record(session, row) for row in tail])
            return Loaded(index_row(session, header), snapshot, records)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """A page; as many rows a round trip as the sizes seen so far promise to be small."""
        first, last = version_range(after, before)
        page = RecordPage[Record](limit)
        while not page.full and first <= last:
            wanted = page.room(FETCHED if page.records else ROWS)
            walk = self._chain.descend if reverse else self._chain.ascend
            rows = await walk(session, first, last, wanted)
            for row in rows:
                if page.add(await self._chain.record(session, row)):
                    return page.records
            if len(rows) < wanted:
                break
            if reverse:
                last = rows[-1].record.head.version - 1
            else:
                first = rows[-1].record.head.version + 1
        return page.records

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """The newest bucket and the sealed keys, asked at once."""
        bucket = self._chain.known(session).newest
        while True:
            claimed, sealed, latest = await asyncio.gather(
                self.claimed(session, bucket, key), self.sealed_key(session, key), self._chain.latest_bucket(session)
            )
            if latest is None:
                return None
            found, head = claimed or sealed, _head(latest[1])
            if found is not None and found[0] <= head.version:
                return Known(*found, head)
            if found is None and latest[0] == bucket:
                return None
            bucket = latest[0]  # The head is older than the key, or another bucket's: look again.

    async def claimed(self, session: SessionKey, bucket: int, key: str) -> tuple[int, bytes] | None:
        """Where a key was applied, if in this bucket."""
        rows = await self._client.run("claimed", *self._chain.at(session, bucket), key)
        return layout.decode_key(rows[0][0]) if rows and rows[0][0] is not None else None

    async def sealed_key(self, session: SessionKey, key: str) -> tuple[int, bytes] | None:
        """Where a key was applied, if in a sealed bucket."""
        slot = layout.slot(key, layout.KEY_SLOTS)
        rows = await self._client.run("sealed_key", self._ns, session.tenant, session.id, slot, key)
        return layout.decode_key(rows[0][0]) if rows else None

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[IndexRow]:
        """By id, merged from the tenant's slots. The list says which sessions may be there; each is looked at, at most about `LOOKED_MAX`
        a page."""
        rows: list[IndexRow] = []
        looked = 0
        after, more = cursor, True
        while more:
            ids, more = await self._ids(query, after)
            for start in range(0, len(ids), SCANNED):
                some = ids[start : start + SCANNED]
                found = await asyncio.gather(*[self._chain.latest_bucket(SessionKey(query.one_tenant, id), plain=True) for id in some])
                for id, latest in zip(some, found, strict=True):
                    after = id
                    if latest is None or not selects(query, _head(latest[1]), latest[1].tags):
                        continue
                    rows.append(index_row(SessionKey(query.one_tenant, id), latest[1]))
                    if len(rows) == limit:
                        return Page(rows, id)
            looked += len(ids)
            if more and looked >= LOOKED_MAX:
                return Page(rows, after)
        return Page(rows, None)

    async def _ids(self, query: Query, after: str | None) -> tuple[list[str], bool]:
        """The next ids after a cursor, in order, and whether there may be more."""
        past_start = after is not None and after.encode() >= query.prefix.encode()
        name, start = ("sessions_behind", after) if past_start else ("sessions", query.prefix)
        slots = await asyncio.gather(
            *[self._client.run(name, self._ns, query.one_tenant, slot, start, SCANNED) for slot in range(SESSION_SLOTS)]
        )
        ids = sorted((id for slot in slots for (id,) in slot), key=str.encode)
        ends = [slot[-1][0].encode() for slot in slots if len(slot) == SCANNED]
        if ends:  # A slot that was cut off may have more below the others' last.
            ids = [id for id in ids if id.encode() <= min(ends)]
        inside = [id for id in ids if id.startswith(query.prefix)]
        return inside, bool(ends) and len(inside) == len(ids)

    async def _beside(self, session: SessionKey, bucket: int, at: int | None) -> BucketHeader | None:
        """The head beside an older version, whose rows need not be in the newest bucket."""
        return None if at is None else await self._chain.bucket_header(session, bucket)

    async def _since(self, session: SessionKey, snapshot: Snapshot | None, last: int, tail: Sequence[Row]) -> list[Row]:
        """The rows from a snapshot's own on, up to `last`, oldest first; `tail` are some of the newest, newest first."""
        rows = [row for row in reversed(tail) if row.record.head.version <= last]
        first = snapshot.version if snapshot else 1
        end = rows[0].record.head.version - 1 if rows else last
        older: list[Row] = []
        while first <= end:
            page = await self._chain.ascend(session, first, end, ROWS)
            older += page
            if len(page) < ROWS:
                break
            first = page[-1].record.head.version + 1
        return [row for row in older + rows if snapshot is None or row.record.head.version >= snapshot.version]

    async def _right_after(self, session: SessionKey, snapshot: Snapshot) -> list[Row]:
        """The row after a snapshot's own, which was truncated: it shows that the snapshot stands right below the first record."""
        return await self._chain.ascend(session, snapshot.version, snapshot.version + 1, 1)

    async def _snapshot(self, session: SessionKey, below: int) -> Snapshot | None:
        rows = await self._client.run("snapshot", self._ns, session.tenant, session.id, below)
        if not rows:
            return None
        version, state = rows[0]
        hash, pieces, body = layout.decode_state(state)
        if pieces:
            body = await self._chain.whole(session, snapshot_name(version, hash), pieces)
        return Snapshot(version, hash, body)


def snapshot_name(version: int, hash: bytes) -> str:
    """What a snapshot's pieces are called."""
    return f"s{version}-{hash.hex()}"


def _fits(snapshot: Snapshot, rows: Sequence[Row]) -> bool:
    """Whether a snapshot belongs to this chain: its commit is there with its hash, or right below the first."""
    if not rows:
        return False
    first = rows[0].record.head
    return first.hash == snapshot.hash if first.version == snapshot.version else first.version == snapshot.version + 1


def _head(header: BucketHeader) -> Head:
    """The head of a bucket that has one."""
    if header.head is None:
        raise Corrupt("A bucket in Cassandra has records and no head.")
    return header.head
