"""The driver: appends, snapshots and removals as etcd transactions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import msgspec

from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.pieces import cut
from perdure.backends.common.refusals import check_anchor, check_deleted, check_snapshot_size, key_applied_twice, no_anchor, not_deleted
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.etcd import layout
from perdure.backends.etcd.checkup import QUORUM, checkup
from perdure.backends.etcd.gateway import Gateway, Json, absent, data, delete, get, holds, items, nested, prefix_end, put, unchanged
from perdure.backends.etcd.layout import SCHEMA, Layout
from perdure.backends.etcd.notifications import notices
from perdure.backends.etcd.reader import FETCHED, Reader
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Notice, Stored
from perdure.backends.spi import Capabilities, Checkup, Durability, Known, Record, Snapshot
from perdure.clock import Clock
from perdure.errors import Error
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 16 << 20
CHUNK = 256 << 10
"""Bytes of a body in one value; larger ones are cut."""
BATCH_BYTES = 900 << 10
"""About how many bytes go in one transaction: etcd takes 1.5 MiB."""


class EtcdDriver(Reader):
    """A `Driver` on one cluster."""

    lanes = 2
    batch_max = 64

    def __init__(self, gateway: Gateway, keys: Layout) -> None:
        super().__init__(gateway, keys)
        self.gateway = gateway
        self.store_id = ""

    async def start(self, clock: Clock, place: str, *, create: bool = True) -> None:
        """Read the store's id and the cluster's size; make the store where there is none, or without `create` raise `NotFound`."""
        meta = self._keys.meta

        async def read() -> Json | None:
            return next(iter(items(await self.gateway.range(key=meta))), None)

        async def make(id: str) -> None:
            await self.gateway.txn([absent(meta)], [put(meta, msgspec.msgpack.encode({"schema": SCHEMA, "store": id}))])

        what = f"the key {meta.decode()!r}"
        header = await open_header(read, make, _header, place=place, what=what, known=SCHEMA, clock=clock, create=create)
        self.store_id = header.id
        members = len((await self.gateway.call("cluster/member/list", {})).get("members", []))
        self.durability_read = Durability.quorum if members >= QUORUM else Durability.local
        self.capabilities = Capabilities(
            durability=self.durability_read,
            linearizable_reads=True,
            failover_loss=None,
            atomic_batch=False,
            keys_remembered=None,
            notification=True,
            record_bytes_max=RECORD_BYTES_MAX,
        )

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`. One round trip while all fits in one transaction, else several, each by itself."""
        requests = [await self._attempt(attempt) for attempt in attempts]
        answers: list[Answer] = []
        while len(answers) < len(attempts):
            batch: list[Json] = []
            size = 0
            for request, weight in requests[len(answers) :]:
                if batch and size + weight > BATCH_BYTES:
                    break
                batch.append(request)
                size += weight
            try:
                answers += await self._send(attempts[len(answers) : len(answers) + len(batch)], batch)
            except Error as error:
                answers += [error] * len(batch)
        return answers

    async def _attempt(self, attempt: Attempt) -> tuple[Json, int]:
        keys, session, first = self._keys, attempt.session, attempt.records[0]
        head, index = keys.of(b"h", session), keys.of(b"i", session)
        compare = [absent(head) if attempt.expected is None else holds(head, layout.encode_head(attempt.expected))]
        size = 512
        success, failure = [put(head, layout.encode_head(attempt.records[-1].head))], [get(head)]
        if attempt.expected is None or (attempt.index is not None and attempt.index.tags is not None):
            created = first.head.at if attempt.expected is None else await self._created(session)
            value = layout.encode_index(created, (attempt.index and attempt.index.tags) or {})
            success.append(put(index, value))
            size += len(value)
        for record in attempt.records:
            value = await self._record_value(session, record)
            success.append(put(keys.at(b"r", session, record.head.version), value))
            size += len(value) + 256
            if record.key is not None:
                compare.append(absent(keys.key(session, record.key)))
                success.append(put(keys.key(session, record.key), layout.encode_key(record.head.version, record.request)))
        if attempt.key is not None:
            failure.append(get(keys.key(session, attempt.key)))
            if all(record.key != attempt.key for record in attempt.records):
                compare.append(absent(keys.key(session, attempt.key)))
        return nested(compare, success, failure), size

    async def _created(self, session: SessionKey) -> int:
        found = items(await self.gateway.range(key=self._keys.of(b"i", session)))
        return layout.decode_index(found[0])[0] if found else 0

    async def _record_value(self, session: SessionKey, record: Record) -> bytes:
        if len(record.body) <= CHUNK:
            return layout.encode_record(record, record.body, 0)
        return layout.encode_record(record, b"", await self._cut(session, record.id.hex(), record.body))

    async def _cut(self, session: SessionKey, name: str, body: bytes) -> int:
        """Write a body in chunks, under a name that nothing refers to yet; how many there are. A second time changes nothing."""
        prefix, chunks = self._keys.chunks(session, name), cut(body, CHUNK)
        for number, chunk in enumerate(chunks):
            await self.gateway.txn([], [put(prefix + b"%04x" % number, chunk)])
        return len(chunks)

    async def _send(self, attempts: Sequence[Attempt], batch: Sequence[Json]) -> list[Answer]:
        answer = await self.gateway.txn([], batch)
        return [self._answered(attempt, response["response_txn"]) for attempt, response in zip(attempts, answer["responses"], strict=True)]

    def _answered(self, attempt: Attempt, response: Json) -> Answer:
        try:
            return self._answer(attempt, response)
        except Error as error:
            return error

    def _answer(self, attempt: Attempt, response: Json) -> Answer:
        if response.get("succeeded"):
            return Stored(self.durability_read)
        found, *known = map(items, response["responses"])
        head = layout.decode_head(found[0]) if found else None
        if known and known[0] and head is not None:
            return Known(*layout.decode_key(known[0][0]), head)
        if head == attempt.expected:
            return key_applied_twice(attempt.session)
        return HeadMismatch(head)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        """See `spi.Backend.put_snapshot`."""
        check_snapshot_size(snapshot, RECORD_BYTES_MAX, "etcd")
        keys = self._keys
        record, stored = keys.at(b"r", session, snapshot.version), keys.of(b"s", session)
        answer = await self.gateway.txn([], [get(record), get(stored, prefix_end(stored), keys_only=True)], writes=False)
        found, held = map(items, answer["responses"])
        if not found or layout.decode_record(found[0])[0].head.hash != snapshot.hash:
            return
        name = str(snapshot.version)
        chunks = await self._cut(session, name, snapshot.body) if len(snapshot.body) > CHUNK else 0
        value = layout.encode_snapshot(snapshot.hash, chunks, b"" if chunks else snapshot.body)
        versions = sorted({snapshot.version, *map(layout.version_of, held)})
        old: list[Json] = []
        for version in versions[:-SNAPSHOTS_KEPT]:
            if version != snapshot.version:
                gone = keys.chunks(session, str(version))
                old += [delete(keys.at(b"s", session, version)), delete(gone, prefix_end(gone))]
        await self.gateway.txn(
            [unchanged(record, int(found[0]["mod_revision"]))], [put(keys.at(b"s", session, snapshot.version), value), *old[:100]]
        )

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes]) -> None:
        """See `spi.Backend.truncate`. Chunks of dropped records go afterwards, when nothing refers to them."""
        keys = self._keys
        record = keys.at(b"r", session, anchor[0])
        found = items(await self.gateway.range(key=record))
        held = layout.decode_record(found[0])[0] if found else None
        check_anchor(session, held, below, anchor)
        cut_names = await self._cut_names(session, below)
        answer = await self.gateway.txn(
            [unchanged(record, int(found[0]["mod_revision"]))],
            [
                delete(keys.of(b"r", session), keys.at(b"r", session, below)),
                delete(keys.of(b"s", session), keys.at(b"s", session, max(below - 1, 0))),
            ],
        )
        if not answer.get("succeeded"):
            raise no_anchor(session, below, anchor)
        for name in cut_names:
            prefix = keys.chunks(session, name)
            await self.gateway.txn([], [delete(prefix, prefix_end(prefix))])

    async def _cut_names(self, session: SessionKey, below: int) -> list[str]:
        """Under which names records below a version have their chunks."""
        names: list[str] = []
        after = 0
        while page := await self.read(session, after, below, FETCHED, reverse=False):
            names += [record.id.hex() for record in page if len(record.body) > CHUNK]
            after = page[-1].head.version
        return names

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        keys = self._keys
        key = keys.of(b"h", session)
        found = items(await self.gateway.range(key=key))
        head = check_deleted(session, layout.decode_head(found[0]) if found else None)
        last = keys.at(b"r", session, head.version)
        (item,) = items(await self.gateway.range(key=last))
        stub = msgspec.structs.replace(layout.decode_record(item)[0], body=b"")
        created, _ = layout.decode_index(items(await self.gateway.range(key=keys.of(b"i", session)))[0])
        removed = [delete(keys.of(kind, session), prefix_end(keys.of(kind, session))) for kind in (b"k", b"s", b"c")]
        answer = await self.gateway.txn(
            [unchanged(key, int(found[0]["mod_revision"]))],
            [
                *removed,
                delete(keys.of(b"r", session), last),
                put(last, layout.encode_record(stub, b"", 0)),
                put(keys.of(b"i", session), layout.encode_index(created, {})),
            ],
        )
        if not answer.get("succeeded"):
            raise not_deleted(session)

    def notices(self) -> AsyncGenerator[Notice, None]:
        """See `remote.NotificationSource`."""
        return notices(self.gateway, self._keys)

    async def checkup(self) -> Checkup:
        """See `remote.Driver.checkup`."""
        return await checkup(self.gateway)

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self.gateway.close()


def _header(item: Json) -> StoreHeader:
    header = msgspec.msgpack.decode(data(item, "value"), type=dict[str, int | str])
    return StoreHeader(int(header["schema"]), str(header["store"]))
