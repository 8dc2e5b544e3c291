"""Reads: a session's header and its newest records in one query, older records item by item, the listing merged from its shards.

DynamoDB promises no common moment for the items of a query. The header says which versions there are; where one of them is missed, records
went from the header to an item of their own between the two looks, and the read is done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

import msgspec

from perdure.backends.common.checks import selects
from perdure.backends.common.pages import VERSION_END, GapError, RecordPage, check_dense, version_range, without_gaps
from perdure.backends.common.pieces import PiecedRecord, piece_name
from perdure.backends.dynamodb import layout
from perdure.backends.dynamodb.due import scan_due
from perdure.backends.dynamodb.header_cache import HeaderCache
from perdure.backends.dynamodb.layout import SEGMENT_RECORDS, SHARDS, Item, Layout, SessionHeader, at
from perdure.backends.dynamodb.table import Table
from perdure.backends.spi import Head, Known, Loaded, Page, Query, Record, Row, Snapshot
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

PAGE_ITEMS = 64
"""Items that a query asks for: up to 1,024 records, and never more than DynamoDB's 1 MiB."""
_END = "\U0010ffff" * 64
"""Above every id that begins like the text before it."""


class _Wanted:
    """The versions from `first` to `last`, or backwards, as they come in, until they fill a page."""

    def __init__(self, first: int, last: int, limit: int, *, reverse: bool) -> None:
        self._page = RecordPage[Record](limit)
        self._first, self._last = first, last
        self._expected, self._end, self._step = (last, first, -1) if reverse else (first, last, 1)

    @property
    def records(self) -> list[Record]:
        return self._page.records

    def next(self, version: int) -> bool:
        """Whether this version comes next; others of its item may lie outside. Raises `GapError`."""
        if not self._first <= version <= self._last:
            return False
        if version != self._expected:
            raise GapError
        return True

    def add(self, record: Record) -> bool:
        """Take it; whether that was the last one."""
        self._expected += self._step
        return self._page.add(record) or record.head.version == self._end


class Reader:
    """The reading half of the driver."""

    def __init__(self, table: Table, keys: Layout) -> None:
        self.table, self._keys, self._headers = table, keys, HeaderCache()

    async def _header_of(self, session: SessionKey) -> SessionHeader | None:
        item = await self.table.get(self._keys.header(session))
        if item is None:
            return None
        header = layout.decode_header(item)
        self._headers.remember(session, header)
        return header

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """One request for each 100 sessions."""
        keys = [self._keys.header(session) for session in sessions]
        if len(keys) == 1:
            header = await self._header_of(sessions[0])
            return [None if header is None else header.head]
        found = await self.table.get_many(keys, "h")
        items = [found.get((key["pk"]["S"], key["sk"]["S"])) for key in keys]
        return [item and layout.decode_head(item) for item in items]  # type: ignore[misc]

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """One request while the snapshot is no further back than 64 items; two at once for an older version."""
        return await without_gaps(lambda: self._load(session, at), session, "DynamoDB")

    async def _load(self, session: SessionKey, upto: int | None) -> Loaded | None:
        pk, newest = self._keys.session(session), VERSION_END if upto is None else upto
        high = "t" if upto is None else at("r", upto + SEGMENT_RECORDS - 1)
        queries = [self.table.query(pk, "r", high, limit=PAGE_ITEMS, reverse=True)]
        if upto is not None:
            queries.insert(0, self.table.query(pk, "s", "t", limit=PAGE_ITEMS, reverse=True))
        pages = await asyncio.gather(*queries)
        items, start = [item for page, _ in pages for item in page], pages[-1][1]
        if not items or items[0]["sk"]["S"] != "t":
            if items:
                raise Corrupt(f"The header item of session {session.id!r} is gone from DynamoDB.", session=session.id)
            return None
        header = layout.decode_header(items[0])
        self._headers.remember(session, header)
        newest = min(newest, header.head.version)
        snapshots = [item for item in items if item["sk"]["S"][0] == "s" and layout.version_of(item) <= newest]
        snapshot = await self._snapshot(session, snapshots[0]) if snapshots else None
        first = max(header.floor, snapshot.version + 1 if snapshot else 0)
        segments = [item for item in items if item["sk"]["S"][0] == "r"]
        while start and first <= newest and (not segments or layout.decode_segment(segments[-1])[0].record.head.version > first):
            more, start = await self.table.query(pk, "r", high, limit=PAGE_ITEMS, reverse=True, start=start)
            segments += more
        stored = _dense([*_opened(reversed(segments)), *_tail(header, items[0])], first, newest)
        records = await asyncio.gather(*[self._whole(session, one) for one in stored])
        return Loaded(header.row(session), snapshot, records)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """The header first: often it holds what is asked for. One request more for each page of items."""
        return await without_gaps(lambda: self._read(session, after, before, limit, reverse=reverse), session, "DynamoDB")

    async def _read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        header = await self._header_of(session)
        if header is None:
            return []
        first, last = version_range(after, before, header.floor, header.head.version)
        if first > last or limit < 1:
            return []
        tail = _tail(header, self._keys.header(session))
        wanted = _Wanted(first, last, limit, reverse=reverse)
        if reverse and await self._take(session, wanted, tail[::-1]):
            return wanted.records
        pk, start, size = self._keys.session(session), None, 4
        below = min(last, header.head.version - len(tail))
        while first <= below:
            high = at("r", below + SEGMENT_RECORDS - 1)
            items, start = await self.table.query(pk, at("r", first), high, limit=size, reverse=reverse, start=start)
            if await self._take(session, wanted, _opened(items, reverse=reverse)):
                return wanted.records
            if not start:
                break
            size = min(size * 4, PAGE_ITEMS)  # A read of the next few records pays for no more.
        if reverse or not await self._take(session, wanted, tail):
            raise GapError
        return wanted.records

    async def _take(self, session: SessionKey, wanted: _Wanted, found: Sequence[PiecedRecord]) -> bool:
        """Hand over what was found; whether that is all."""
        for stored in found:
            if wanted.next(stored.record.head.version) and wanted.add(await self._whole(session, stored)):
                return True
        return False

    async def _whole(self, session: SessionKey, stored: PiecedRecord) -> Record:
        if not stored.pieces:
            return stored.record
        return stored.joined([await self._joined(session, layout.pieces(stored.record), stored.pieces)])

    async def _snapshot(self, session: SessionKey, item: Item) -> Snapshot:
        snapshot, name, parts = layout.decode_snapshot(item)
        return msgspec.structs.replace(snapshot, body=await self._joined(session, name, parts)) if parts else snapshot

    async def _joined(self, session: SessionKey, name: str, parts: int) -> bytes:
        items = await self.table.query_all(self._keys.parts(session), piece_name(name, 0), piece_name(name, parts - 1))
        if len(items) != parts:
            raise Corrupt(f"Of {parts} pieces of {name} of session {session.id!r} DynamoDB has {len(items)}.", session=session.id)
        return b"".join(item["b"]["B"] for item in items)

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """One request."""
        known, header = self._keys.idempotency(session, key), self._keys.header(session)
        found = await self.table.get_many([known, header], "v,r,h")
        item, head = (found.get((one["pk"]["S"], one["sk"]["S"])) for one in (known, header))
        return Known(*layout.decode_idempotency(item), layout.decode_head(head)) if item and head else None

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By id, or what is due."""
        return await (scan_due(self.table, self._keys, query, cursor, limit) if query.order == "due" else self._by_id(query, cursor, limit))

    async def _by_id(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """Merged from the listing's shards; what the tags let pass is looked up by its header item, which decides."""
        rows: list[Row] = []
        async with aclosing(self._ids(query, cursor, limit)) as ids:
            while len(rows) < limit:
                wanted: list[SessionKey] = []
                async for id in ids:
                    wanted.append(SessionKey(query.one_tenant, id))
                    if len(wanted) == limit - len(rows):
                        break
                else:
                    return Page(rows + await self._rows(query, wanted), None)
                rows += await self._rows(query, wanted)
        return Page(rows, rows[-1].session.id)

    async def _rows(self, query: Query, sessions: Sequence[SessionKey]) -> list[Row]:
        found = await self.table.get_many([self._keys.header(session) for session in sessions], layout.ROW)
        rows = []
        for session in sessions:
            item = found.get((self._keys.session(session), "t"))
            if item is None:
                raise Corrupt(f"The header item of session {session.id!r} is gone from DynamoDB.", session=session.id)
            row = layout.decode_row(session, item)
            if selects(query, row.head, row.tags):
                rows.append(row)
        return rows

    async def _ids(self, query: Query, cursor: str | None, limit: int) -> AsyncGenerator[str, None]:
        """Ids with the prefix and the tags, in the order of their bytes: the smallest that any shard offers, until none has more."""
        low = max(query.prefix, (cursor or "") + "\x01", key=str.encode)  # No name holds \x01, and no key may be empty.
        size = max(8, 2 * limit // SHARDS)
        waiting: list[list[str]] = [[] for _ in range(SHARDS)]
        starts: list[Item | None] = [None] * SHARDS
        more = [True] * SHARDS

        async def fill(shard: int) -> None:
            while more[shard] and not waiting[shard]:
                items, start = await self.table.query(
                    self._keys.listing(query.one_tenant, shard), low, query.prefix + _END, limit=size, start=starts[shard]
                )
                starts[shard], more[shard] = start, start is not None
                for item in items:
                    tags = layout.decode_tags(item)
                    if all(tags.get(name) == value for name, value in query.tags.items()):
                        waiting[shard].append(item["sk"]["S"])
                waiting[shard].reverse()

        while True:
            await asyncio.gather(*[fill(shard) for shard in range(SHARDS) if more[shard] and not waiting[shard]])
            offers = [ids for ids in waiting if ids]
            if not offers:
                return
            yield min(offers, key=lambda ids: ids[-1].encode()).pop()


def _opened(items: Iterable[Item], *, reverse: bool = False) -> list[PiecedRecord]:
    return [stored for item in items for stored in layout.decode_segment(item)[:: -1 if reverse else 1]]


def _tail(header: SessionHeader, item: Item) -> list[PiecedRecord]:
    return [layout.decode_record(blob, item) for blob in header.tail]


def _dense(stored: Sequence[PiecedRecord], first: int, last: int) -> list[PiecedRecord]:
    """Those from `first` to `last`; raises `GapError` if one is missing."""
    kept = [one for one in stored if first <= one.record.head.version <= last]
    check_dense([one.record.head.version for one in kept], first, last)
    return kept
