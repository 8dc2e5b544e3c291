"""The driver of object stores: spreads sessions over shards, and answers every call from their indexes and segments."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from perdure.backends.common.pages import SNAPSHOTS_KEPT, RecordPage, version_range
from perdure.backends.common.refusals import check_anchor, not_deleted
from perdure.backends.common.schema import writer_version
from perdure.backends.common.store_header import open_header
from perdure.backends.objects import upgrade
from perdure.backends.objects.bucket import Bucket
from perdure.backends.objects.checkup import checkup
from perdure.backends.objects.feed import read_feed
from perdure.backends.objects.listing import by_due, by_id
from perdure.backends.objects.name_tag import META, NameTag, new_tag, parse_header, read_tag
from perdure.backends.objects.segment import APPEND, PURGE, TRUNCATE, Chain, Entry, change, written
from perdure.backends.objects.shard import FETCHED, Shard
from perdure.backends.remote.driver import Answer, Attempt, HeadMismatch, Stored
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import (
    SCHEMA_VERSION,
    Capabilities,
    Change,
    Checkup,
    Durability,
    Head,
    Index,
    Known,
    Loaded,
    Page,
    Progress,
    Query,
    Record,
    Row,
    Snapshot,
)
from perdure.clock import Clock
from perdure.errors import Corrupt, Error, Invalid, Unavailable, Unknown, Unsupported
from perdure.model.commit import Status
from perdure.model.ids import SessionKey, uuid7

T = TypeVar("T")

RECORD_BYTES_MAX = 64 << 20
CACHE_BYTES = 64 << 20
"""Segments kept in memory, by their stored bytes."""
SHARDS = 2
"""Shards of a new store, unless its URL says another number."""


class ObjectsDriver:
    """A `Driver` on a bucket. `timeout` in seconds: how long a put without an answer is settled."""

    lanes = 1
    batch_max = 256
    proves_heads = True

    def __init__(self, bucket: Bucket, durability: Durability, clock: Clock, *, timeout: float) -> None:
        self._bucket, self._clock, self._timeout = bucket, clock, timeout
        self.durability_read = durability
        self.capabilities = Capabilities(
            durability=durability,
            linearizable_reads=True,
            failover_loss=None,
            atomic_batch=False,
            keys_remembered=None,
            notification=False,
            record_bytes_max=RECORD_BYTES_MAX,
        )
        self.store_id, self.schema = "", SCHEMA_VERSION
        self.shards: list[Shard] = []
        self._unproven: bytes | None = None
        """The store's header, until it is put again and refused."""

    async def start(self, shards: int | None, *, create: bool = True) -> None:
        """Read the store's header, or make it; without `create` nothing is put before the first write.

        Raises `Invalid` for another number of shards, `NotFound`, `Unsupported`, `Corrupt`, `Unavailable`.
        """
        place = self._bucket.place

        async def read() -> bytes | None:
            self._unproven = await self._bucket.get(META)
            return self._unproven

        async def make(id: str) -> None:
            await self._bucket.create(META, new_tag(id, shards or SHARDS))

        try:
            await open_header(
                read, make, parse_header, place=place, what=f"the object {META!r}", known=SCHEMA_VERSION, clock=self._clock, create=create
            )
            tag = read_tag(self._unproven or b"", place)
            if create:
                await self._prove()
        except Unknown as error:
            raise Unavailable(f"{place} did not answer when its {META} was made or tried: open it again.") from error
        if shards not in (None, tag.shards):
            raise Invalid(f"{place} has {tag.shards} shards for good, not {shards}: leave ?shards= out.")
        self._use(tag, saves=create)

    def _use(self, tag: NameTag, *, saves: bool) -> None:
        """Take what the name tag says."""
        self.store_id, self.schema = tag.id, tag.schema
        if self.schema >= 2:
            self.capabilities = msgspec.structs.replace(self.capabilities, scan_orders=("id", "due"))
        cache, writer, least = CACHE_BYTES // tag.shards, writer_version(tag.schema), tag.min_writer or 1
        self.shards = [
            Shard(self._bucket, index, self._timeout, self._new_id, cache, saves=saves, writer=writer, min_writer=least)
            for index in range(tag.shards)
        ]

    async def _prove(self) -> None:
        """See that the place refuses to make what is there: one that ignores conditions would lose commits."""
        if self._unproven is None:
            return
        place = self._bucket.place
        try:
            ignored = await self._bucket.create(META, self._unproven)
        except Unknown as error:  # No commit was sent yet.
            raise Unavailable(f"{place} did not answer when its {META} was tried.") from error
        if ignored:
            raise Unsupported(f"{place} makes an object whose name is taken: it ignores conditions, and commits would be lost.")
        self._unproven = None
        for shard in self.shards:
            shard.saves = True

    def _new_id(self) -> bytes:
        return uuid7(self._clock.now(), self._clock.bits(74))

    def _shard(self, session: SessionKey) -> Shard:
        return self.shards[int.from_bytes(_digest(session)[:8], "big") % len(self.shards)]

    async def _sync(self, session: SessionKey) -> tuple[Shard, Chain | None]:
        shard = self._shard(session)
        await shard.sync()
        return shard, shard.chains.get(session)

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `Driver`: one put a shard. A refusal is judged on what the store has now, not on what was remembered of it."""
        await self._prove()
        parts: dict[Shard, list[int]] = {}
        for place, attempt in enumerate(attempts):
            parts.setdefault(self._shard(attempt.session), []).append(place)
        answers: list[Answer | None] = [None] * len(attempts)
        await gather_all(*[self._write(shard, attempts, places, answers) for shard, places in parts.items()])
        return [answer for answer in answers if answer is not None]

    async def _write(self, shard: Shard, attempts: Sequence[Attempt], places: Sequence[int], answers: list[Answer | None]) -> None:
        def make() -> tuple[Entry, ...]:
            for place in places:
                if answers[place] is None:
                    answers[place] = self._judge(shard, attempts[place])
            return tuple([self._entry(attempts[place]) for place in places if answers[place] is None])

        try:
            if any(self._judge(shard, attempts[place]) is not None for place in places):
                await shard.sync()
            await shard.put(make)
            rest: Answer = Stored(self.capabilities.durability)
        except Error as error:
            rest = error
        for place in places:
            if answers[place] is None:
                answers[place] = rest

    def _judge(self, shard: Shard, attempt: Attempt) -> Answer | None:
        chain = shard.chains.get(attempt.session)
        if chain is None:
            return None if attempt.expected is None else HeadMismatch(None)
        for key in (attempt.key, *[record.key for record in attempt.records]):
            if key is not None and key in chain.keys:
                return Known(*chain.keys[key], chain.head)
        return None if chain.head == attempt.expected else HeadMismatch(chain.head, proven=True)

    def _entry(self, attempt: Attempt) -> Entry:
        records, index = tuple([written(record) for record in attempt.records]), attempt.index or Index()
        tags = None if index.tags is None else dict(index.tags)
        if self.schema < 2:
            return Entry(APPEND, *attempt.session, records, tags)
        return Entry(APPEND, *attempt.session, records, tags, due_at=index.due_at, control=index.control, size_bytes=index.size_bytes)

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed`: an entry of the log without a record."""
        await self._prove()
        shard, made = self._shard(row.session), False

        def make() -> tuple[Entry, ...]:
            nonlocal made
            made = shard.index.is_at(row)
            return (change(row.session, index),) if made else ()

        if not shard.index.is_at(row):
            await shard.sync()
            shard.check_writer()
        await shard.put(make)
        return made

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """See `Driver`: one request a shard, all at once."""
        shards = [self._shard(session) for session in sessions]
        await gather_all(*[shard.sync() for shard in {*shards}])
        chains = [shard.chains.get(session) for shard, session in zip(shards, sessions, strict=True)]
        return [None if chain is None else chain.head for chain in chains]

    async def _steadily(self, session: SessionKey, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, and again where another process dropped records from under the reader: what it misses then is no damage."""
        while True:
            before = self._standing(session)
            try:
                return await ask()
            except Corrupt:
                await self._shard(session).sync()
                if self._standing(session) == before:
                    raise

    def _standing(self, session: SessionKey) -> tuple[int, int] | None:
        chain = self._shard(session).chains.get(session)
        return None if chain is None else (chain.first, chain.blank)

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """See `Driver`."""
        return await self._steadily(session, lambda: self._load(session, at))

    async def _load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """The index and the names of snapshots at once, then a snapshot and the segments after it at once."""
        shard = self._shard(session)
        _, names = await gather_all(shard.sync(), self._bucket.list(_snapshots(session)))
        chain = shard.chains.get(session)
        if chain is None:
            return None
        row, upto = shard.index.row(session), min(chain.head.version, chain.head.version if at is None else at)
        snapshot, after = None, chain.first - 1
        for name in reversed(names):
            version = int(name)
            if chain.first - 1 <= version <= upto:
                snapshot = await self._snapshot(shard, session, version)
                if snapshot is not None:
                    after = version
                    break
        records = await shard.records(session, range(after + 1, upto + 1))
        return Loaded(row, snapshot, records)

    async def _snapshot(self, shard: Shard, session: SessionKey, version: int) -> Snapshot | None:
        """A snapshot whose commit is in the chain, or just below it."""
        data = await self._bucket.get(f"{_snapshots(session)}/{version:016d}")
        if data is None or len(data) < 32:
            return None
        snapshot = Snapshot(version, data[:32], data[32:])
        if version >= shard.chains[session].first:
            (record,) = await shard.records(session, [version])
            if record.head.hash != snapshot.hash:
                return None
        return snapshot

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[Record]:
        """See `Driver`."""
        return await self._steadily(session, lambda: self._read(session, after, before, limit, reverse=reverse))

    async def _read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[Record]:
        shard, chain = await self._sync(session)
        if chain is None:
            return []
        first, last = version_range(after, before, chain.first, chain.head.version)
        versions = range(first, last + 1)[:: -1 if reverse else 1][:limit]
        page = RecordPage[Record](limit)
        for start in range(0, len(versions), FETCHED):
            for record in await shard.records(session, versions[start : start + FETCHED]):
                if page.add(record):
                    return page.records
        return page.records

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `Driver`."""
        _, chain = await self._sync(session)
        return None if chain is None or key not in chain.keys else Known(*chain.keys[key], chain.head)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `SchemaDriver`; the newest `SNAPSHOTS_KEPT` are kept. The size follows with an entry of the log."""
        shard, chain = await self._sync(session)
        shard.check_writer()
        if chain is None or not chain.first <= snapshot.version <= chain.head.version:
            return
        (record,) = await shard.records(session, [snapshot.version])
        if record.head.hash != snapshot.hash:
            return
        folder = _snapshots(session)
        await self._bucket.put(f"{folder}/{snapshot.version:016d}", snapshot.hash + snapshot.body)
        for name in (await self._bucket.list(folder))[:-SNAPSHOTS_KEPT]:
            await self._bucket.delete(f"{folder}/{name}")

        def resized() -> tuple[Entry, ...]:
            is_there = chain.blank < snapshot.version and shard.index.row(session).size_bytes != size_bytes
            return (change(session, Index(size_bytes=size_bytes)),) if is_there else ()

        if size_bytes is not None:
            await shard.put(resized)

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """See `Driver`: from the indexes in memory, one request a shard."""
        await gather_all(*[shard.sync() for shard in self.shards])
        return (by_due if query.order == "due" else by_id)(self.shards, query, cursor, limit)

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `Driver`."""
        return await read_feed(self.shards, cursor, limit)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `SchemaDriver`: an entry of the log drops the records for every reader; then their bytes are taken out of their segments."""
        await self._prove()
        shard, chain = await self._sync(session)
        shard.check_writer()
        records = [] if chain is None or not chain.first <= anchor[0] <= chain.head.version else await shard.records(session, [anchor[0]])
        check_anchor(session, records[0] if records else None, below, anchor)
        await self._drop(shard, session, TRUNCATE, below)
        for name in await self._bucket.list(_snapshots(session)):
            if snapshot or int(name) < below - 1:
                await self._bucket.delete(f"{_snapshots(session)}/{name}")

    async def purge(self, session: SessionKey) -> None:
        """See `Driver`: as `truncate`, and of the head only its position, hash and status stay."""
        await self._prove()
        shard, chain = await self._sync(session)
        shard.check_writer()
        if chain is None or chain.head.status != Status.deleted:
            raise not_deleted(session)
        await self._drop(shard, session, PURGE, chain.head.version)
        for name in await self._bucket.list(_snapshots(session)):
            await self._bucket.delete(f"{_snapshots(session)}/{name}")

    async def _drop(self, shard: Shard, session: SessionKey, kind: int, below: int) -> None:
        """Drop all below a version for every reader, unless that was done; then clean, which may have been left half done."""

        def make() -> tuple[Entry, ...]:
            chain = shard.chains[session]
            if kind == PURGE and (chain.head.status, chain.head.version) != (Status.deleted, below):
                raise Invalid(f"Session {session.id!r} was created again meanwhile: delete it before it is purged.")
            if below <= chain.first and (kind == TRUNCATE or (chain.blank == below and not shard.index.has_cells(session))):
                return ()
            return (Entry(kind, *session, below=below),)

        await shard.put(make)
        await shard.clean(session)
        if kind == PURGE:
            await shard.renew()

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned`."""
        await upgrade.require_writer(self._bucket, self.shards, version)

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned`."""
        await self._prove()
        await upgrade.migrate(self._bucket, self.shards, from_version, progress)

    async def checkup(self) -> Checkup:
        """See `Driver`."""
        return await checkup(self._bucket, self.shards, self.capabilities.durability)

    async def close(self) -> None:
        """See `Driver`."""
        for shard in self.shards:
            await shard.drain()
        await self._bucket.close()


def _digest(session: SessionKey) -> bytes:
    tenant = session.tenant.encode()
    return hashlib.sha256(len(tenant).to_bytes(2, "big") + tenant + session.id.encode()).digest()


def _snapshots(session: SessionKey) -> str:
    return f"snapshot/{_digest(session).hex()}"
