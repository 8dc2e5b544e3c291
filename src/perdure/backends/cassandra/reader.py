"""Reads: heads and records by Paxos, so that a write whose outcome was unknown is settled by whoever looks; listing without."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.backends.cassandra import layout
from perdure.backends.cassandra.buckets import ROWS, Chain
from perdure.backends.cassandra.layout import SESSION_SLOTS, Row, Statics
from perdure.backends.common.checks import LOOKED_MAX
from perdure.backends.spi import Head, Known, Loaded, Page, Query, Record, Snapshot
from perdure.backends.spi import Row as IndexRow
from perdure.errors import Corrupt
from perdure.model.commit import Status
from perdure.model.ids import SessionKey

PAGE_BYTES = 4 << 20
"""About how many bytes of records one `read` returns."""
VERSION_END = 2**62
SCANNED = 64
"""Sessions looked at together while listing."""


class Reader:
    """The reading half of the driver."""

    def __init__(self, chain: Chain) -> None:
        self._chain, self._client, self._ns = chain, chain.client, chain.ns

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """A read for each session, all at once."""
        return list(await asyncio.gather(*[self._chain.head(session) for session in sessions]))

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
            statics = page.statics or beside
            if statics is None or self._chain.sealed(statics, bucket):
                top = await self._chain.top(session)
                if top is None:
                    return None
                if top[0] != bucket:
                    bucket = top[0]
                    continue
                statics = top[1]
            head = _head(statics)
            rows = await self._since(session, snapshot, min(upto, head.version), page.rows)
            if snapshot is not None and not _fits(snapshot, rows or await self._right_behind(session, snapshot)):
                below = snapshot.version - 1
                continue
            tail = [row for row in rows if snapshot is None or row.record.head.version > snapshot.version]
            records = await asyncio.gather(*[self._chain.record(session, row) for row in tail])
            return Loaded(IndexRow(session, head, statics.tags, statics.created), snapshot, records)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """A page; as many rows a round trip as the sizes seen so far promise to be small."""
        first, last = after + 1, VERSION_END if before is None else before - 1
        records: list[Record] = []
        size, step = 0, ROWS
        while len(records) < limit and size <= PAGE_BYTES and first <= last:
            wanted = min(step, limit - len(records))
            walk = self._chain.descend if reverse else self._chain.ascend
            rows = await walk(session, first, last, wanted)
            for row in rows:
                records.append(await self._chain.record(session, row))
                size += records[-1].stored_bytes
                if size > PAGE_BYTES:
                    return records
            if len(rows) < wanted:
                break
            step = max(1, min(256, (PAGE_BYTES - size) * len(records) // size))
            if reverse:
                last = rows[-1].record.head.version - 1
            else:
                first = rows[-1].record.head.version + 1
        return records

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """The newest bucket and the sealed keys, asked at once."""
        bucket = self._chain.known(session).newest
        while True:
            claimed, sealed, top = await asyncio.gather(
                self.claimed(session, bucket, key), self.sealed_key(session, key), self._chain.top(session)
            )
            if top is None:
                return None
            found, head = claimed or sealed, _head(top[1])
            if found is not None and found[0] <= head.version:
                return Known(*found, head)
            if found is None and top[0] == bucket:
                return None
            bucket = top[0]  # The head is older than the key, or another bucket's: look again.

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
                found = await asyncio.gather(*[self._chain.top(SessionKey(query.one_tenant, id), plain=True) for id in some])
                for id, top in zip(some, found, strict=True):
                    after = id
                    if top is None or not _matches(query, top[1]):
                        continue
                    rows.append(IndexRow(SessionKey(query.one_tenant, id), _head(top[1]), top[1].tags, top[1].created))
                    if len(rows) == limit:
                        return Page(rows, id)
            looked += len(ids)
            if more and looked >= LOOKED_MAX:
                return Page(rows, after)
        return Page(rows, None)

    async def _ids(self, query: Query, after: str | None) -> tuple[list[str], bool]:
        """The next ids behind a cursor, in order, and whether there may be more."""
        behind = after is not None and after.encode() >= query.prefix.encode()
        name, start = ("sessions_behind", after) if behind else ("sessions", query.prefix)
        slots = await asyncio.gather(
            *[self._client.run(name, self._ns, query.one_tenant, slot, start, SCANNED) for slot in range(SESSION_SLOTS)]
        )
        ids = sorted((id for slot in slots for (id,) in slot), key=str.encode)
        ends = [slot[-1][0].encode() for slot in slots if len(slot) == SCANNED]
        if ends:  # A slot that was cut off may have more below the others' last.
            ids = [id for id in ids if id.encode() <= min(ends)]
        inside = [id for id in ids if id.startswith(query.prefix)]
        return inside, bool(ends) and len(inside) == len(ids)

    async def _beside(self, session: SessionKey, bucket: int, at: int | None) -> Statics | None:
        """The head beside an older version, whose rows need not be in the newest bucket."""
        return None if at is None else await self._chain.statics(session, bucket)

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

    async def _right_behind(self, session: SessionKey, snapshot: Snapshot) -> list[Row]:
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


def _head(statics: Statics) -> Head:
    """The head of a bucket that has one."""
    if statics.head is None:
        raise Corrupt("A bucket in Cassandra has records and no head.")
    return statics.head


def _matches(query: Query, statics: Statics) -> bool:
    status = _head(statics).status
    return (status == query.status if query.status is not None else status not in (Status.deleted, Status.moved)) and all(
        statics.tags.get(name) == value for name, value in query.tags.items()
    )
