"""What is due: rows in windows of time, each with a name that the cells of its session have while it counts.

put     the row, then a mark of its window, then, by the caller, the cells that name the row. A name is used once: of a write that is
        sent twice each try has its own, so what was removed once is never needed again
stale   a row that the cells do not name. Its writer died, or is about to write them: so the bucket is fenced off first, if cells and head
        are still the same, and with it every write that was begun before. Then the row is removed. Such a writer begins again
window  is left out of later scans when it was read from end to end and is empty: the marks that were seen before that are removed.
        A row that came later has a mark that came later
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from itertools import groupby
from typing import NamedTuple

from perdure.backends.cassandra import cells, layout
from perdure.backends.cassandra.buckets import REMEMBERED, Chain
from perdure.backends.common.checks import LOOKED_MAX, fits
from perdure.backends.common.refusals import bad_cursor
from perdure.backends.common.schema import read_due_cursor, write_due_cursor
from perdure.backends.spi import Page, Query, Row
from perdure.clock import Clock
from perdure.errors import Error
from perdure.lru import LruMap
from perdure.model.ids import SessionKey, uuid7

WINDOW = 600 * 10**9
"""Nanoseconds of `due_at` in one partition."""
FETCHED = 64
"""Rows, and their sessions, looked at together."""
WINDOWS = 256
"""Marks of windows fetched at once."""
_END = (1 << 63) - 1
_LAST_NAME = b"\xff" * 17
"""After every name."""


class DueRow(NamedTuple):
    """A row of what is due."""

    due_at: int
    tenant: str
    id: str
    name: bytes
    written: int

    @property
    def session(self) -> SessionKey:
        """Whose it is."""
        return SessionKey(self.tenant, self.id)


Position = tuple[int, str, str, bytes]


class DueRows:
    """The rows of one store. `horizon` in seconds: younger ones are left to their writers."""

    def __init__(self, chain: Chain, clock: Clock, horizon: float) -> None:
        self._chain, self._client, self._clock, self._horizon = chain, chain.client, clock, horizon
        self._marks = LruMap[int, frozenset[bytes]](REMEMBERED)

    async def put(self, session: SessionKey, due_at: int) -> bytes:
        """Write a row; its name."""
        window, name = due_at // WINDOW, self._unique()
        await self._client.run("put_due", self._chain.ns, window, due_at, *session, name, self._clock.now())
        older, mark = self._marks.get(window) or frozenset(), self._unique()
        await self._client.run("put_due_window", self._chain.ns, window, mark)
        # This mark came after all rows that the older ones stand for.
        self._marks.put(window, (self._marks.get(window) or frozenset()) - older | {mark})
        await self._drop_marks(window, older)
        return name

    async def drop(self, session: SessionKey, due_at: int, name: bytes) -> None:
        """Remove a row that counts no more. One that stays is found by a scan."""
        with suppress(Error):
            await self._client.run("drop_due", self._chain.ns, due_at // WINDOW, due_at, *session, name)

    async def _drop_marks(self, window: int, marks: frozenset[bytes]) -> None:
        with suppress(Error):
            await asyncio.gather(*[self._client.run("drop_due_window", self._chain.ns, window, mark) for mark in marks])

    def _unique(self) -> bytes:
        return uuid7(self._clock.now(), self._clock.bits(74))

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """See `spi.Backend.scan`, in the order `due`; at most about `LOOKED_MAX` rows are looked at."""
        after: Position = (-1, "", "", b"")
        if cursor is not None:
            due_at, session = read_due_cursor(cursor)
            if not 0 <= due_at <= _END:
                raise bad_cursor(cursor)
            after = (due_at, *session, _LAST_NAME)
        last = _END if query.due_before is None else min(query.due_before - 1, _END)
        rows: list[Row] = []
        looked = 0
        async with aclosing(self._pages(after, last)) as pages:
            async for page in pages:
                found = await asyncio.gather(*map(self._row, page))
                for row in found:
                    if row is not None and fits(query, row.session, row.head, row.tags):
                        rows.append(row)
                        if len(rows) == limit:
                            return Page(rows, write_due_cursor(row.due_at or 0, row.session))
                looked += len(page)
                if looked >= LOOKED_MAX:
                    last_seen = _last_seen(page, found)
                    return Page(rows, write_due_cursor(last_seen.due_at, last_seen.session))
        return Page(rows, None)

    async def _pages(self, after: Position, last: int) -> AsyncGenerator[list[DueRow], None]:
        """The rows in order, some at a time. The last of a page may have more of its session in the next."""
        start = max(after[0], 0) // WINDOW
        while start <= last // WINDOW:
            found = await self._client.run("due_windows", self._chain.ns, start, last // WINDOW, WINDOWS)
            for window, marks in groupby(found, lambda row: int(row[0])):
                seen = frozenset(mark for _, mark in marks)
                position, empty = after, True
                while page := await self._rows(window, position, last):
                    empty = False
                    yield page
                    if len(page) < FETCHED:
                        break
                    position = page[-1][:4]
                if empty and (window + 1) * WINDOW - 1 <= last and after[0] < window * WINDOW:
                    await self._drop_marks(window, seen)
                start = window + 1
            if len(found) < WINDOWS:
                return

    async def _rows(self, window: int, after: Position, last: int) -> list[DueRow]:
        found = await self._client.run("due", self._chain.ns, window, *after, last, FETCHED)
        return [DueRow(*row) for row in found]

    async def _row(self, due: DueRow) -> Row | None:
        """The session's row, if this is when it is due."""
        latest = await self._chain.latest_bucket(due.session, plain=True)
        if latest is not None and cells.due_row(latest[1].cells) == (due.due_at, due.name):
            return cells.index_row(due.session, latest[1])
        if abs(self._clock.now() - due.written) > self._horizon * 1e9:
            with suppress(Error):
                await self._remove(due)
        return None

    async def _remove(self, due: DueRow) -> None:
        """Remove a row that no cells name, nor will."""
        session = due.session
        spot = await self._chain.spot(session)
        if cells.due_row(spot.cells) == (due.due_at, due.name):
            return
        # No time, as the feed's fences are: the feed takes it for none.
        at, fence = self._chain.at(session, spot.bucket), (spot.fence or 0) + 1
        refused = await self._client.decide(("fence_cells", (fence, *at, layout.encode_head(spot.head), spot.fence, spot.stored)))
        if refused is None:
            await self.drop(session, due.due_at, due.name)


def _last_seen(page: Sequence[DueRow], found: Sequence[Row | None]) -> DueRow:
    """The last row of a page after which a cursor may go on: of the page's last session and time, the one that counts may come yet."""
    last = page[-1]
    if any(row is not None and due[:3] == last[:3] for due, row in zip(page, found, strict=True)):
        return last
    return next((due for due in reversed(page) if due[:3] != last[:3]), last)
