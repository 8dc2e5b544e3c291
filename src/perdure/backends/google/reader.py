"""Reads: a session's header, then its records by number.

Two requests have no moment in common. The header says which versions there are; where one of them is missed, a truncation came between,
and the read is done again.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.backends.common.checks import fits, matches
from perdure.backends.common.pages import GapError, RecordPage, check_dense, version_range, without_gaps
from perdure.backends.common.pieces import PiecedRecord, piece_name
from perdure.backends.common.schema import read_due_cursor, write_due_cursor
from perdure.backends.google import layout
from perdure.backends.google.entities import Entities, Entity
from perdure.backends.google.layout import SessionHeader
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Head, Known, Loaded, Page, Query, Record, Row, Snapshot
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

FETCHED = 64
"""Records that one query asks for."""
HEADERS_MAX = 20_000
"""Sessions whose header is remembered: about 1 KB each."""


class Reader:
    """The reading half of the driver. What it remembers of headers is only ever a guess: a write is conditioned on it."""

    def __init__(self, entities: Entities) -> None:
        self.entities = entities
        self._headers = LruMap[SessionKey, SessionHeader](HEADERS_MAX)

    def remember(self, session: SessionKey, header: SessionHeader) -> None:
        """Keep a header for the next write, unless a newer one is known."""
        known = self._headers.get(session)
        if known is None or known.head.version <= header.head.version:
            self._headers.put(session, header)

    async def headers(self, sessions: Sequence[SessionKey]) -> list[SessionHeader | None]:
        """As they are now. One request."""
        found = await self.entities.get([layout.session(session) for session in sessions])
        headers = [None if entity is None else layout.decode_header(entity) for entity in found]
        for session, header in zip(sessions, headers, strict=True):
            self._headers.pop(session)
            if header is not None:
                self.remember(session, header)
        return headers

    async def header(self, session: SessionKey) -> SessionHeader | None:
        """One session's."""
        return (await self.headers([session]))[0]

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """See `Driver`. One request."""
        return [None if header is None else header.head for header in await self.headers(sessions)]

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """See `Driver`. The header, then the snapshot and the first records after it at once."""
        return await without_gaps(lambda: self._load(session, at), session, "the database")

    async def _load(self, session: SessionKey, at: int | None) -> Loaded | None:
        header = await self.header(session)
        if header is None:
            return None
        last = header.head.version if at is None else min(at, header.head.version)
        version = max((one for one in header.snapshots if header.first - 1 <= one <= last), default=None)
        first = header.first if version is None else version + 1
        snapshot, records = await gather_all(self._snapshot(session, version), self._records(session, max(first, header.first), last))
        if version is not None and snapshot is None:
            raise GapError
        return Loaded(header.row(session), snapshot, records)

    async def _snapshot(self, session: SessionKey, version: int | None) -> Snapshot | None:
        if version is None:
            return None
        (entity,) = await self.entities.get([layout.snapshot(session, version)])
        if entity is None:
            return None
        hash, body, name, pieces = layout.decode_snapshot(entity)
        return Snapshot(version, hash, await self._joined(session, name, pieces) if pieces else body)

    async def _records(self, session: SessionKey, first: int, last: int) -> list[Record]:
        """All of these versions. Raises `GapError`."""
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
        check_dense([one.record.head.version for one in stored], first, last)
        return await gather_all(*[self._whole(session, one) for one in stored])

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """See `Driver`. The header, and then a request for each 64 records."""
        return await without_gaps(lambda: self._read(session, after, before, limit, reverse=reverse), session, "the database")

    async def _read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """Records of these versions from one end, until their bytes fill a page."""
        header = await self.header(session)
        if header is None:
            return []
        first, last = version_range(after, before, header.first, header.head.version)
        page = RecordPage[Record](limit)
        while not page.full and first <= last:
            count = min(page.room(FETCHED), last - first + 1)
            if reverse:
                found = (await self._page(session, last - count + 1, last))[::-1]
                last -= count
            else:
                found = await self._page(session, first, first + count - 1)
                first += count
            for record in found:
                if page.add(record):
                    break
        return page.records

    async def _whole(self, session: SessionKey, stored: PiecedRecord) -> Record:
        if not stored.pieces:
            return stored.record
        return stored.joined([await self._joined(session, pieces_name(stored.record), stored.pieces)])

    async def _joined(self, session: SessionKey, name: str, pieces: int) -> bytes:
        found: list[Entity | None] = []
        for place in range(0, pieces, 2):  # Two pieces of nearly 1 MiB stay below what a message may have.
            paths = [(*layout.session(session), "piece", piece_name(name, one)) for one in range(place, min(pieces, place + 2))]
            found += await self.entities.get(paths)
        if not all(found):
            raise GapError
        return b"".join([layout.content(entity) for entity in found if entity is not None])

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `Driver`. One request."""
        entity, header = await self.entities.get([layout.idempotency(session, key), layout.session(session)])
        if entity is None or header is None:
            return None
        return Known(*layout.decode_key(entity), layout.decode_header(header).head)

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """See `Driver`. By name; a tag and a status are looked up in the service's own indexes."""
        if query.order == "due":
            return await self._due(query, cursor, limit)
        rows: list[Row] = []
        low, high = layout.named(query, cursor)
        while len(rows) < limit:
            found = await self.entities.query((), "session", low, high, limit + 1, layout.wanted(query))
            for entity in found[:limit]:
                session, header = layout.session_of(entity.path), layout.decode_header(entity)
                if matches(query, cursor, session, header.head, header.tags):
                    rows.append(header.row(session))
                    if len(rows) == limit:
                        break
            if len(found) <= limit:
                break
            low = found[limit].path[1]
        full = len(rows) == limit
        return Page(rows, rows[-1].session.id if full else None)

    async def _due(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By the index of the field `due`. One request, so a page is short where little of what is due fits."""
        after = "" if cursor is None else layout.due(*read_due_cursor(cursor))
        found = await self.entities.ordered("session", "due", after, layout.due_from(query.due_before), limit)
        rows = [layout.decode_header(entity).row(layout.session_of(entity.path)) for entity in found]
        fitting = [row for row in rows if fits(query, row.session, row.head, row.tags)]
        last = rows[-1] if len(rows) == limit else None
        return Page(fitting, None if last is None or last.due_at is None else write_due_cursor(last.due_at, last.session))


def pieces_name(record: Record) -> str:
    """What the names of a commit's pieces begin with."""
    return f"{layout.number(record.head.version)}-{record.id.hex()}"
