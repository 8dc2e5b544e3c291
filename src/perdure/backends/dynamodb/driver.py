"""The driver: conditional writes of one session each, snapshots, truncation, purge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex

import msgspec

from perdure.backends.common import schema
from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.pieces import cut, piece_name
from perdure.backends.common.refusals import (
    check_anchor,
    check_deleted,
    check_snapshot_size,
    head_differs,
    key_applied_twice,
    no_anchor,
    not_deleted,
)
from perdure.backends.common.upgrade import require_writer, upgrade
from perdure.backends.dynamodb import layout
from perdure.backends.dynamodb.cells import NO_CHANGE, CellChanges, changes, due_is
from perdure.backends.dynamodb.checkup import checkup
from perdure.backends.dynamodb.feed import Feed
from perdure.backends.dynamodb.header import TableHeader
from perdure.backends.dynamodb.layout import SEGMENT_RECORDS, Item, Layout, SessionHeader, at, binaries, binary, key, number, text
from perdure.backends.dynamodb.reader import Reader
from perdure.backends.dynamodb.statement_batcher import StatementBatcher
from perdure.backends.dynamodb.table import Refusal, Table
from perdure.backends.dynamodb.writes import Request, request
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Stored
from perdure.backends.spi import NEVER, Capabilities, Change, Checkup, Durability, Index, Known, Page, Progress, Record, Row, Snapshot
from perdure.clock import Clock
from perdure.errors import Error, Unavailable
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 16 << 20
WHOLE_BYTES = 192 << 10
"""Bytes of a commit's meta and body that lie in one item; larger ones are cut."""
CROWDED_BYTES = 640 << 10
"""Bytes of one append's records from which smaller ones are cut too: DynamoDB takes 4 MB in a transaction, aiohttp 1 MiB unwarned."""
CUT_BYTES = 8 << 10
SNAPSHOT_BYTES = 32 << 10
"""Bytes of a snapshot that lie in its item; reading a session's newest state reads it along."""
PART_BYTES = 380_000
PARTS_AT_ONCE = 2
"""Parts in one request: in base64 still below 1 MiB."""
_NO_CELLS = Index({}, due_at=NEVER, control=b"", size_bytes=0)
CHANGES = 16
"""How often a write is made again because a truncation, or a change of cells, came between."""


class DynamoDBDriver(Reader):
    """A `Driver` on one table. A write is one session's, on a lane of its own, and waits for no other's; `StatementBatcher` sends them."""

    batch_max = 1

    lanes = 1024

    def __init__(self, table: Table, keys: Layout, *, durability: Durability) -> None:
        super().__init__(table, keys)
        self._batcher = StatementBatcher(table, max(1, table.pool // 8))
        self._header = TableHeader(table, keys.meta)
        self.store_id = ""
        self.schema = 0
        self.durability_read = durability
        self._feed = Feed(table, keys, self)

    async def start(self, clock: Clock, place: str, *, create: bool = True) -> None:
        """Read the store's id; make the store where there is none, or without `create` raise `NotFound`."""
        header = await self._header.open(clock, place, create=create)
        self.store_id, self.schema, self._clock = header.id, header.schema, clock
        self.capabilities = Capabilities(
            durability=self.durability_read,
            linearizable_reads=True,
            failover_loss=None,
            atomic_batch=False,
            keys_remembered=None,
            notification=False,
            record_bytes_max=RECORD_BYTES_MAX,
            batched=False,
            scan_orders=("id", "due") if self.schema >= 2 else ("id",),
            min_writer_seconds=schema.MIN_WRITER_SECONDS,
        )

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`. One request for all that come at once and are plain, one for each other one; before it one where the
        header is not known or the commit is cut."""
        return await asyncio.gather(*[self._write(attempt) for attempt in attempts])

    async def _write(self, attempt: Attempt) -> Answer:
        try:
            await self._header.writers.check()
            blobs = await self._encoded(attempt)
            for _ in range(CHANGES):
                header = self._headers.get(attempt.session)
                if attempt.expected is None:
                    header = None
                elif header is None or header.head != attempt.expected:
                    header = await self._header_of(attempt.session)
                    if header is None or header.head != attempt.expected:
                        return await self._lost(attempt, header)
                answer = await self._try(attempt, request(self.table.name, self._keys, attempt, header, blobs))
                if answer is not None:
                    return answer
        except Error as error:
            self._headers.forget(attempt.session)
            return error
        return Unavailable(f"The header of session {attempt.session.id!r} changed {CHANGES} times while it was written: try again later.")

    async def _try(self, attempt: Attempt, request: Request) -> Answer | None:
        """What became of it; `None`: make it again, for the header was changed by a truncation, or its cells."""
        try:
            await self._send(request)
        except Refusal as refusal:
            session, own = refusal.items[0], None if request.key_part is None else refusal.items[request.key_part]
            if session is None and own:
                return Known(*layout.decode_idempotency(own), attempt.expected) if attempt.expected else await self._lost(attempt, None)
            if session is None:
                return key_applied_twice(attempt.session)
            self._headers.forget(attempt.session)
            header = layout.decode_header(session) if session else await self._header_of(attempt.session)
            if header is not None and header.head == attempt.expected:
                self._headers.remember(attempt.session, header)
                return None
            return await self._lost(attempt, header)
        self._headers.remember(attempt.session, request.after)
        return Stored(self.durability_read)

    async def _send(self, request: Request) -> None:
        if request.statement:
            await self._batcher.send(request)
        elif len(request.parts) == 1:
            await self.table.ask("update_item", writes=True, **request.parts[0]["Update"])
        else:
            await self.table.ask("transact_write_items", writes=True, TransactItems=request.parts, ClientRequestToken=request.token)

    async def _lost(self, attempt: Attempt, header: SessionHeader | None) -> Answer:
        if header is not None:
            self._headers.remember(attempt.session, header)
        if attempt.key is not None and (known := await self.find_key(attempt.session, attempt.key)) is not None:
            return known
        if header is None:
            return HeadMismatch(None)
        newest = layout.decode_record(header.tail[-1], {}).record.head if header.tail else None
        if newest is not None and newest != header.head:
            return head_differs(attempt.session)
        return HeadMismatch(header.head, newest is not None)

    async def _encoded(self, attempt: Attempt) -> list[bytes]:
        """The records; what is large is cut in parts, which nothing refers to before the commit does. They stay when it fails: the same
        attempt may have been stored by a write whose answer was lost."""
        crowded = sum(record.stored_bytes for record in attempt.records) > CROWDED_BYTES
        most = CUT_BYTES if crowded else WHOLE_BYTES
        blobs = []
        for record in attempt.records:
            payload = record.meta + record.body if len(record.meta) + len(record.body) > most else b""
            parts = await self._cut(attempt.session, layout.pieces(record), payload) if payload else 0
            blobs.append(layout.encode_record(record, parts))
        return blobs

    async def _cut(self, session: SessionKey, name: str, payload: bytes) -> int:
        """Store the pieces; how many they are."""
        pk, pieces = self._keys.parts(session), cut(payload, PART_BYTES)
        items = [key(pk, piece_name(name, place)) | {"b": binary(piece)} for place, piece in enumerate(pieces)]
        await self.table.change([{"PutRequest": {"Item": item}} for item in items], PARTS_AT_ONCE)
        return len(pieces)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`. In a transaction with the header's floor: a purge that comes between is not undone."""
        await self._header.writers.check()
        check_snapshot_size(snapshot, RECORD_BYTES_MAX, "DynamoDB")
        held, found = await asyncio.gather(
            self._snapshots(session), self.read(session, snapshot.version - 1, snapshot.version + 1, 1, reverse=False)
        )
        if not found or found[0].head.hash != snapshot.hash or any(version == snapshot.version for version, *_ in held):
            return
        item = self._keys.snapshot(session, snapshot.version) | {"h": binary(snapshot.hash), "b": binary(snapshot.body), "p": number(0)}
        if len(snapshot.body) > SNAPSHOT_BYTES:
            name = f"{at('s', snapshot.version)}-{token_hex(8)}"  # Another process may be keeping the same one.
            parts = await self._cut(session, name, snapshot.body)
            item |= {"b": binary(b""), "p": number(parts), "n": text(name)}
        condition: Item = {
            "TableName": self.table.name,
            "Key": self._keys.header(session),
            "ConditionExpression": "f <= :v AND attribute_not_exists(z)",
            "ExpressionAttributeValues": {":v": number(snapshot.version)},
        }
        beside = {"ConditionCheck": condition}
        if cells := changes(self.table.name, self._keys, session, None if size_bytes is None else Index(size_bytes=size_bytes), None):
            condition["UpdateExpression"] = cells.expression()
            condition["ExpressionAttributeValues"] |= cells.values
            beside = {"Update": condition}
            self._headers.forget(session)
        kept = {"TableName": self.table.name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
        try:
            await self.table.ask("transact_write_items", writes=True, TransactItems=[beside, {"Put": kept}])
        except Refusal:
            await self._remove_parts(session, *_parts(item))
            return
        versions = sorted((snapshot.version, *(version for version, *_ in held)))
        await self._remove_snapshots(session, [one for one in held if one[0] < versions[-SNAPSHOTS_KEPT:][0]])

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`. One request."""
        await self._header.writers.check()
        cells = changes(self.table.name, self._keys, row.session, index, row.due_at)
        condition, due = due_is(row.due_at)
        update = {
            "TableName": self.table.name,
            "Key": self._keys.header(row.session),
            "UpdateExpression": cells.expression(),
            "ConditionExpression": f"h = :e AND {condition}",
            "ExpressionAttributeValues": cells.values | due | {":e": binary(layout.encode_head(row.head))},
        }
        self._headers.forget(row.session)
        try:
            if cells.beside:
                await self.table.ask("transact_write_items", writes=True, TransactItems=[{"Update": update}, *cells.beside])
            else:
                await self.table.ask("update_item", writes=True, **update)
        except Refusal:
            return False
        return True

    async def _snapshots(self, session: SessionKey) -> list[tuple[int, str, int]]:
        """Versions of the snapshots that are there, with their parts' name and number."""
        items = await self.table.query_all(self._keys.session(session), "s", "s~", only="pk,sk,p,n")
        return [(layout.version_of(item), *_parts(item)) for item in items]

    async def _remove_snapshots(self, session: SessionKey, old: Sequence[tuple[int, str, int]]) -> None:
        await self.table.change([_delete(self._keys.snapshot(session, version)) for version, *_ in old])
        for _, name, parts in old:
            await self._remove_parts(session, name, parts)

    async def _remove_parts(self, session: SessionKey, name: str, parts: int) -> None:
        await self.table.change([_delete(key(self._keys.parts(session), piece_name(name, place))) for place in range(parts)])

    async def _remove(self, pk: str, low: str, high: str) -> None:
        """Remove all items of a partition from `low` to `high`."""
        items = await self.table.query_all(pk, low, high, only="pk,sk")
        await self.table.change([_delete(key(pk, item["sk"]["S"])) for item in items])

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`. Writes the log that it reads, at its end."""
        return await self._feed.page(cursor, limit)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`. The floor in the header is what counts; items below it go afterwards, also those of a truncation
        that was cut short."""
        await self._header.writers.check()
        found = await self.read(session, anchor[0] - 1, anchor[0] + 1, 1, reverse=False)
        check_anchor(session, found[0] if found else None, below, anchor)
        while True:
            header = await self._header_of(session)
            if header is None or anchor[0] < header.floor:
                raise no_anchor(session, below, anchor)
            dropped = max(0, below - header.floor)
            if below <= header.floor:
                below = header.floor
                break
            first = header.head.version - len(header.tail) + 1
            change = {":f": number(below), ":x": binaries(header.tail[max(0, below - first) :])}
            if await self._set(session, header, "f = :f, x = :x", change):
                break
        await self._drop(session, below)
        if snapshot:
            await self._remove_snapshots(session, await self._snapshots(session))
        await self._feed.sweep(dropped)

    async def _set(
        self,
        session: SessionKey,
        header: SessionHeader,
        sets: str,
        values: Item,
        cells: CellChanges = NO_CHANGE,
        beside: Sequence[Item] = (),
    ) -> bool:
        """Change a header that is still as it was read, and others with it; whether it was."""
        self._headers.forget(session)
        update = {
            "TableName": self.table.name,
            "Key": self._keys.header(session),
            "UpdateExpression": cells.expression([sets]),
            "ConditionExpression": cells.conditions("h = :e AND f = :o"),
            "ExpressionAttributeValues": values
            | cells.values
            | {":e": binary(layout.encode_head(header.head)), ":o": number(header.floor)},
        }
        try:
            await self.table.ask("transact_write_items", writes=True, TransactItems=[{"Update": update}, *beside, *cells.beside])
        except Refusal:
            return False
        return True

    async def _drop(self, session: SessionKey, below: int) -> None:
        """Remove what lies below a version: whole items, the part of one that reaches above it, pieces (also those of writes that lost
        their race), snapshots."""
        pk = self._keys.session(session)
        await self._remove(pk, "r", at("r", below - 1))
        items, _ = await self.table.query(pk, at("r", below), at("r", below + SEGMENT_RECORDS - 2), limit=1)
        for item in items:
            await self._shorten(item, sum(stored.record.head.version < below for stored in layout.decode_segment(item)))
        await self._remove(self._keys.parts(session), "r", at("r", below))
        await self._remove_snapshots(session, [one for one in await self._snapshots(session) if one[0] < below - 1])

    async def _shorten(self, item: Item, dropped: int) -> None:
        """Take the first records out of an item, unless another truncation did, or removed it."""
        if not dropped:
            return
        kept = {**item, "x": {"L": item["x"]["L"][dropped:]}}
        values = {":x": item["x"]}
        try:
            await self.table.ask(
                "put_item", TableName=self.table.name, Item=kept, ConditionExpression="x = :x", ExpressionAttributeValues=values
            )
        except Refusal:
            return

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`. The header becomes the stub first; the rest goes afterwards, also what a purge cut short has left."""
        await self._header.writers.check()
        while True:
            header = await self._header_of(session)
            if header is None:
                raise not_deleted(session)
            check_deleted(session, header.head)
            last = next(iter(await self.read(session, header.head.version - 1, None, 1, reverse=True)), None)
            if last is None or last.head != header.head:  # It was appended to meanwhile: look again.
                continue
            stub = header.purged and header.floor == header.head.version and header.row(session) == _bare(header, session)
            if stub or await self._become_stub(session, header, last):
                break
        await self._drop(session, header.head.version)
        pk = self._keys.session(session)
        await self._remove(pk, "s", "s~")
        await self._remove(pk, "k", "k\U0010ffff")
        await self._remove(self._keys.parts(session), "r", "s~")
        await self._feed.sweep(header.head.version - header.floor)

    async def _become_stub(self, session: SessionKey, header: SessionHeader, last: Record) -> bool:
        """Leave of a session its last record without a body, in the header; in the listing, no tags."""
        stub = layout.encode_record(msgspec.structs.replace(last, body=b""), 0)
        values = {":f": number(header.head.version), ":x": binaries([stub]), ":g": layout.encode_tags({}), ":z": {"BOOL": True}}
        beside = [{"Put": {"TableName": self.table.name, "Item": self._keys.listed(session) | {"g": values[":g"]}}}]
        if not header.tail:  # Then an item of its own ends with the last record.
            beside.append({"Delete": {"TableName": self.table.name, "Key": self._keys.record(session, header.head.version)}})
        cells = changes(self.table.name, self._keys, session, _NO_CELLS, header.due_at)
        return await self._set(session, header, "f = :f, x = :x, g = :g, z = :z", values, cells, beside)

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await require_writer(self._header, version)
        self._header.writers.forget()

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`. Items take the attributes of schema 2 when they are written, so nothing but the header changes."""
        self._header.writers.forget()
        await upgrade(self._header, from_version, [], progress, settle_seconds=schema.MIN_WRITER_SECONDS)

    async def checkup(self) -> Checkup:
        """See `remote.Driver.checkup`."""
        return await checkup(self.table)

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self.table.client.close()


def _delete(key: Item) -> Item:
    return {"DeleteRequest": {"Key": key}}


def _parts(item: Item) -> tuple[str, int]:
    parts = int(item["p"]["N"])
    return (item["n"]["S"] if parts else "", parts)


def _bare(header: SessionHeader, session: SessionKey) -> Row:
    """The index row of a header without cells."""
    return Row(session, header.head, {}, header.created)
