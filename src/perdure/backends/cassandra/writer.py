"""Appends: one conditional write in one bucket of one session, sent once for each time it is asked for.

pieces     bodies that are too large for a row go first, under names that nothing refers to yet
announced  the append is announced to the feed, and a new session is listed, before the write: a crash hides nothing
condition  the bucket's head and its fence are as expected, and the keys are new; keys of sealed buckets were looked up before
a new      where the expected head sealed its bucket, the next one is opened: the sealed head is read by Paxos, its keys are copied,
bucket     and the write's condition is that the new bucket has no head. A sealed head never changes, so that is the same condition
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from perdure.backends.cassandra import cells, layout
from perdure.backends.cassandra.announcer import Announcement, FeedAnnouncer
from perdure.backends.cassandra.buckets import INLINE, REMEMBERED, Chain, Spot
from perdure.backends.cassandra.cell_writer import CellWriter, Change
from perdure.backends.cassandra.client import UNSET, Values
from perdure.backends.cassandra.layout import KEY_SLOTS, SESSION_SLOTS, BucketHeader
from perdure.backends.cassandra.reader import Reader
from perdure.backends.common.refusals import key_applied_twice
from perdure.backends.remote import Answer, Attempt, HeadMismatch
from perdure.backends.spi import Head, Known, Record
from perdure.errors import Corrupt, TooLarge, Unavailable
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

APPEND_BYTES = 1 << 20
"""From so many bytes of bodies on an append's rows hold small ones only: Cassandra's usual limits for one write begin at 4 MiB."""
SMALL = 4 << 10
TRIES = 8
"""How often an append is sent that was certainly not applied, though its head was the expected one: it was fenced off by a reader of
the feed, or its bucket was not opened yet."""
CLAIMS = 500
"""Keys of a sealed bucket copied at once."""


class Writer:
    """The appending half of the driver."""

    def __init__(self, chain: Chain, reader: Reader, announcer: FeedAnnouncer, cell_writer: CellWriter) -> None:
        self._cell_writer = cell_writer
        self._chain, self._client, self._reader, self._announcer = chain, chain.client, reader, announcer
        self._fences = LruMap[tuple[SessionKey, int], int | None](REMEMBERED)

    async def append(self, attempt: Attempt) -> Answer | None:
        """See `remote.Driver.write`; `None`: it is stored."""
        session, expected, records = attempt.session, attempt.expected, attempt.records
        size = self._chain.buckets.size
        if len(records) > size:
            raise TooLarge(f"An append of {len(records):,} records; here {size:,} are taken, as many as a bucket holds.")
        if attempt.key is not None and all(record.key != attempt.key for record in records):
            # No record claims it: what this head knows was settled before it, so looking it up is enough.
            known = await self._reader.find_key(session, attempt.key)
            if known is not None:
                return known
        before = records[0].head.version - 1 if expected is None else expected.version
        base = before if expected is None else await self._chain.base(session, before)
        bucket = self._chain.buckets.of(before, base)
        rows = await self._rows(session, records)
        opening = bucket > 0 and before % size == 0
        for number in range(TRIES):
            old = await self._open(session, expected, bucket) if opening else None
            if isinstance(old, HeadMismatch):
                return old
            if bucket > 0 and (applied := await self._sealed(attempt)) is not None:
                return applied
            change = await self._change(attempt, bucket, old, first=number == 0)
            fence = self._fences.get((session, bucket)) if change is None else change.fence
            announcement = await self._announce(attempt, bucket, base)
            refused = await self._client.decide(*self._statements(attempt, bucket, old, rows, announcement.at, fence, change))
            if change is not None:
                await self._cell_writer.end(session, change, stored=refused is None)
            if refused is None:
                self._chain.learn(session, newest=bucket, base=base)
                self._announcer.stored(session, announcement, records[-1].head.version)
                return None
            answer = await self._refused(attempt, bucket, None if opening else expected, fence, change, refused)
            if answer is not None:
                return answer
            opening = opening or (bucket > 0 and refused[0].get("head") is None)
        raise Unavailable(f"Session {session.id!r} was fenced off by readers of the feed {TRIES} times in a row.")

    async def _rows(self, session: SessionKey, records: Sequence[Record]) -> list[tuple[bytes, bytes]]:
        """The columns `record` and `body`; large bodies are written in pieces on the way."""
        limit = INLINE if sum(len(record.body) for record in records) < APPEND_BYTES else SMALL
        rows = []
        for record in records:
            pieces = await self._chain.cut(session, record.id.hex(), record.body) if len(record.body) > limit else 0
            rows.append((layout.encode_record(record, pieces), b"" if pieces else record.body))
        return rows

    async def _open(self, session: SessionKey, expected: Head | None, bucket: int) -> BucketHeader | HeadMismatch:
        """What the bucket before a new one holds, once the new one may be written to."""
        old = await self._chain.bucket_header(session, bucket - 1)
        if old is None or old.head != expected:
            return HeadMismatch(await self._chain.head(session))
        key = ""
        while found := await self._client.run("claims", *self._chain.at(session, bucket - 1), key, CLAIMS):
            slots = defaultdict[int, list[Values]](list)
            for key, blob in found:
                slot = layout.slot(key, KEY_SLOTS)
                slots[slot].append((self._chain.ns, session.tenant, session.id, slot, key, blob, layout.decode_key(blob)[0]))
            await asyncio.gather(*[self._client.run_batch("seal_key", rows) for rows in slots.values()])
        await self._client.run("newest", bucket, bucket, self._chain.ns, session.tenant, session.id)
        return old

    async def _sealed(self, attempt: Attempt) -> Known | Corrupt | None:
        """What the sealed buckets know of the attempt's keys."""
        keys = [record.key for record in attempt.records if record.key is not None]
        for key, found in zip(keys, await asyncio.gather(*[self._reader.sealed_key(attempt.session, key) for key in keys]), strict=True):
            if found is not None:
                head = await self._chain.head(attempt.session)
                return Known(*found, head) if key == attempt.key and head is not None else key_applied_twice(attempt.session)
        return None

    async def _change(self, attempt: Attempt, bucket: int, old: BucketHeader | None, *, first: bool) -> Change | None:
        """What becomes of the cells, if they are written: those that the attempt changes, and all in a new bucket."""
        session = attempt.session
        if self._chain.schema < 2 or (old is None and not cells.touches(attempt.index)):
            return None
        spot = Spot(bucket, None, self._fences.get((session, bucket)), None, old)
        if attempt.expected is not None or not first:
            here = await self._chain.bare(session, bucket)
            if here is not None:
                spot = Spot(bucket, here.head, here.fence, here.cells, old or here)
        return await self._cell_writer.begin(session, spot, lambda fields: cells.changed(fields, attempt.index))

    async def _announce(self, attempt: Attempt, bucket: int, base: int) -> Announcement:
        """Announce it to the feed, and list a new session."""
        session = attempt.session
        announcing = self._announcer.announce(session, bucket, attempt.records, self._chain.buckets.end(bucket, base))
        if attempt.expected is not None:
            return await announcing
        slot = layout.slot(session.id, SESSION_SLOTS)
        announcement: Announcement
        announcement, _ = await asyncio.gather(
            announcing, self._client.run("put_session", self._chain.ns, session.tenant, slot, session.id)
        )
        return announcement

    def _statements(
        self,
        attempt: Attempt,
        bucket: int,
        old: BucketHeader | None,
        rows: Sequence[tuple[bytes, bytes]],
        announced: int,
        fence: int | None,
        change: Change | None,
    ) -> list[tuple[str, Values]]:
        first, expected = attempt.records[0].head, attempt.expected
        at = self._chain.at(attempt.session, bucket)
        tags: Any = UNSET if attempt.index is None or attempt.index.tags is None else dict(attempt.index.tags)
        created, base = UNSET, UNSET
        if old is not None:  # A new bucket begins with what the one before it had.
            created, base, expected = old.created, old.base, None
            tags = dict(old.tags) if tags is UNSET else tags
        elif expected is None:
            created, base = first.at, first.version - 1
        head = layout.encode_head(attempt.records[-1].head)
        values: tuple[Any, ...] = (head, tags, created, base, *rows[0], announced)
        condition: tuple[Any, ...] = (*at, first.version, layout.encode_head(expected), fence)
        statements: list[tuple[str, Values]] = [("append", (*values, *condition))]
        if change is not None:
            statements = [("append_cells", (*values, change.after, *condition, change.stored))]
        for record, row in zip(attempt.records[1:], rows[1:], strict=True):
            statements.append(("further", (*row, announced, *at, record.head.version)))
        for record in attempt.records:
            if record.key is not None:
                claim = layout.encode_key(record.head.version, record.request)
                statements.append(("claim", (claim, *at, record.key)))
        return statements

    async def _refused(
        self,
        attempt: Attempt,
        bucket: int,
        expected: Head | None,
        fence: int | None,
        change: Change | None,
        rows: Sequence[dict[str, Any]],
    ) -> Answer | None:
        """What a refused write says; `None`: the head is the expected one, but fence or cells were others, or the bucket is not open."""
        session = attempt.session
        blob, fenced = rows[0].get("head"), rows[0].get("fence")  # Neither column comes where the partition is empty.
        head = None if blob is None else layout.decode_head(blob)
        claimed = next((row["record"] for row in rows if row.get("key") == attempt.key and row.get("record") is not None), None)
        if claimed is None and head is None and bucket > 0 and expected is not None:
            return None
        if claimed is None and head == expected:
            if fenced == fence and (change is None or rows[0].get("cells") == change.stored):
                return key_applied_twice(attempt.session)
            self._fences.put((session, bucket), fenced)
            return None
        if head is None or self._chain.buckets.seals(head.version, self._chain.known(session).base, bucket):
            head = await self._chain.head(session)
        if claimed is not None and attempt.key is not None and head is not None:
            return Known(*layout.decode_key(claimed), head)
        return HeadMismatch(head)
