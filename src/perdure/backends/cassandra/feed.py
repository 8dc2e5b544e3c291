"""Reading the feed: all that was announced, in the order of time, and no further than is certain.

A reader takes only what is older than a horizon. While clocks differ by less than half of it, nothing can appear among what was read: an
announcement is durable, and relied on, for half a horizon. What was announced and is not in the chain the reader fences off before it goes
on: a conditional write that changes the bucket's fence, on which every append depends. An append that comes later, from a process or a node
that slept, then fails, and its writer announces it again. A fence is the time it was made at, so what was fenced once stays so for all
readers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec

from perdure.backends.cassandra import layout
from perdure.backends.cassandra.announcer import SLOTS, WINDOW, Entry
from perdure.backends.cassandra.buckets import Chain
from perdure.backends.cassandra.layout import Row
from perdure.backends.common.refusals import numbers_of
from perdure.backends.spi import Change, Page
from perdure.clock import Clock
from perdure.errors import Corrupt, Unavailable, Unknown
from perdure.model.ids import SessionKey

RESOLVED_AT_ONCE = 16
"""Announcements looked into at once."""
TRIES = 4
WINDOWS = 64

_ENTRIES = msgspec.msgpack.Decoder(list[Entry])


class _FeedRow(msgspec.Struct, frozen=True, order=True):
    """A row of the feed: when (ns), by which writer, what."""

    at: int
    writer: int
    entries: bytes = b""


class Feed:
    """The reading half of the feed. `horizon` in seconds."""

    def __init__(self, chain: Chain, clock: Clock, horizon: float) -> None:
        self._chain, self._client, self._clock, self.horizon = chain, chain.client, clock, horizon

    async def read(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`. What is younger than the horizon is waited for; the page is empty when there is nothing at all."""
        at, writer, skip = _position(cursor)
        changes: list[Change] = []
        while len(changes) < limit:
            sure = self._clock.now() - int(self.horizon * 1e9)
            rows = await self._rows(at, writer, max(limit, 16))
            safe = [row for row in rows if row.at <= sure]
            if not safe and (changes or not rows):
                break
            if not safe:
                await asyncio.sleep((rows[0].at - sure) / 1e9)
            for row in safe:
                entries = _decoded(row)
                start = skip if (row.at, row.writer) == (at, writer) else 0
                for number in range(start, len(entries), RESOLVED_AT_ONCE):
                    some = entries[number : number + RESOLVED_AT_ONCE]
                    for found in await asyncio.gather(*[self._resolve(entry, row.at) for entry in some]):
                        changes += found
                    at, writer, skip = row.at, row.writer, number + len(some)
                    if len(changes) >= limit:
                        return Page(changes, f"{at}:{writer}:{skip}")
                at, writer, skip = row.at, row.writer + 1, 0
        return Page(changes, f"{at}:{writer}:{skip}")

    async def _rows(self, at: int, writer: int, limit: int) -> list[_FeedRow]:
        """The next rows from a position on, in order: all there are, or some of them."""
        for (window,) in await self._client.run("windows", self._chain.ns, at // WINDOW, WINDOWS):
            slots = await asyncio.gather(
                *[self._client.run("announced", self._chain.ns, window, slot, at, writer, limit) for slot in range(SLOTS)]
            )
            rows = sorted(_FeedRow(*row) for slot in slots for row in slot)
            if rows:
                ends = [_FeedRow(*slot[-1]) for slot in slots if len(slot) == limit]
                return [row for row in rows if not ends or row <= min(ends)]
        return []

    async def _resolve(self, entry: Entry, announced: int) -> list[Change]:
        """What became of appends that were announced: their records, and nothing more for ever."""
        tenant, id, bucket, first, last, commit = entry
        session = SessionKey(tenant, id)
        at = self._chain.at(session, bucket)
        for _ in range(TRIES):
            page = await self._chain.page(session, bucket, max(first - 1, 1), last, last - first + 2)
            rows = [row for row in page.rows if row.record.head.version >= first]
            # An append may stand there by another try, announced at another time; what another wrote, that one announced.
            mine = rows if commit and rows and rows[0].record.id == commit else [row for row in rows if row.announced == announced]
            free = mine[-1].record.head.version + 1 if mine else first
            header = page.header or await self._chain.bare(session, bucket)
            head, fence = (None, None) if header is None else (header.head, header.fence)
            if free <= last and (head is None or head.version < free) and (fence or 0) < announced + int(self.horizon / 2 * 1e9):
                new = max(self._clock.now(), (fence or 0) + 1)
                with suppress(Unknown):
                    await self._client.decide(("fence", (new, *at, layout.encode_head(head), fence)))
                continue  # Look again: something may have landed just before.
            if mine:
                mine = await self._late(session, page.rows[0], first, announced) + mine
            return [Change(session, await self._chain.record(session, row)) for row in mine]
        raise Unavailable(f"Session {session.id!r} changes too fast for the feed to be sure of it.")

    async def _late(self, session: SessionKey, lowest: Row, first: int, announced: int) -> list[Row]:
        """The records right before `first` that were announced later, by a clock that is ahead: they come before it nevertheless."""
        late: list[Row] = []
        for version in range(first - 1, 0, -1):
            if lowest.record.head.version == version:
                row = lowest
            elif late or version % self._chain.buckets.size == 0:  # Elsewhere a record that is not on this page was truncated.
                row = next(iter(await self._chain.ascend(session, version, version, 1)), lowest)
            else:
                break
            if row.record.head.version != version or row.announced <= announced:
                break
            late.insert(0, row)
        return late


def _position(cursor: str | None) -> tuple[int, int, int]:
    at, writer, skip = numbers_of(cursor or "0:0:0", 3)
    return at, writer, skip


def _decoded(row: _FeedRow) -> list[Entry]:
    try:
        return _ENTRIES.decode(row.entries)
    except (msgspec.DecodeError, ValueError) as error:
        raise Corrupt(f"A row of the feed in Cassandra is not what was written: {error}.") from error
