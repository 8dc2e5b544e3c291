"""Reads: a session's top, then its records by number.

Two requests have no moment in common. The top says which versions there are; where one of them is missed, a truncation came between,
and the read is done again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.backends.common.checks import matches
from perdure.backends.google import layout
from perdure.backends.google.entities import Entities, Entity
from perdure.backends.google.layout import Stored, Top
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Head, Known, Loaded, Page, Query, Record, Row, Snapshot
from perdure.errors import Corrupt
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

PAGE_BYTES = 4 << 20
"""About how many bytes of records one `read` returns."""
FETCHED = 64
"""Records that one query asks for."""
LOOKS = 8
"""How often a read that missed a version is done again before the gap is believed."""
TOPS = 20_000
"""Sessions whose top is remembered: about 1 KB each."""


class _GapError(Exception):
    """A version between first and head was not found."""


class Reader:
    """The reading half of the driver. What it remembers of tops is only ever a guess: a write is conditioned on it."""

    def __init__(self, entities: Entities) -> None:
        self.entities = entities
        self._tops = LruMap[SessionKey, Top](TOPS)

    def remember(self, session: SessionKey, top: Top) -> None:
        """Keep a top for the next write, unless a newer one is known."""
        known = self._tops.get(session)
        if known is None or known.head.version <= top.head.version:
            self._tops.put(session, top)

    async def tops(self, sessions: Sequence[SessionKey]) -> list[Top | None]:
        """As they are now. One request."""
        found = await self.entities.get([layout.session(session) for session in sessions])
        tops = [None if entity is None else layout.decode_top(entity) for entity in found]
        for session, top in zip(sessions, tops, strict=True):
            self._tops.pop(session)
            if top is not None:
                self.remember(session, top)
        return tops

    async def top(self, session: SessionKey) -> Top | None:
        """One session's."""
        return (await self.tops([session]))[0]

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """See `Driver`. One request."""
        return [None if top is None else top.head for top in await self.tops(sessions)]

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """See `Driver`. The top, then the snapshot and the first records behind it at once."""
        for _ in range(LOOKS):
            top = await self.top(session)
            if top is None:
                return None
            last = top.head.version if at is None else min(at, top.head.version)
            version = max((one for one in top.snapshots if top.first - 1 <= one <= last), default=None)
            first = top.first if version is None else version + 1
            try:
                snapshot, records = await gather_all(self._snapshot(session, version), self._records(session, max(first, top.first), last))
            except _GapError:
                continue
            if version is not None and snapshot is None:
                continue
            return Loaded(Row(session, top.head, top.tags, top.made), snapshot, records)
        raise _torn(session)

    async def _snapshot(self, session: SessionKey, version: int | None) -> Snapshot | None:
        if version is None:
            return None
        (entity,) = await self.entities.get([layout.snapshot(session, version)])
        if entity is None:
            return None
        hash, body, name, pieces = layout.decode_snapshot(entity)
        return Snapshot(version, hash, await self._joined(session, name, pieces) if pieces else body)

    async def _records(self, session: SessionKey, first: int, last: int) -> list[Record]:
        """All of these versions. Raises `_GapError`."""
        records: list[Record] = []
        while first <= last:
            page = await self._page(session, first, min(last, first + FETCHED - 1))
            records += page
            first += len(page)
        return records

    async def _page(self, session: SessionKey, first: int, last: int) -> list[Record]:
        low, high = layout.number(first), layout.number(last + 1)
        found = await self.entities.query(layout.session(session), "record", low, high, last - first + 1)
        stored = [layout.decode_record(entity) for entity in found]
        if [one.record.head.version for one in stored] != list(range(first, last + 1)):
            raise _GapError
        return await gather_all(*[self._whole(session, one) for one in stored])

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """See `Driver`. The top, and then a request for each 64 records."""
        for _ in range(LOOKS):
            top = await self.top(session)
            if top is None:
                return []
            first, last = max(after + 1, top.first), top.head.version if before is None else min(top.head.version, before - 1)
            first, last = (max(first, last - limit + 1), last) if reverse else (first, min(last, first + limit - 1))
            try:
                return await self._some(session, first, last, reverse=reverse)
            except _GapError:
                continue
        raise _torn(session)

    async def _some(self, session: SessionKey, first: int, last: int, *, reverse: bool) -> list[Record]:
        """Records of these versions from one end, until their bytes fill a page."""
        records: list[Record] = []
        size = 0
        while first <= last:
            if reverse:
                page = (await self._page(session, max(first, last - FETCHED + 1), last))[::-1]
                last -= len(page)
            else:
                page = await self._page(session, first, min(last, first + FETCHED - 1))
                first += len(page)
            for record in page:
                records.append(record)
                size += record.stored_bytes
                if size > PAGE_BYTES:
                    return records
        return records

    async def _whole(self, session: SessionKey, stored: Stored) -> Record:
        if not stored.pieces:
            return stored.record
        payload = await self._joined(session, pieces_of(stored.record), stored.pieces)
        return msgspec.structs.replace(stored.record, meta=payload[: stored.meta_bytes], body=payload[stored.meta_bytes :])

    async def _joined(self, session: SessionKey, name: str, pieces: int) -> bytes:
        found: list[Entity | None] = []
        for place in range(0, pieces, 2):  # Two pieces of nearly 1 MiB stay below what a message may have.
            paths = [(*layout.session(session), "piece", piece(name, one)) for one in range(place, min(pieces, place + 2))]
            found += await self.entities.get(paths)
        if not all(found):
            raise _GapError
        return b"".join([layout.content(entity) for entity in found if entity is not None])

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `Driver`. One request."""
        entity, top = await self.entities.get([layout.idempotency(session, key), layout.session(session)])
        if entity is None or top is None:
            return None
        return Known(*layout.decode_key(entity), layout.decode_top(top).head)

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """See `Driver`. By name; a tag and a status are looked up in the service's own indexes."""
        rows: list[Row] = []
        low, high = layout.named(query, cursor)
        while len(rows) < limit:
            found = await self.entities.query((), "session", low, high, limit + 1, layout.wanted(query))
            for entity in found[:limit]:
                session, top = layout.session_of(entity.path), layout.decode_top(entity)
                if matches(query, cursor, session, top.head, top.tags):
                    rows.append(Row(session, top.head, top.tags, top.made))
                    if len(rows) == limit:
                        break
            if len(found) <= limit:
                break
            low = found[limit].path[1]
        full = len(rows) == limit
        return Page(rows, rows[-1].session.id if full else None)


def pieces_of(record: Record) -> str:
    """What the names of a commit's pieces begin with."""
    return f"{layout.number(record.head.version)}-{record.id.hex()}"


def piece(name: str, place: int) -> str:
    """The name of a piece."""
    return f"{name}-{place:04x}"


def _torn(session: SessionKey) -> Corrupt:
    return Corrupt(f"Records of session {session.id!r} are gone: were they deleted by hand, or by a time to live?", session=session.id)
