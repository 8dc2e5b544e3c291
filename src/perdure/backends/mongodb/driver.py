"""The driver: appends, snapshots, removals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import repeat
from typing import Any

import msgspec

from perdure.backends.common import schema
from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.pieces import cut
from perdure.backends.common.refusals import check_anchor, check_deleted, check_snapshot_size, key_applied_twice, not_deleted
from perdure.backends.common.schema import WriterCheck
from perdure.backends.common.upgrade import require_writer
from perdure.backends.mongodb import layout, tail_archiver
from perdure.backends.mongodb.checkup import checkup
from perdure.backends.mongodb.connections import Connections
from perdure.backends.mongodb.feed import Feed
from perdure.backends.mongodb.layout import CHUNK, CHUNK_BYTES, HEAD, KEY, SESSION, SNAPSHOT, Doc
from perdure.backends.mongodb.notifications import notices
from perdure.backends.mongodb.reader import Reader, known_in
from perdure.backends.mongodb.schema import check_server, open_store
from perdure.backends.mongodb.tail_archiver import TailArchiver
from perdure.backends.mongodb.upgrade import Headers, migrate
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Notice, Stored
from perdure.backends.spi import SCHEMA_VERSION, Capabilities, Change, Checkup, Durability, Index, Page, Progress, Row, Snapshot
from perdure.clock import Clock
from perdure.errors import Corrupt, Error, Unavailable
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 32 << 20
SNAPSHOT_BYTES_MAX = 64 << 20
INLINE = 16 << 10
"""Most bytes of a record that lie in the tail; larger ones go to chunks."""
ATTEMPT_INLINE = 512 << 10
"""Most bytes that one append brings into the tail: of a larger one all records go to chunks."""
MOVED_MAX = 65_536
"""Sessions of which is remembered how far their tails were moved; about 150 bytes each."""
QUORUM = 3
"""Voting members from which a majority is of several."""
LOST = (11000, 121)
"""How the server refuses an update whose condition failed: as the duplicate of the session that is there, or as none."""
_WAIT = 0.2
"""Seconds between looks at a server that is no primary yet."""


class MongoDBDriver(Reader):
    """A `Driver` on one replica set."""

    lanes = 1
    batch_max = 128
    store_id = ""
    schema = SCHEMA_VERSION

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._archiver, self._feed = TailArchiver(connections, self._check_writer), Feed(self)
        self._moved = LruMap[str, int](MOVED_MAX)

    async def start(self, clock: Clock, connect_timeout: float, *, create: bool = True) -> None:
        """See what the server is, and make the collections where there are none; `NotFound` without `create`."""
        hello = await self._primary(connect_timeout)
        holders, arbiters = len(hello.get("hosts", ())) + len(hello.get("passives", ())), len(hello.get("arbiters", ()))
        reached = Durability.quorum if holders + arbiters >= QUORUM and holders > 1 else Durability.local
        config = await self.connections.ask({"replSetGetConfig": 1}, admin=True)
        journaled = config is not None and config["config"].get("writeConcernMajorityJournalDefault", True)
        self.durability_read = reached if journaled else Durability.buffered
        header = await open_store(self.connections, clock, create=create)
        self.store_id, self.schema = header.id, header.schema
        tick = asyncio.get_running_loop().time
        self._writer = WriterCheck(self.connections.place, header, self._least_writer, tick)
        self.capabilities = Capabilities(
            durability=reached,
            linearizable_reads=True,
            failover_loss=None,
            atomic_batch=False,
            keys_remembered=None,
            notification=True,
            record_bytes_max=RECORD_BYTES_MAX,
            scan_orders=("id",) if self.schema < 2 else ("id", "due"),
            min_writer_seconds=schema.MIN_WRITER_SECONDS,
        )

    async def _check_writer(self) -> None:
        await self._writer.check()

    async def _least_writer(self) -> int:
        return (await Headers(self.connections).read()).min_writer

    async def _primary(self, connect_timeout: float) -> Doc:
        """What the primary says of itself; one that was just started may take a moment to become it."""
        end = asyncio.get_running_loop().time() + connect_timeout
        while True:
            hello = await self.connections.hello()
            try:
                check_server(self.connections.place, hello)
            except Unavailable:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(_WAIT)
            else:
                return hello

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`: one update command, a statement for each session.

        One round trip; another one before it where records are large, or where keys are to be looked up that have left the tail, and
        one or two after it that read the heads of those who lost."""
        await self._writer.check()
        answers: dict[int, Answer] = {}
        chunked = {number: await self._cut(attempt) for number, attempt in enumerate(attempts) if _is_large(attempt)}
        judged = await self._old_keys(attempts)
        sent = [number for number in range(len(attempts)) if number not in judged]
        if sent:
            statements = [self._statement(attempts[number], chunked.get(number)) for number in sent]
            answer = await self.connections.update(SESSION, statements)
            refused = {sent[failed["index"]]: failed for failed in answer.get("writeErrors", ())}
            not_spread = self.connections.not_spread(answer)
            inserted = {sent[one["index"]] for one in answer.get("upserted", ())}
            for number in sent:
                if number not in refused:
                    answers[number] = not_spread or Stored(self.capabilities.durability)
                    if number in inserted and attempts[number].expected is not None:
                        answers[number] = await self._vanished(attempts[number])
                elif refused[number]["code"] in LOST:
                    judged.add(number)
                else:
                    answers[number] = self.connections.refused(refused[number])
        if judged:
            try:
                answers |= await self._judge({number: attempts[number] for number in sorted(judged)})
            except Error as error:  # of those who lost alone: the others' writes stand
                answers |= dict.fromkeys(judged, error)
        self._archiver.add(
            layout.name_of(attempt.session)
            for number, attempt in enumerate(attempts)
            if isinstance(answers[number], Stored) and _fills_page(attempt)
        )
        return [answers[number] for number in range(len(attempts))]

    def _statement(self, attempt: Attempt, chunks: Sequence[int] | None) -> Doc:
        """Update the session if its head is the expected one and its tail has none of the keys; else the server tries to insert it, and
        says that it is there."""
        name, expected, records = layout.name_of(attempt.session), attempt.expected, attempt.records
        where: Doc = {"_id": name, "version": 0}
        fields = layout.put_head(records[-1].head) | {"news": True}
        change: Doc = {"$set": fields}
        if expected is None:
            first = records[0].head
            change["$setOnInsert"] = {"created": first.at, "first": first.version, "moved": 0}
        else:
            where |= {"version": expected.version, "hash": expected.hash}
            if keys := _keys(attempt):
                where |= {"moved": self._moved.get(name) or 0, "tail.k": {"$nin": keys}}
        removed: Doc = {}
        if attempt.index is not None:
            layout.change_cells(attempt.index, fields, removed)
            if attempt.index.tags:
                fields["tags"] = layout.encode_tags(attempt.index.tags)
            elif attempt.index.tags is not None:
                removed["tags"] = ""
        if removed:
            change["$unset"] = removed
        change["$push"] = {"tail": {"$each": [*map(layout.encode_entry, records, chunks or repeat(0))]}}
        return {"q": where, "u": change, "upsert": True}

    async def _cut(self, attempt: Attempt) -> list[int]:
        """Into how many chunks each record was cut; they are written here, under names that nothing refers to yet."""
        sizes = _sizes(attempt)
        inline = INLINE if sum(sizes) <= ATTEMPT_INLINE else 0
        name, counts = layout.name_of(attempt.session), []
        for record, size in zip(attempt.records, sizes, strict=True):
            counts.append(
                0 if size <= inline else await self._write_chunks(name, record.head.version, record.id, record.meta + record.body)
            )
        return counts

    async def _write_chunks(self, name: str, version: int, what: bytes, data: bytes) -> int:
        chunks = cut(data, CHUNK_BYTES)
        for number, chunk in enumerate(chunks):
            await self.connections.insert(CHUNK, [{"_id": name + layout.chunk_name(version, what.hex(), number), "data": chunk}])
        return len(chunks)

    async def _old_keys(self, attempts: Sequence[Attempt]) -> set[int]:
        """Which attempts have a key that has left its session's tail. What is not found here is certain for as long as no more of the
        tail is moved: the statement says so."""
        keyed = {
            number: layout.name_of(attempt.session)
            for number, attempt in enumerate(attempts)
            if attempt.expected is not None and attempt.expected.version >= layout.PAGE - 1 and _keys(attempt)
        }
        strange = [name for name in keyed.values() if name not in self._moved]
        if strange:
            for doc in await self.connections.find(SESSION, {"_id": {"$in": strange}}, {"moved": 1}):
                self._learn(doc)
        wanted = {
            layout.key_of(name, key): number for number, name in keyed.items() if self._moved.get(name) for key in _keys(attempts[number])
        }
        return {wanted[doc["_id"]] for doc in await self._keys_at(wanted)}

    async def _keys_at(self, names: Iterable[str]) -> list[Doc]:
        wanted = list(names)
        return await self.connections.find(KEY, {"_id": {"$in": wanted}}) if wanted else []

    async def _judge(self, attempts: dict[int, Attempt]) -> dict[int, Answer]:
        """What those found who lost: a key that was applied before, or another head. The sessions are read before the keys."""
        names = {number: layout.name_of(attempt.session) for number, attempt in attempts.items()}
        keys = sorted({key for attempt in attempts.values() for key in _keys(attempt)})
        tail = {"$filter": {"input": "$tail", "cond": {"$in": ["$$this.k", {"$literal": keys}]}}}
        fields = {**HEAD, "moved": 1, "purged": 1, "tail": tail, "newest": {"$slice": ["$tail", -1]}}
        docs = {
            doc["_id"]: doc for doc in await self.connections.find(SESSION, {"_id": {"$in": list(names.values())}}, fields, certain=True)
        }
        for doc in docs.values():
            self._learn(doc)
        moved = await self._keys_at([layout.key_of(names[number], key) for number, attempt in attempts.items() for key in _keys(attempt)])
        answers: dict[int, Answer] = {}
        for number, attempt in attempts.items():
            doc = docs.get(names[number], {})
            if not doc:
                answers[number] = HeadMismatch(None)
                continue
            mine = [key for key in moved if key["_id"].startswith(names[number] + "\t")]
            known = known_in(doc, mine)
            stale = [key["_id"] for key in mine if key["v"] <= doc.get("purged", 0)]
            if stale:  # A purge that was not finished has left them.
                await self.connections.delete(KEY, {"_id": {"$in": stale}, "v": {"$lte": doc["purged"]}})
            taken = next((known[key] for key in (attempt.key, *_keys(attempt)) if key in known), None)
            if taken is None:
                answers[number] = _mismatch(doc)
            elif attempt.key in known:
                answers[number] = taken
            else:
                answers[number] = key_applied_twice(attempt.session)
        return answers

    async def _vanished(self, attempt: Attempt) -> Corrupt:
        """The session was not there, and no validator refused the insert: both are signs of a hand in the collection."""
        name = layout.name_of(attempt.session)
        await self.connections.delete(SESSION, {"_id": name, "created": {"$exists": False}})
        said = f"Session {attempt.session.id!r} is gone from MongoDB, and so is the rule that guards {self._full(SESSION)!r}"
        return Corrupt(f"{said}: the collection was dropped or changed by hand.", session=attempt.session.id)

    def _learn(self, doc: Doc) -> None:
        """Remember how far a session's tail was moved."""
        self._moved.put(doc["_id"], layout.part_of(doc, "moved"))

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`."""
        await self._writer.check()
        name, head, fields, removed = layout.name_of(row.session), row.head, dict[str, Any](), dict[str, Any]()
        layout.change_cells(index, fields, removed)
        due_at = {"$exists": False} if row.due_at is None else row.due_at
        where = {"_id": name, "version": head.version, "hash": head.hash, "due_at": due_at}
        # A statement that changes nothing needs an operator all the same.
        change = {operator: part for operator, part in (("$set", {**fields, "version": head.version}), ("$unset", removed)) if part}
        answer = await self.connections.update(SESSION, [{"q": where, "u": change}])
        self.connections.check(answer)
        return bool(answer["n"])

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`."""
        await self._writer.check()
        check_snapshot_size(snapshot, SNAPSHOT_BYTES_MAX, "MongoDB")
        name, version = layout.name_of(session), snapshot.version
        if not await self._has(session, version, snapshot.hash):
            return
        large = len(snapshot.body) > CHUNK_BYTES
        chunks = await self._write_chunks(name, version, snapshot.hash, snapshot.body) if large else 0
        body = b"" if chunks else snapshot.body
        await self.connections.insert(
            SNAPSHOT, [{"_id": layout.at(name, version), "version": version, "hash": snapshot.hash, "chunks": chunks, "body": body}]
        )
        if size_bytes is not None:
            sized = {"q": {"_id": name}, "u": {"$set": {"size_bytes": size_bytes}}}
            self.connections.check(await self.connections.update(SESSION, [sized]))
        older = await self.connections.find(
            SNAPSHOT, {"_id": layout.below(name)}, {"version": 1, "hash": 1, "chunks": 1}, sort={"_id": -1}, skip=SNAPSHOTS_KEPT
        )
        if not await self._has(session, version, snapshot.hash, stub=False):
            older.append({"_id": layout.at(name, version), "version": version, "hash": snapshot.hash, "chunks": chunks})
        await self._drop_snapshots(name, older)

    async def _drop_snapshots(self, name: str, docs: Sequence[Doc]) -> None:
        """Delete these snapshots of a session, and then their chunks."""
        if docs:
            await self.connections.delete(SNAPSHOT, {"_id": {"$in": [doc["_id"] for doc in docs]}})
            pieces = [
                name + layout.chunk_name(doc["version"], doc["hash"].hex(), number) for doc in docs for number in range(doc["chunks"])
            ]
            await self.connections.delete(CHUNK, {"_id": {"$in": pieces}})

    async def _has(self, session: SessionKey, version: int, hash: bytes, *, stub: bool = True) -> bool:
        """Whether the chain has this commit; as a purge's stub it counts only with `stub`."""
        found = await self.read(session, version - 1, version + 1, 1, reverse=False)
        if not found or found[0].head.hash != hash:
            return False
        return stub or not await self.connections.find(SESSION, {"_id": layout.name_of(session), "purged": version}, {"_id": 1})

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        return await self._feed.page(cursor, limit)

    def notices(self) -> AsyncGenerator[Notice, None]:
        """See `remote.listening.NotificationSource`."""
        return notices(self.connections)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`. What is cut off goes at once for readers, and from the disk after that."""
        await self._writer.check()
        name = layout.name_of(session)
        found = await self.read(session, anchor[0] - 1, anchor[0] + 1, 1, reverse=False)
        check_anchor(session, found[0] if found else None, below, anchor)
        if snapshot:
            every = await self.connections.find(SNAPSHOT, {"_id": layout.below(name)}, {"version": 1, "hash": 1, "chunks": 1})
            await self._drop_snapshots(name, every)
        dropped = 0
        for doc in await self.connections.find(SESSION, {"_id": name, "first": {"$lt": below}}, {"tail": 1, "first": 1}):
            dropped = below - doc["first"]
            await self.connections.insert(KEY, tail_archiver.keys_in(name, [entry for entry in doc["tail"] if entry["v"] < below]))
            change = {"$max": {"first": below, "moved": below}, "$pull": {"tail": {"v": {"$lt": below}}}}
            self.connections.check(await self.connections.update(SESSION, [{"q": {"_id": name}, "u": change}]))
        for doc in await self.connections.find(SESSION, {"_id": name}, {"first": 1, "purged": 1}):
            await self._archiver.sweep(doc)
        await self._feed.sweep(dropped)

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        await self._writer.check()
        name = layout.name_of(session)
        (head,) = await self.heads([session])
        head = check_deleted(session, head)
        (last,) = await self.read(session, head.version - 1, head.version + 1, 1, reverse=False)
        stub = layout.encode_entry(msgspec.structs.replace(last, body=b""), stub=True)
        only = {"tail": [stub], "first": head.version, "moved": head.version, "purged": head.version}
        where = {"_id": name, "version": head.version, "hash": head.hash}
        before = await self.connections.find(SESSION, {"_id": name}, {"first": 1})
        answer = await self.connections.update(SESSION, [{"q": where, "u": {"$set": only, "$unset": {"tags": "", **layout.CELLS}}}])
        self.connections.check(answer)
        if not answer["n"]:
            raise not_deleted(session)
        await self._archiver.sweep({"_id": name, "first": head.version, "purged": head.version})
        await self._feed.sweep(sum(head.version - doc["first"] for doc in before))

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await require_writer(Headers(self.connections), version)
        self._writer.forget()

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`."""
        self._writer.forget()
        await migrate(self.connections, from_version, progress)
        self._writer.forget()

    async def checkup(self) -> Checkup:
        """See `remote.Driver.checkup`."""
        return await checkup(self.connections, self._archiver.failed)

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self._archiver.drain()
        await self.connections.close()


def _mismatch(doc: Doc) -> Answer:
    try:
        head = layout.head_of(doc)
        return HeadMismatch(head, layout.is_proven(doc, head))
    except Corrupt as error:
        return error


def _sizes(attempt: Attempt) -> list[int]:
    return [len(record.meta) + len(record.body) for record in attempt.records]


def _is_large(attempt: Attempt) -> bool:
    """Whether a record must go to chunks."""
    sizes = _sizes(attempt)
    return max(sizes) > INLINE or sum(sizes) > ATTEMPT_INLINE


def _keys(attempt: Attempt) -> list[str]:
    """The keys that must be new."""
    keys = [record.key for record in attempt.records if record.key is not None]
    return keys if attempt.key is None or attempt.key in keys else [attempt.key, *keys]


def _fills_page(attempt: Attempt) -> bool:
    """Whether a page is complete now that was not before."""
    before, after = attempt.records[0].head.version, attempt.records[-1].head.version + 1
    return layout.base(before) < layout.base(after)
