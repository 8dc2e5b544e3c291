"""The feed: a log of which sessions moved from where to where, written by those who read it.

A commit marks its session's top, in the write that stores it. Whoever reads the feed to its end looks the marks up, adds an entry to
the log (on the condition that its number is free) and only then takes the marks away, each where the head is still the one that the
log now has. So nothing is passed over, however late it commits; what two readers order at once may come twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.backends.google import layout
from perdure.backends.google.entities import ABSENT, Refused, Write
from perdure.backends.google.layout import END, Top
from perdure.backends.remote.loop import together
from perdure.backends.spi import Change, Page
from perdure.errors import Invalid
from perdure.model.ids import SessionKey

if TYPE_CHECKING:
    from perdure.backends.google.reader import Reader

ENTRY_SESSIONS = 128
"""Most sessions in one entry of the log."""
TRIES = 3
"""How often a mark is taken away from a session that is written to at the same time; then it stays, for the next reader."""


class Feed:
    """Reads and continues the log. A cursor names an entry, a session in it, and the version that came last."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._next = ""
        """Where the next look at the marks begins: those who never rest keep nobody out."""

    async def page(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        entry, place, version = _parsed(cursor)
        changes: list[Change] = []
        while len(changes) < limit:
            ranges = await self._ranges(entry)
            if ranges is None:
                if changes or not await self._order(entry):
                    break
                continue
            while place < len(ranges) and len(changes) < limit:
                session, after, upto = ranges[place]
                records = await self._reader.read(session, max(after, version), upto + 1, limit - len(changes), reverse=False)
                changes += [Change(session, record) for record in records]
                version = records[-1].head.version if records else upto  # What was truncated meanwhile is gone here too.
                if version == upto:
                    place, version = place + 1, 0
            if place == len(ranges):
                entry, place = entry + 1, 0
        return Page(changes, f"{entry}:{place}:{version}")

    async def _ranges(self, entry: int) -> list[tuple[SessionKey, int, int]] | None:
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


def _parsed(cursor: str | None) -> tuple[int, int, int]:
    parts = (cursor or "0:0:0").split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
        raise Invalid(f"{cursor!r} is no cursor of this feed.")
    entry, place, version = map(int, parts)
    return entry, place, version
