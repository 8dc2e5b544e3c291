"""Reads: a session's top and its newest records in one query, older records item by item, the listing merged from its shards.

DynamoDB promises no common moment for the items of a query. The top says which versions there are; where one of them is missed, records
went from the top to an item of their own between the two looks, and the read is done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

import msgspec

from perdure.backends.dynamodb import layout
from perdure.backends.dynamodb.header_cache import Tops
from perdure.backends.dynamodb.layout import SEGMENT_RECORDS, SHARDS, Item, Layout, Stored, Top, at
from perdure.backends.dynamodb.table import Table
from perdure.backends.spi import Head, Known, Loaded, Page, Query, Record, Row, Snapshot
from perdure.errors import Corrupt
from perdure.model.commit import Status
from perdure.model.ids import SessionKey

PAGE_BYTES = 4 << 20
"""About how many bytes of records one `read` returns."""
PAGE_ITEMS = 64
"""Items that a query asks for: up to 1,024 records, and never more than DynamoDB's 1 MiB."""
LOOKS = 8
"""How often a read that found a gap is done again before the gap is believed."""
_LAST = (1 << 63) - 1
_END = "\U0010ffff" * 64
"""Behind every id that begins like the text before it."""


class _GapError(Exception):
    """A version between floor and head was not found."""


class _Wanted:
    """The versions from `first` to `last`, or backwards, as they come in: at most `limit`, and about `PAGE_BYTES`."""

    def __init__(self, first: int, last: int, limit: int, *, reverse: bool) -> None:
        self.records: list[Record] = []
        self.reverse = reverse
        self._first, self._last, self._limit = first, last, limit
        self._expected, self._end, self._step = (last, first, -1) if reverse else (first, last, 1)
        self._bytes = 0

    def next(self, version: int) -> bool:
        """Whether this version comes next; others of its item may lie outside. Raises `_GapError`."""
        if not self._first <= version <= self._last:
            return False
        if version != self._expected:
            raise _GapError
        return True

    def add(self, record: Record) -> bool:
        """Take it; whether that was the last one."""
        self.records.append(record)
        self._bytes += record.stored_bytes
        self._expected += self._step
        return record.head.version == self._end or len(self.records) == self._limit or self._bytes > PAGE_BYTES


class Reader:
    """The reading half of the driver."""

    def __init__(self, table: Table, keys: Layout) -> None:
        self.table, self._keys, self._tops = table, keys, Tops()

    async def _top(self, session: SessionKey) -> Top | None:
        item = await self.table.get(self._keys.top(session))
        if item is None:
            return None
        top = layout.decode_top(item)
        self._tops.remember(session, top)
        return top

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """One request for each 100 sessions."""
        keys = [self._keys.top(session) for session in sessions]
        if len(keys) == 1:
            top = await self._top(sessions[0])
            return [None if top is None else top.head]
        found = await self.table.get_many(keys, "h")
        items = [found.get((key["pk"]["S"], key["sk"]["S"])) for key in keys]
        return [item and layout.decode_head(item) for item in items]  # type: ignore[misc]

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """One request while the snapshot is no further back than 64 items; two at once for an older version."""
        for _ in range(LOOKS):
            try:
                return await self._load(session, at)
            except _GapError:
                continue
        raise self._torn(session)

    async def _load(self, session: SessionKey, upto: int | None) -> Loaded | None:
        pk, newest = self._keys.session(session), _LAST if upto is None else upto
        high = "t" if upto is None else at("r", upto + SEGMENT_RECORDS - 1)
        queries = [self.table.query(pk, "r", high, limit=PAGE_ITEMS, reverse=True)]
        if upto is not None:
            queries.insert(0, self.table.query(pk, "s", "t", limit=PAGE_ITEMS, reverse=True))
        pages = await asyncio.gather(*queries)
        items, start = [item for page, _ in pages for item in page], pages[-1][1]
        if not items or items[0]["sk"]["S"] != "t":
            if items:
                raise Corrupt(f"The top item of session {session.id!r} is gone from DynamoDB.", session=session.id)
            return None
        top = layout.decode_top(items[0])
        self._tops.remember(session, top)
        newest = min(newest, top.head.version)
        snapshots = [item for item in items if item["sk"]["S"][0] == "s" and layout.version_of(item) <= newest]
        snapshot = await self._snapshot(session, snapshots[0]) if snapshots else None
        first = max(top.floor, snapshot.version + 1 if snapshot else 0)
        segments = [item for item in items if item["sk"]["S"][0] == "r"]
        while start and first <= newest and (not segments or layout.decode_segment(segments[-1])[0].record.head.version > first):
            more, start = await self.table.query(pk, "r", high, limit=PAGE_ITEMS, reverse=True, start=start)
            segments += more
        stored = _dense([*_opened(reversed(segments)), *_tail(top, items[0])], first, newest)
        records = await asyncio.gather(*[self._whole(session, one) for one in stored])
        return Loaded(Row(session, top.head, top.tags, top.created), snapshot, records)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """The top first: often it holds what is asked for. One request more for each page of items."""
        for _ in range(LOOKS):
            try:
                return await self._read(session, after, before, limit, reverse=reverse)
            except _GapError:
                continue
        raise self._torn(session)

    async def _read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        top = await self._top(session)
        if top is None:
            return []
        first, last = max(after + 1, top.floor), min(top.head.version, _LAST if before is None else before - 1)
        if first > last or limit < 1:
            return []
        tail = _tail(top, self._keys.top(session))
        wanted = _Wanted(first, last, limit, reverse=reverse)
        if reverse and await self._take(session, wanted, tail[::-1]):
            return wanted.records
        pk, start, size = self._keys.session(session), None, 4
        below = min(last, top.head.version - len(tail))
        while first <= below:
            high = at("r", below + SEGMENT_RECORDS - 1)
            items, start = await self.table.query(pk, at("r", first), high, limit=size, reverse=reverse, start=start)
            if await self._take(session, wanted, _opened(items, reverse=reverse)):
                return wanted.records
            if not start:
                break
            size = min(size * 4, PAGE_ITEMS)  # Whoever wants the next few records pays for no more.
        if reverse or not await self._take(session, wanted, tail):
            raise _GapError
        return wanted.records

    async def _take(self, session: SessionKey, wanted: _Wanted, found: Sequence[Stored]) -> bool:
        """Hand over what was found; whether that is all."""
        for stored in found:
            if wanted.next(stored.record.head.version) and wanted.add(await self._whole(session, stored)):
                return True
        return False

    async def _whole(self, session: SessionKey, stored: Stored) -> Record:
        if not stored.parts:
            return stored.record
        payload = await self._joined(session, layout.pieces(stored.record), stored.parts)
        return msgspec.structs.replace(stored.record, meta=payload[: stored.meta_bytes], body=payload[stored.meta_bytes :])

    async def _snapshot(self, session: SessionKey, item: Item) -> Snapshot:
        snapshot, name, parts = layout.decode_snapshot(item)
        return msgspec.structs.replace(snapshot, body=await self._joined(session, name, parts)) if parts else snapshot

    async def _joined(self, session: SessionKey, name: str, parts: int) -> bytes:
        items = await self.table.query_all(self._keys.parts(session), layout.piece(name, 0), layout.piece(name, parts - 1))
        if len(items) != parts:
            raise Corrupt(f"Of {parts} pieces of {name} of session {session.id!r} DynamoDB has {len(items)}.", session=session.id)
        return b"".join(item["b"]["B"] for item in items)

    def _torn(self, session: SessionKey) -> Corrupt:
        return Corrupt(
            f"Records of session {session.id!r} are gone from DynamoDB: were they deleted by hand, or by a TTL?", session=session.id
        )

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """One request."""
        known, top = self._keys.idempotency(session, key), self._keys.top(session)
        found = await self.table.get_many([known, top], "v,r,h")
        item, head = (found.get((one["pk"]["S"], one["sk"]["S"])) for one in (known, top))
        return Known(*layout.decode_idempotency(item), layout.decode_head(head)) if item and head else None

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By id, merged from the listing's shards; what the tags let pass is looked up by its top item, which decides."""
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
        found = await self.table.get_many([self._keys.top(session) for session in sessions], "h,c,g")
        rows = []
        for session in sessions:
            item = found.get((self._keys.session(session), "t"))
            if item is None:
                raise Corrupt(f"The top item of session {session.id!r} is gone from DynamoDB.", session=session.id)
            row = Row(session, layout.decode_head(item), layout.decode_tags(item), layout.created(item))
            if _matches(query, row):
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


def _opened(items: Iterable[Item], *, reverse: bool = False) -> list[Stored]:
    return [stored for item in items for stored in layout.decode_segment(item)[:: -1 if reverse else 1]]


def _tail(top: Top, item: Item) -> list[Stored]:
    return [layout.decode_record(blob, item) for blob in top.tail]


def _dense(stored: Sequence[Stored], first: int, last: int) -> list[Stored]:
    """Those from `first` to `last`; `_GapError` if one is missing."""
    kept = [one for one in stored if first <= one.record.head.version <= last]
    if [one.record.head.version for one in kept] != list(range(first, last + 1)):
        raise _GapError
    return kept


def _matches(query: Query, row: Row) -> bool:
    status = row.head.status
    return (status == query.status if query.status is not None else status not in (Status.deleted, Status.moved)) and all(
        row.tags.get(name) == value for name, value in query.tags.items()
    )
