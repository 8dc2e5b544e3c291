"""Chains as they were before anything was archived: what a session's engine no longer holds is read from its segments.

A session's records in the engine are without a gap, up to its head. Below them lie those that anchors let go. So a read that meets a later
version than the next one, or nothing, looks for an anchor: in the index row, else in the chain. Where there is none, or its records were
dropped, the answer is the engine's own, and the reader says `Truncated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from perdure.backends.common.pages import RecordPage
from perdure.backends.spi import Backend, Head, Loaded, Settling, Snapshot
from perdure.codec.codec import Codec
from perdure.engine.read.segments import Segment, Segments
from perdure.errors import Corrupt
from perdure.lru import LruMap
from perdure.model.anchor import Anchor, anchor_of, anchored
from perdure.model.commit import Kind
from perdure.model.control import decode_control
from perdure.model.ids import SessionKey
from perdure.model.record import Record

FORKED = "forked"
"""The event of a fork's first commit: data {session, version, hash} name the parent's commit that it goes on from."""
KNOWN_MAX = 4_096
"""Sessions of which it is remembered where their chain begins, or which anchor lies below what the engine holds."""
PAGE = 256
"""Records in one read."""
LOADS = 8
"""How often a session is loaded again because an anchor came in between."""


class Chains:
    """The records of sessions, those in segments too. It has the reading methods of a `Backend`, and what they say holds."""

    def __init__(self, backend: Backend, codec: Codec, segments: Segments) -> None:
        self._backend, self._codec, self._segments = backend, codec, segments
        self._starts = LruMap[SessionKey, int](KNOWN_MAX)
        self._anchors = LruMap[tuple[SessionKey, bytes], Anchor](KNOWN_MAX)

    async def settled(self, session: SessionKey) -> None:
        """See `spi.Settling.settled`."""
        if isinstance(self._backend, Settling):
            await self._backend.settled(session)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """See `spi.Backend.heads`."""
        return await self._backend.heads(sessions)

    async def read(
        self, session: SessionKey, *, after: int = 0, before: int | None = None, limit: int = PAGE, reverse: bool = False
    ) -> Sequence[Record]:
        """See `spi.Backend.read`."""
        if before is not None and before <= max(after + 1, self._starts.get(session) or 0):
            return ()
        records = await self._backend.read(session, after=after, before=before, limit=limit, reverse=reverse)
        if records:
            lowest = records[-1 if reverse else 0]
            if reverse or lowest.head.version == after + 1 or self.is_start(session, lowest):
                if reverse:
                    self.is_start(session, lowest)  # It is remembered, so that nothing is looked for below it.
                return records
            first: Record | None = lowest
        elif before is None:
            return records  # The head itself is always there: nothing lies above `after`.
        else:
            first = await self._first(session)
        if first is None or first.head.version <= after + 1 or self.is_start(session, first):
            return records
        upto = first.head.version if before is None else min(before, first.head.version)
        try:
            anchor = await self.anchor_below(session, first)
            archived = () if anchor is None else await self._archived(session, anchor, after, upto, limit, reverse=reverse)
        except Corrupt:
            if await self._moved(session, first):
                return await self.read(session, after=after, before=before, limit=limit, reverse=reverse)
            if not await self._purged(session, first):
                raise
            return records
        return archived or records

    async def load(self, session: SessionKey, at: int | None = None) -> Loaded | None:
        """See `spi.Backend.load`."""
        for _ in range(LOADS):
            loaded = await self._backend.load(session, at)
            if loaded is None or loaded.snapshot is not None:
                return loaded
            first = loaded.records[0] if loaded.records else await self._first(session)
            if first is None or self.is_start(session, first) or (not loaded.records and (at is None or first.head.version <= at)):
                return loaded
            try:
                found = await self._load_below(session, loaded, first, at)
            except Corrupt:
                if await self._moved(session, first):
                    continue
                if not await self._purged(session, first):
                    raise
                return loaded
            if found is not None:
                return found
        return loaded

    async def _load_below(self, session: SessionKey, loaded: Loaded, first: Record, at: int | None) -> Loaded | None:
        """What an engine loaded, with what it lacks below `first`; `None` where an anchor came in between."""
        anchor = await self.anchor_below(session, first)
        if anchor is None:
            return loaded
        if not loaded.records:
            return loaded if at is None else await self._load_archived(session, loaded, anchor, at)
        segment = await self._ending_at(session, anchor, first.head.version - 1)
        if segment is not None:
            return msgspec.structs.replace(loaded, snapshot=await self._segments.snapshot(segment))
        return loaded if anchor.version <= first.head.version - 1 or anchor.dropped else None

    async def _moved(self, session: SessionKey, first: Record) -> bool:
        """Whether the engine's chain begins elsewhere now: what was read below it was removed by those who dropped or purged it."""
        now = await self._first(session)
        return now is None or now.head != first.head

    async def _purged(self, session: SessionKey, first: Record) -> bool:
        """Whether a purge has begun to remove the segments below a record."""
        return self._segments.has_place and await self._segments.purged(session) >= first.head.version - 1

    async def _ending_at(self, session: SessionKey, newest: Anchor, version: int) -> Segment | None:
        """The segment whose last record has this version. One that ends later may not have been followed by a truncation yet."""
        async with aclosing(self._segments.chain(session, newest)) as segments:
            async for segment in segments:
                if segment.anchor.version <= version:
                    return segment if segment.anchor.version == version else None
        return None

    def is_start(self, session: SessionKey, record: Record) -> bool:
        """Whether a session's chain begins with this record: nothing of its own lies below."""
        version = record.head.version
        if version == 1 or record.is_stub:
            return True
        if record.kind != Kind.configure:
            return False
        if self._starts.get(session) == version:
            return True
        events = self._codec.open_record(session, record, partial=True).events
        if not events or events[0].type != FORKED:
            return False
        self._starts.put(session, version)
        return True

    async def anchor_below(self, session: SessionKey, first: Record) -> Anchor | None:
        """The newest anchor, by the first record that the engine holds of a chain that begins below; `None` if there is none."""
        version, prev = first.head.version - 1, self._codec.prev(first)
        known = self._anchors.get((session, prev))
        if known is not None:
            return known
        found = self._anchored(session, first)
        if found is None or not _is_at(found, version, prev):
            loaded = await self._backend.load(session, first.head.version)
            found = None if loaded is None else anchor_of(decode_control(loaded.row.control))
            if found is None or found.version < version:
                found = await self._scan(session, version, prev)
        if found is not None and _is_at(found, version, prev):
            self._anchors.put((session, prev), found)
        return found

    async def _scan(self, session: SessionKey, version: int, prev: bytes) -> Anchor | None:
        """The anchor of a version by the commits that came after it. A tombstone has emptied the index row's cell."""
        after = version
        while records := await self._backend.read(session, after=after, limit=PAGE):
            for record in records:
                found = self._anchored(session, record)
                if found is not None and _is_at(found, version, prev):
                    return found
            after = records[-1].head.version
        return None

    def _anchored(self, session: SessionKey, record: Record) -> Anchor | None:
        """The anchor that a record sets."""
        events = self._codec.open_record(session, record, partial=True).events if record.kind == Kind.anchor else ()
        return anchored(events[0]) if events else None

    async def newest_anchor(self, session: SessionKey, control_anchor: Anchor | None) -> Anchor | None:
        """The anchor that the next one comes after: that of the control cell, else the one below what the engine holds."""
        return await self.lowest_anchor(session) if control_anchor is None else control_anchor

    async def lowest_anchor(self, session: SessionKey) -> Anchor | None:
        """The anchor below the first record that the engine holds; `None` where nothing lies there. No segment is read."""
        first = await self._first(session)
        return None if first is None or self.is_start(session, first) else await self.anchor_below(session, first)

    async def anchors(self, session: SessionKey, control_anchor: Anchor | None) -> Sequence[Anchor]:
        """All anchors of a session, the newest first, up to one whose records were dropped or purged. Raises `Corrupt`, `Unsupported`."""
        anchor = await self.newest_anchor(session, control_anchor)
        found: list[Anchor] = []
        while anchor is not None:
            segment = None if anchor.dropped else await self._segments.find(session, anchor)
            found.append(anchor if segment is not None else msgspec.structs.replace(anchor, segment=""))
            anchor = None if segment is None else segment.note.before
        return found

    async def dropped_below(self, session: SessionKey) -> Anchor | None:
        """The anchor below which a session's records are gone; `None` where all are there."""
        first = await self._first(session)
        if first is None or self.is_start(session, first):
            return None
        anchors = await self.anchors(session, await self.anchor_below(session, first))
        return anchors[-1] if anchors and anchors[-1].dropped else None

    async def _first(self, session: SessionKey) -> Record | None:
        """The first record that the engine holds."""
        records = await self._backend.read(session, limit=1)
        return records[0] if records else None

    async def _archived(
        self, session: SessionKey, anchor: Anchor, after: int, before: int, limit: int, *, reverse: bool
    ) -> Sequence[Record]:
        """A page of records from segments."""
        found: list[Segment] = []
        page = RecordPage[Record](limit)
        async with aclosing(self._segments.chain(session, anchor)) as segments:
            async for segment in segments:
                if reverse:
                    await self._fill(page, segment, after, before, reverse=True)
                else:
                    found.append(segment)
                if page.full or segment.first <= after + 1:
                    break
        while found and not page.full:
            await self._fill(page, found.pop(), after, before)
        return page.records

    async def _fill(self, page: RecordPage[Record], segment: Segment, after: int, before: int, *, reverse: bool = False) -> None:
        frames = segment.packed.frames
        for frame in reversed(frames) if reverse else frames:
            if frame.last <= after or frame.first >= before:
                continue
            records = await self._segments.records(segment, frame)
            for record in reversed(records) if reverse else records:
                if after < record.head.version < before and page.add(record):
                    return

    async def _load_archived(self, session: SessionKey, loaded: Loaded, newest: Anchor, at: int) -> Loaded:
        """What the segments hold up to a version: the newest snapshot there, and the records after it."""
        async with aclosing(self._segments.chain(session, newest)) as segments:
            async for segment in segments:
                if segment.first > at:
                    continue
                if segment.anchor.version == at:
                    last = (await self._segments.records(segment, segment.packed.frames[-1]))[-1]
                    row = msgspec.structs.replace(loaded.row, head=last.head)
                    return Loaded(row, await self._segments.snapshot(segment), ())
                records: list[Record] = []
                for frame in segment.packed.frames:
                    if frame.first <= at:
                        records += [each for each in await self._segments.records(segment, frame) if each.head.version <= at]
                return Loaded(loaded.row, await self._snapshot_before(segment), records)
        return loaded

    async def _snapshot_before(self, segment: Segment) -> Snapshot | None:
        before = segment.note.before
        earlier = None if before is None or before.dropped else await self._segments.find(segment.session, before)
        return None if earlier is None else await self._segments.snapshot(earlier)


def _is_at(anchor: Anchor, version: int, hash: bytes) -> bool:
    return (anchor.version, anchor.hash) == (version, hash.hex())
