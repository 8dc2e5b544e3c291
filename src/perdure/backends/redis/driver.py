"""The driver: function calls by shard, several shards in one round trip."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import msgspec

from perdure.backends.common.checks import LOOKED_MAX, fits, selects
from perdure.backends.common.refusals import bad_cursor, check_deleted, check_snapshot_size, key_applied_twice, no_anchor, not_deleted
from perdure.backends.common.schema import check_writer, read_due_cursor, write_due_cursor, writer_version
from perdure.backends.common.upgrade import require_writer, upgrade
from perdure.backends.redis import layout
from perdure.backends.redis.checkup import checkup, settings_of
from perdure.backends.redis.connections import Connections, Words
from perdure.backends.redis.extent import check_extent, is_expected
from perdure.backends.redis.header import RedisHeader, function, writes
from perdure.backends.redis.layout import LIBRARY, SHARDS, name_of, prefix, shard_of
from perdure.backends.redis.notifications import notices
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Notice, RetryLater, Stored
from perdure.backends.spi import (
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
from perdure.errors import Corrupt, Error, Unknown, Unsupported
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 32 << 20
SNAPSHOT_BYTES_MAX = 64 << 20
DUE_END = (1 << 63) - 1
_START = "-"
_CURSOR = re.compile(rf"(?:(?:{_START}|\d+:\d+),){{{SHARDS - 1}}}(?:{_START}|\d+:\d+)")


class RedisDriver:
    """A `Driver` on a server, a set behind Sentinels, or a Cluster."""

    lanes = 2
    batch_max = 128
    store_id = ""

    def __init__(self, connections: Connections, namespace: str, *, replicas: int) -> None:
        self.connections, self._replicas = connections, replicas
        self._prefixes = [prefix(namespace, shard) for shard in range(SHARDS)]
        self._header = RedisHeader(connections, self._prefixes)
        self.schema = self._writer = 0

    async def start(self, clock: Clock, *, create: bool = True) -> None:
        """Look at the server and read the store's id; make the store where there is none, or without `create` raise `NotFound`."""
        await self.connections.locate()
        key = f"{self._prefixes[0]}store"
        header = await self._header.open(clock, create=create)
        self.store_id, self.schema, self._writer, self._clock = header.id, header.schema, writer_version(header.schema), clock
        if create:
            await self.connections.check_library(key)
        settings = await settings_of(self.connections, key)
        self.durability_read = settings.level
        if self._replicas and settings.level == Durability.memory:
            raise Unsupported("replicas= counts copies on disk, and this server keeps none: turn appendonly on.")
        reached = Durability.quorum if self._replicas else settings.level
        self.capabilities = Capabilities(
            durability=reached,
            linearizable_reads=not self.connections.route.fails_over,
            failover_loss=(Durability.local if self._replicas else settings.level) if settings.fails_over else None,
            atomic_batch=False,
            keys_remembered=None,
            notification=True,
            record_bytes_max=RECORD_BYTES_MAX,
            scan_orders=("id", "due") if self.schema >= 2 else ("id",),
        )

    async def identify(self) -> str | None:
        """See `spi.Identified`."""
        return await self._header.id()

    def _function(self, name: str, shard: int, *more: str | bytes | int) -> tuple[str, Words]:
        return function(name, self._prefixes[shard], *more)

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`: one round trip to each node; on one node one call for all, in a Cluster one for each slot."""
        groups: dict[int, list[int]] = {}
        for number, attempt in enumerate(attempts):
            groups.setdefault(shard_of(attempt.session) if self.connections.route.clustered else 0, []).append(number)
        calls: list[tuple[str, Words]] = []
        for shard, numbers in groups.items():
            words = [word for number in numbers for word in self._append_words(attempts[number])]
            calls.append((self._prefixes[shard], ("FCALL", f"perdure_{LIBRARY}_append", 1, self._prefixes[shard], self._writer, *words)))
        follow_up: Words | None = None
        if self._replicas:
            follow_up = ("WAITAOF", 1, self._replicas, int(self.connections.timeout * 900))
        found = await self.connections.call(calls, writes=True, follow_up=follow_up, waits=False)
        answers: list[Answer] = [HeadMismatch(None)] * len(attempts)
        for numbers, answer in zip(groups.values(), found, strict=True):
            reached: Error | Durability = self.durability_read
            if self._replicas and not isinstance(answer, Error | RetryLater):
                answer, copies = answer  # noqa: PLW2901 - the pair's first half is the answer
                reached = self._spread(copies)
            failed = answer if isinstance(answer, Error | RetryLater) else None
            for place, number in enumerate(numbers):
                answers[number] = failed or self._answered(attempts[number], _at(answer, place), reached)
        return answers

    def _spread(self, copies: object) -> Error | Durability:
        if isinstance(copies, list) and len(copies) == 2 and copies[0] >= 1 and copies[1] >= self._replicas:
            return Durability.quorum
        said = " ".join(str(copies).split()) if isinstance(copies, Exception) else f"{copies} copies on disk"
        return Unknown(f"Redis at {self.connections.place} wrote, and did not hear from {self._replicas} replicas in time: {said}.")

    def _append_words(self, attempt: Attempt) -> list[str | bytes | int]:
        session, records = attempt.session, attempt.records
        first, last = records[0].head, records[-1].head
        tags = attempt.index.tags if attempt.index is not None else None
        marks = {record.key: layout.encode_key(record.head.version, record.request) for record in records if record.key is not None}
        words: list[str | bytes | int] = [
            self._prefixes[shard_of(session)],
            name_of(session),
            layout.encode_head(attempt.expected),
            layout.encode_head(last),
            first.at,
            b"" if tags is None else layout.encode_tags(tags),
            *layout.encode_cells(attempt.index if self.schema >= 2 else None),
            attempt.key or "",
            first.version,
            len(marks),
        ]
        for key, value in marks.items():
            words += [key, value]
        words.append(len(records))
        words += map(layout.encode_record, records)
        return words

    def _answered(self, attempt: Attempt, answer: Any, reached: Error | Durability) -> Answer:
        try:
            match answer:
                case [1]:
                    if not isinstance(reached, Error):
                        return Stored(reached)
                    return Stored(self.durability_read) if attempt.durability <= self.durability_read else reached
                case [2, bytes(head), bytes(known)]:
                    return Known(*layout.decode_key(known), _certain(layout.decode_head(head)))
                case [0, bytes() | None as head]:
                    return HeadMismatch(layout.decode_head(head))
                case [5, int(least)]:
                    check_writer(self.connections.place, self._writer, least)
                    return self.connections.foreign_library()
                case [3]:
                    return key_applied_twice(attempt.session)
                case [4, bytes(said)]:
                    return Corrupt(
                        f"The keys of session {attempt.session.id!r} in Redis were changed by hand: {said.decode(errors='replace')}."
                    )
                case _:
                    return self.connections.foreign_library()
        except Error as error:
            return error

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """See `spi.Backend.heads`. One round trip to each node."""
        groups: dict[int, list[int]] = {}
        for number, session in enumerate(sessions):
            groups.setdefault(shard_of(session), []).append(number)
        calls: list[tuple[str, Words]] = [
            (self._prefixes[shard], ("HMGET", f"{self._prefixes[shard]}h", *[name_of(sessions[number]) for number in numbers]))
            for shard, numbers in groups.items()
        ]
        heads: list[Head | None] = [None] * len(sessions)
        for numbers, found in zip(groups.values(), await self.connections.each(calls), strict=True):
            for number, head in zip(numbers, found, strict=True):
                heads[number] = layout.decode_head(head)
        return heads

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """See `spi.Backend.load`. One round trip."""
        found = await self._ask("load", session, "" if at is None else at)
        if found is None:
            return None
        row, snapshot = layout.decode_row(session, found[0]), layout.decode_snapshot(found[1], found[2])
        records = [layout.decode_record(record) for record in found[3]]
        last = row.head.version if at is None else min(at, row.head.version)
        complete = records[-1].head.version == last if records else snapshot is not None and snapshot.version == last
        if not complete or (records and not is_expected(records, None if snapshot is None else snapshot.version + 1)):
            await check_extent(self.connections, self._prefixes[shard_of(session)], session)
        return Loaded(row, snapshot, records)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """See `spi.Backend.read`. One round trip; one more where the records do not begin with the version that was asked for."""
        if limit < 1 or (before is not None and before <= after + 1):
            return []
        found = await self._ask("read", session, after, "" if before is None else before, limit, "1" if reverse else "0")
        records = [layout.decode_record(record) for record in found]
        if not is_expected(records, after + 1 if not reverse else None if before is None else before - 1):
            await check_extent(self.connections, self._prefixes[shard_of(session)], session)
        return records

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `spi.Backend.find_key`. One round trip; the key comes first: what is not known then was not applied before."""
        shard, name = self._prefixes[shard_of(session)], name_of(session)
        calls: list[tuple[str, Words]] = [(shard, ("HGET", f"{shard}k:".encode() + name, key)), (shard, ("HGET", f"{shard}h", name))]
        known, head = await self.connections.each(calls)
        return None if known is None else Known(*layout.decode_key(known), _certain(layout.decode_head(head)))

    async def _ask(self, name: str, session: SessionKey, *more: str | bytes | int) -> Any:
        key, words = self._function(name, shard_of(session), name_of(session), *more)
        return await self.connections.one(key, *words, writes=writes(name))

    async def _write(self, name: str, session: SessionKey, *more: str | bytes | int) -> bool:
        """Whether a function that writes did so. Raises `Unsupported` where this writer is too old."""
        answer = int(await self._ask(name, session, self._writer, *more))
        check_writer(self.connections.place, self._writer, -answer)
        return answer == 1

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`."""
        check_snapshot_size(snapshot, SNAPSHOT_BYTES_MAX, "Redis")
        size = "" if size_bytes is None else size_bytes
        stored = layout.encode_snapshot(snapshot)
        await self._write("put_snapshot", session, snapshot.version, layout.proof(snapshot.hash), stored, size)

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`. One round trip."""
        stored = layout.encode_head(row.head), layout.encode_due(row.due_at)
        return await self._write("change_index", row.session, *stored, *layout.encode_cells(index))

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By id, or what is due."""
        return await (self._due(query, cursor, limit) if query.order == "due" else self._by_id(query, cursor, limit))

    async def _due(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """What is due, from all shards at once; tenant, prefix, tags and status are looked at row by row, at most about `LOOKED_MAX`."""
        rows: list[Row] = []
        looked = 0
        low, high = b"-", b"+"
        if query.due_before is not None:
            high = b"(" + layout.encode_due(min(max(query.due_before, 0), DUE_END))
        if cursor is not None:
            due_at, session = read_due_cursor(cursor)
            low = b"(" + layout.encode_due(min(max(due_at, 0), DUE_END)) + name_of(session)
        async for found, end in self._merged(lambda shard, low: self._function("scan_due", shard, low, high, limit), low, limit):
            for member, cells in found:
                row = layout.decode_row(layout.session_of(member[8:]), cells)
                if fits(query, row.session, row.head, row.tags):
                    rows.append(row)
                    if len(rows) == limit:
                        return Page(rows, _due_cursor(member))
            looked += len(found)
            if end is not None and looked >= LOOKED_MAX:
                return Page(rows, _due_cursor(end))
        return Page(rows, None)

    async def _merged(
        self, call: Callable[[int, bytes], tuple[str, Words]], low: bytes, limit: int
    ) -> AsyncGenerator[tuple[list[tuple[bytes, list[Any]]], bytes | None], None]:
        """What the shards' sorted sets have from `low` on, in order, some at a time; and up to which member, where there may be more."""
        while True:
            pages = await self.connections.each([call(shard, low) for shard in range(SHARDS)])
            full = [page[-1][0] for page in pages if len(page) == limit]
            end = min(full) if full else None  # Beyond it a shard may have more that comes before what others gave.
            yield sorted((member, cells) for page in pages for member, cells in page if end is None or member <= end), end
            if end is None:
                return
            low = b"(" + end

    async def _by_id(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By id, from all shards at once; tags and status are looked at row by row, at most about `LOOKED_MAX` rows a page."""
        rows: list[Row] = []
        looked = 0
        high = b"(" + query.prefix.encode() + b"\xff"
        low = b"[" + query.prefix.encode()
        if cursor is not None and cursor.encode() >= query.prefix.encode():
            low = b"(" + cursor.encode()
        tenant = query.one_tenant
        async for found, end in self._merged(lambda shard, low: self._function("scan", shard, tenant, low, high, limit), low, limit):
            for id, cells in found:
                row = layout.decode_row(SessionKey(tenant, id.decode()), cells)
                if selects(query, row.head, row.tags):
                    rows.append(row)
                    if len(rows) == limit:
                        return Page(rows, row.session.id)
            looked += len(found)
            if end is not None and looked >= LOOKED_MAX:
                return Page(rows, end.decode())
        return Page(rows, None)

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """Shard by shard, each in the order of its commits. A cursor is a place in each shard's stream."""
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise bad_cursor(cursor)
        places = cursor.replace(":", "-").split(",") if cursor else [_START] * SHARDS
        while True:
            calls = [self._function("feed", shard, place if place == _START else f"({place}", limit) for shard, place in enumerate(places)]
            changes: list[Change] = []
            passed = False
            for shard, entries in enumerate(await self.connections.each(calls)):
                for place, name, record in entries:
                    if len(changes) == limit:
                        break
                    places[shard], passed = place.decode(), True
                    if record:
                        changes.append(Change(layout.session_of(name), layout.decode_record(record)))
            if changes or not passed:
                return Page(changes, ",".join(place if place == _START else place.replace("-", ":") for place in places))

    def notices(self) -> AsyncGenerator[Notice, None]:
        """See `remote.NotificationSource`."""
        return notices(self.connections, [f"{prefix}f" for prefix in self._prefixes])

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`."""
        proof = layout.proof(anchor[1], Kind.anchor)
        if below > anchor[0] or not await self._write("truncate", session, below, anchor[0], proof, "1" if snapshot else "0"):
            raise no_anchor(session, below, anchor)

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        await self._header.check(self._writer)
        (head,) = await self.heads([session])
        head = check_deleted(session, head)
        (last,) = await self.read(session, head.version - 1, None, 1, reverse=True)
        stub = layout.encode_record(msgspec.structs.replace(last, body=b""))
        if not await self._write("purge", session, layout.encode_head(head), head.version, stub):
            raise not_deleted(session)

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await require_writer(self._header, version)
        await self._header.mark(version)

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`. Keys of schema 2 are made when they are written: each shard learns who may write, that is all."""
        steps = [("who may write", lambda: self._header.mark(2))]
        await upgrade(self._header, from_version, steps, progress)

    async def checkup(self) -> Checkup:
        """See `remote.Driver.checkup`."""
        return await checkup(self.connections, self._prefixes[0])

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self.connections.close()


def _at(answers: Any, place: int) -> Any:
    """One of the answers; nothing where a function that is none of ours gave them."""
    return answers[place] if isinstance(answers, list) and place < len(answers) else None


def _certain(head: Head | None) -> Head:
    if head is None:
        raise Corrupt("A head is gone from Redis.")
    return head


def _due_cursor(member: bytes) -> str:
    return write_due_cursor(int.from_bytes(member[:8], "big"), layout.session_of(member[8:]))
