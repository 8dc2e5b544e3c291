"""Where a session's records lie: its newest bucket, ranges across buckets, bodies in pieces."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from perdure.backends.cassandra import layout
from perdure.backends.cassandra.client import Client
from perdure.backends.cassandra.layout import BucketHeader, Buckets, Row
from perdure.backends.common.pieces import cut
from perdure.backends.spi import Head, Record
from perdure.errors import Corrupt
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

INLINE = 64 << 10
"""Bytes of a body that stands in its row; a longer one lies in pieces, so that a bucket stays far below 100 MB."""
PIECE = 256 << 10
PIECES_AT_ONCE = 4
ROWS = 64
"""Rows fetched at once: 4 MiB at most."""
REMEMBERED = 65_536
"""Sessions of which is remembered what was last seen of them."""
_OF_RECORD = 4
"""The last columns of a row are its record's, the others its bucket's."""


class Place(NamedTuple):
    """What is known of a session of several buckets. `base` never changes, the others only grow."""

    base: int
    newest: int = 0
    dropped: int = 0


_NOWHERE = Place(0)


class Page(NamedTuple):
    """Rows of one bucket and, if there are any, its header as of the same moment."""

    rows: list[Row]
    header: BucketHeader | None


class Spot(NamedTuple):
    """The bucket to which the next append of a session goes. A sealed head's cells are changed there, too: so a change of them
    and the append that opens it meet.

    head    that stands there
    stored  the cells that stand there
    header  of the newest bucket that has a head
    """

    bucket: int
    head: Head | None
    fence: int | None
    stored: bytes | None
    header: BucketHeader | None

    @property
    def cells(self) -> bytes | None:
        """The session's cells."""
        return self.stored if self.stored is not None or self.header is None else self.header.cells


class Chain:
    """The partitions of all sessions of one store."""

    def __init__(self, client: Client, namespace: str, size: int, schema: int) -> None:
        self.client, self.ns, self.buckets, self.schema = client, namespace, Buckets(size), schema
        self._places = LruMap[SessionKey, Place](REMEMBERED)

    def at(self, session: SessionKey, bucket: int) -> tuple[str, str, str, int]:
        """The partition key of a bucket."""
        return self.ns, session.tenant, session.id, bucket

    def known(self, session: SessionKey) -> Place:
        """What was last seen of a session; sessions of one bucket are not remembered."""
        return self._places.get(session) or _NOWHERE

    def learn(self, session: SessionKey, *, base: int = 0, newest: int = 0, dropped: int = 0) -> None:
        """Remember more of a session: what is known only grows."""
        known = self.known(session)
        place = Place(max(base, known.base), max(newest, known.newest), max(dropped, known.dropped))
        if place != known:
            self._places.put(session, place)

    def sealed(self, header: BucketHeader, bucket: int) -> bool:
        """Whether nothing can be appended to a bucket any more."""
        return header.head is not None and self.buckets.seals(header.head.version, header.base, bucket)

    async def bare(self, session: SessionKey, bucket: int, *, plain: bool = False) -> BucketHeader | None:
        """A bucket's header, also where it is a fence alone."""
        rows = await self.client.run("bucket_header_plain" if plain else "bucket_header", *self.at(session, bucket))
        return self._seen(session, bucket, layout.decode_bucket_header(rows[0])) if rows else None

    async def bucket_header(self, session: SessionKey, bucket: int, *, plain: bool = False) -> BucketHeader | None:
        """What stands once in a bucket; `None` where it has no head."""
        header = await self.bare(session, bucket, plain=plain)
        return header if header is not None and header.head is not None else None

    def _seen(self, session: SessionKey, bucket: int, header: BucketHeader) -> BucketHeader:
        if bucket == 0:
            self.learn(session, base=header.base, newest=header.newest, dropped=header.dropped)
        return header

    async def latest_bucket(self, session: SessionKey, *, plain: bool = False) -> tuple[int, BucketHeader] | None:
        """The newest bucket that has a head, and its header. One read while nothing or the newest bucket is remembered; one more for a
        bucket that is announced but has no head yet, or was sealed meanwhile."""
        bucket = self.known(session).newest
        header = await self.bucket_header(session, bucket, plain=plain)
        if bucket == 0:
            if header is None:
                return None
            if (newest := self.known(session).newest) > 0:
                bucket, header = newest, await self.bucket_header(session, newest, plain=plain)
        while header is None and bucket > 0:
            bucket -= 1
            header = await self.bucket_header(session, bucket, plain=plain)
        while header is not None and self.sealed(header, bucket):
            following = await self.bare(session, bucket + 1, plain=plain)
            if following is None or following.head is None:
                if following is not None and following.cells is not None:
                    header = header._replace(cells=following.cells)
                break
            bucket, header = bucket + 1, following
            self.learn(session, newest=bucket, base=header.base)
        return None if header is None else (bucket, header)

    async def spot(self, session: SessionKey) -> Spot:
        """Where a session's cells are changed."""
        latest = await self.latest_bucket(session)
        bucket, header = latest or (0, None)
        if header is not None and not self.sealed(header, bucket):
            return Spot(bucket, header.head, header.fence, header.cells, header)
        bucket = bucket if header is None else bucket + 1
        bare = await self.bare(session, bucket)
        return Spot(bucket, None, bare and bare.fence, bare and bare.cells, header)

    async def head(self, session: SessionKey) -> Head | None:
        """The session's head."""
        latest = await self.latest_bucket(session)
        return None if latest is None else latest[1].head

    async def base(self, session: SessionKey, version: int) -> int:
        """The version before the session's first, where a bucket depends on it: read once for a session of several buckets."""
        if version < self.buckets.size or self._places.get(session) is not None:
            return self.known(session).base
        await self.bucket_header(session, 0)
        return self.known(session).base

    async def page(self, session: SessionKey, bucket: int, first: int, last: int, limit: int, *, reverse: bool = False) -> Page:
        """Rows of one bucket with `first <= version <= last`."""
        found = await self.client.run("records_reverse" if reverse else "records", *self.at(session, bucket), first, last, limit)
        if not found:
            return Page([], None)
        header = self._seen(session, bucket, layout.decode_bucket_header(found[0][:-_OF_RECORD]))
        return Page([layout.decode_row(row[-_OF_RECORD:]) for row in found], header)

    async def ascend(self, session: SessionKey, first: int, last: int, limit: int) -> list[Row]:
        """Up to `limit` rows from `first` on, oldest first; fewer only where there are no more."""
        place = self.known(session)
        bucket = max(self.buckets.of(first - 1, await self.base(session, first - 1)), place.dropped)
        rows: list[Row] = []
        start = bucket
        while True:
            page = await self.page(session, bucket, first, last, limit - len(rows))
            if bucket == start > place.dropped and (not page.rows or page.rows[0].record.head.version > first):
                # An append that came before the bucket's seal may reach into its range: what it wrote lies one bucket lower.
                upto = page.rows[0].record.head.version - 1 if page.rows else last
                lower = await self.page(session, bucket - 1, first, upto, limit)
                rows = lower.rows
            rows = (rows + page.rows)[:limit]
            if len(rows) >= limit or (rows and rows[-1].record.head.version >= last):
                return rows
            header = page.header or await self.bucket_header(session, bucket)
            if header is None or not self.sealed(header, bucket):
                return rows
            bucket = max(bucket + 1, self.known(session).dropped)

    async def descend(self, session: SessionKey, first: int, last: int, limit: int) -> list[Row]:
        """Up to `limit` rows from `last` down, newest first; fewer only where there are no more."""
        bucket = self.known(session).newest
        page: Page | None = await self.page(session, bucket, first, last, limit, reverse=True)
        if page is None or page.header is None or self.sealed(page.header, bucket):
            latest = await self.latest_bucket(session)
            if latest is None:
                return []
            bucket, page = min(latest[0], self.buckets.of(last - 1, latest[1].base)), None
        rows: list[Row] = []
        while True:
            page = page or await self.page(session, bucket, first, last, limit - len(rows), reverse=True)
            rows += page.rows
            if len(rows) >= limit or bucket <= self.known(session).dropped or (rows and rows[-1].record.head.version <= first):
                return rows
            bucket, page = bucket - 1, None

    async def check_layout(self, session: SessionKey, oldest: Record, *, whole: bool) -> None:
        """See `remote.driver.PartitionedDriver`: all buckets say the same of the session's first record, and it is so."""
        latest = await self.latest_bucket(session)
        first, last = self.known(session).dropped, 0 if latest is None else latest[0]
        headers = [await self.bucket_header(session, bucket) for bucket in {0, *range(first, last + 1)}]
        said = {(header.base, header.created) for header in headers if header is not None}
        before = oldest.head.version - 1
        right = all(base == before and created == oldest.head.at if whole else base <= before for base, created in said)
        if len(said) > 1 or not right:
            raise Corrupt(f"The buckets of session {session.id!r} are not where its records are.", session=session.id)

    async def record(self, session: SessionKey, row: Row) -> Record:
        """A row's record with its body."""
        if not row.pieces:
            return row.record
        return msgspec.structs.replace(row.record, body=await self.whole(session, row.record.id.hex(), row.pieces))

    async def whole(self, session: SessionKey, name: str, pieces: int) -> bytes:
        """A body that lies in pieces."""
        parts: list[bytes] = []
        while len(parts) < pieces:
            found = await self.client.run("pieces", self.ns, session.tenant, session.id, name, len(parts))
            if not found:
                raise Corrupt(f"Piece {len(parts)} of {name} of session {session.id!r} is gone from Cassandra.", session=session.id)
            parts += [data for (data,) in found]
        return b"".join(parts)

    async def cut(self, session: SessionKey, name: str, body: bytes) -> int:
        """Write a body in pieces, under a name that nothing refers to yet; how many. A second time changes nothing."""
        await self.client.run("put_large", self.ns, session.tenant, session.id, name)
        room = asyncio.Semaphore(PIECES_AT_ONCE)

        async def put(number: int, data: bytes) -> Any:
            async with room:
                return await self.client.run("put_piece", self.ns, session.tenant, session.id, name, number, data)

        pieces = cut(body, PIECE)
        await asyncio.gather(*[put(number, data) for number, data in enumerate(pieces)])
        return len(pieces)

    async def drop_body(self, session: SessionKey, name: str) -> None:
        """Remove a body's pieces."""
        await self.client.run("drop_pieces", self.ns, session.tenant, session.id, name)
        await self.client.run("drop_large", self.ns, session.tenant, session.id, name)
