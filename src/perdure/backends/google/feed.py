"""The feed: a log of which sessions moved from where to where, written by those who read it.

A commit marks its session's header, in the write that stores it. A reader that comes to the feed's end looks the marks up, adds an entry to
the log (on the condition that its number is free) and only then takes the marks away, each where the head is still the one that the
log now has. So nothing is passed over, however late it commits; what two readers order at once may come twice.

Where records are dropped, the entries about them are swept from the log. The number of an entry is taken from a count in the same commit:
a reader whose entry comes late, when others' were written and swept meanwhile, does not put it where all readers have already been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from perdure.backends.google import layout
from perdure.backends.google.entities import ABSENT, Refused, Write
from perdure.backends.google.layout import END, SessionHeader
from perdure.backends.remote.change_log import Ranges, feed_page, sweep
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Change, Page
from perdure.errors import Error
from perdure.model.ids import SessionKey

if TYPE_CHECKING:
    from perdure.backends.google.reader import Reader

ENTRY_SESSIONS = 128
"""Most sessions in one entry of the log."""
TRIES = 3
"""How often a mark is taken away from a session that is written to at the same time; then it stays, for the next reader."""


class Feed:
    """Reads and continues the log."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._next = ""
        """Where the next look at the marks begins: sessions that are written to all the time keep no other out."""

    async def page(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        return await feed_page(cursor, limit, entries=self.entries, order=self._order, read=self._reader.read)

    async def entries(self, low: int, limit: int) -> Sequence[tuple[int, Ranges]]:
        """See `Log`."""
        found = await self._reader.entities.query((), "log", layout.number(low), END, limit)
        return [layout.decode_ranges(entity) for entity in found]

    async def _order(self, entry: int) -> bool:
        """Add the next entry, unless another reader did; whether there is one now."""
        marked = await self._marked()
        if not marked:
            return bool(await self.entries(entry, 1))  # Another reader may have just put them all there.
        fields = layout.encode_ranges([(session, header.logged, header.head.version) for session, header in marked])
        (count,) = await self._reader.entities.get([layout.LOGGED])
        number = max(entry, layout.decode_count(count))
        counted = Write(layout.LOGGED, {"n": number + 1}, ABSENT if count is None else count.version)
        try:
            await self._reader.entities.commit([Write(("log", layout.number(number)), fields, ABSENT), counted])
        except Refused:
            return True
        await gather_all(*[self._take_out(session, header) for session, header in marked])
        return True

    async def sweep(self, dropped: int) -> None:
        """Sweep the log after so many records were dropped, which stays done where this fails: a later sweep comes by again."""
        with suppress(Error, Refused):
            count, place = await self._reader.entities.get([layout.LOGGED, layout.SWEPT])
            if count is not None:
                await sweep(self, layout.decode_count(place), dropped)

    async def firsts(self, sessions: Sequence[SessionKey]) -> Mapping[SessionKey, int]:
        """See `Log`."""
        headers = zip(sessions, await self._reader.headers(sessions), strict=True) if sessions else ()
        return {session: header.first for session, header in headers if header is not None}

    async def replace(self, changed: Mapping[int, Ranges | None], place: int) -> None:
        """See `Log`."""
        writes = [
            Write(("log", layout.number(number)), None if ranges is None else layout.encode_ranges(ranges))
            for number, ranges in changed.items()
        ]
        await self._reader.entities.commit([*writes, Write(layout.SWEPT, {"n": place})])

    async def _marked(self) -> list[tuple[SessionKey, SessionHeader]]:
        """Some sessions that the log does not have up to their head, from where the last look ended and then from the start."""
        for low in dict.fromkeys((self._next, "")):
            found = await self._reader.entities.query((), "session", low, END, ENTRY_SESSIONS, [("news", 1)])
            self._next = found[-1].path[1] + " " if len(found) == ENTRY_SESSIONS else ""
            if found:
                return [(layout.session_of(entity.path), layout.decode_header(entity)) for entity in found]
        return []

    async def _take_out(self, session: SessionKey, header: SessionHeader) -> None:
        """The log has this session up to a version. One that moved on meanwhile stays marked."""
        upto, before = header.head.version, header.logged
        for _ in range(TRIES):
            changed = msgspec.structs.replace(header, logged=upto)
            fields = layout.encode_header(session, changed, unlogged=changed.head.version > upto)
            try:
                (version,) = await self._reader.entities.commit([Write(layout.session(session), fields, header.version)])
            except Refused:
                found = await self._reader.header(session)
                if found is None or found.logged != before:
                    return
                header = found
            else:
                self._reader.remember(session, msgspec.structs.replace(changed, version=version))
                return
