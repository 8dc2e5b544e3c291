"""The feed: a log of which sessions moved from where to where, written by those who read it.

A commit marks its session's top, in the write that stores it. Whoever reads the feed to its end looks the marks up, adds an entry to
the log (on the condition that its number is free) and only then takes the marks away, each where the head is still the one that the
log now has. So nothing is passed over, however late it commits; what two readers order at once may come twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure.backends.google import layout
from perdure.backends.google.entities import ABSENT, Refused, Write
from perdure.backends.google.layout import END, Top
from perdure.backends.remote.loop import together
from perdure.backends.remote.ranges import Range, feed_page
from perdure.backends.spi import Change, Page
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
        """Where the next look at the marks begins: those who never rest keep nobody out."""

    async def page(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        return await feed_page(cursor, limit, entry=self._ranges, order=self._order, read=self._reader.read)

    async def _ranges(self, entry: int) -> Sequence[Range] | None:
        (found,) = await self._reader.entities.get([("log", layout.number(entry))])
        return None if found is None else layout.decode_ranges(found)

    async def _order(self, entry: int) -> bool:
        """Add the next entry, unless another reader did; whether there is one now."""
        marked = await self._marked()
        if not marked:
            return await self._ranges(entry) is not None  # Another reader may have just put them all there.
        fields = layout.encode_ranges([(session, top.logged, top.head.version) for session, top in marked])
        try:
            await self._reader.entities.commit([Write(("log", layout.number(entry)), fields, ABSENT)])
        except Refused:
            return True
        await together(*[self._take_out(session, top) for session, top in marked])
        return True

    async def _marked(self) -> list[tuple[SessionKey, Top]]:
        """Some sessions that the log does not have up to their head, from where the last look ended and then from the start."""
        for low in dict.fromkeys((self._next, "")):
            found = await self._reader.entities.query((), "session", low, END, ENTRY_SESSIONS, [("news", 1)])
            self._next = found[-1].path[1] + " " if len(found) == ENTRY_SESSIONS else ""
            if found:
                return [(layout.session_of(entity.path), layout.decode_top(entity)) for entity in found]
        return []

    async def _take_out(self, session: SessionKey, top: Top) -> None:
        """The log has this session up to a version. One that moved on meanwhile stays marked."""
        upto, before = top.head.version, top.logged
        for _ in range(TRIES):
            changed = msgspec.structs.replace(top, logged=upto)
            fields = layout.encode_top(changed, news=changed.head.version > upto)
            try:
                (version,) = await self._reader.entities.commit([Write(layout.session(session), fields, top.version)])
            except Refused:
                found = await self._reader.top(session)
                if found is None or found.logged != before:
                    return
                top = found
            else:
                self._reader.remember(session, msgspec.structs.replace(changed, version=version))
                return
