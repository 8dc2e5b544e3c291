"""The driver: appends, snapshots and removals as etcd transactions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.pieces import cut
from perdure.backends.common.refusals import check_anchor, check_deleted, check_snapshot_size, head_differs, key_applied_twice, no_anchor
from perdure.backends.common.upgrade import require_writer, upgrade
from perdure.backends.etcd import layout
from perdure.backends.etcd.checkup import QUORUM, checkup
from perdure.backends.etcd.due import moved
from perdure.backends.etcd.gateway import Gateway, Json, absent, data, delete, get, holds, items, nested, prefix_end, put, unchanged
from perdure.backends.etcd.header import GuardedHeader
from perdure.backends.etcd.layout import IndexCells, Layout, row_gone
from perdure.backends.etcd.notifications import notices
from perdure.backends.etcd.reader import FETCHED, Reader
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Notice, Stored
from perdure.backends.spi import NEVER, Capabilities, Checkup, Durability, Head, Index, Known, Progress, Record, Row, Snapshot
from perdure.clock import Clock
from perdure.errors import Error, Unavailable
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 16 << 20
CHUNK = 256 << 10
"""Bytes of a body in one value; larger ones are cut."""
BATCH_BYTES = 900 << 10
"""About how many bytes go in one transaction: etcd takes 1.5 MiB."""
REQUEST_BYTES = 256
"""About how much a request weighs beside its value."""
ROW_TRIES = 16
"""How often a change of an index row is tried again when another changed the row meanwhile."""
_NOTHING = Index({}, due_at=NEVER, control=b"", size_bytes=0)
Rows = Mapping[SessionKey, Json | None]
"""The items of index rows, by session; `None` where there is none."""


class _Moved(NamedTuple):
    """Nothing was stored: the index row that the attempt was made for is another now, this one."""

    row: Json | None


class EtcdDriver(Reader):
    """A `Driver` on one cluster."""

    lanes = 2
    batch_max = 64

    def __init__(self, gateway: Gateway, keys: Layout) -> None:
        super().__init__(gateway, keys)
        self.gateway = gateway
        self._header = GuardedHeader(gateway, keys.meta)
        self.store_id = ""
        self.schema = 0

    async def start(self, clock: Clock, place: str, *, create: bool = True) -> None:
        """Read the store's id and the cluster's size; make the store where there is none, or without `create` raise `NotFound`."""
        header = await self._header.open(place, clock, create=create)
        self.store_id, self.schema = header.id, header.schema
        self._clock = clock
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
            scan_orders=("id", "due") if self.schema >= 2 else ("id",),
        )

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`. One round trip while all fits in one transaction, else several, each by itself; one more before, where
        index rows change, and one after for appends that lost a race for their index row."""
        rows = await self._stored_rows([attempt.session for attempt in attempts if attempt.expected is not None and _cells(attempt)])
        answers = await self._write(attempts, rows)
        for _ in range(ROW_TRIES):
            places = [place for place, answer in enumerate(answers) if isinstance(answer, _Moved)]
            if not places:
                break
            rows = {attempts[place].session: moved.row for place in places if isinstance(moved := answers[place], _Moved)}
            for place, answer in zip(places, await self._write([attempts[place] for place in places], rows), strict=True):
                answers[place] = answer
        return [_final(attempt, answer) for attempt, answer in zip(attempts, answers, strict=True)]

    async def _write(self, attempts: Sequence[Attempt], rows: Rows) -> list[Answer | _Moved]:
        requests = [await self._attempt(attempt, rows) for attempt in attempts]
        answers: list[Answer | _Moved] = []
        while len(answers) < len(attempts):
            batch: list[Json] = []
            size = 0
            for request, weight in requests[len(answers) :]:
                if batch and size + weight > BATCH_BYTES:
                    break
                batch.append(request)
                size += weight
            try:
                answers += await self._send(attempts[len(answers) : len(answers) + len(batch)], batch, rows)
            except Error as error:
                answers += [error] * len(batch)
        return answers

    async def _stored_rows(self, sessions: Sequence[SessionKey]) -> dict[SessionKey, Json | None]:
        """The index rows' items, as they are now."""
        if not sessions:
            return {}
        requests = [get(self._keys.of(b"i", session)) for session in sessions]
        answer = await self.gateway.txn([], requests, writes=False)
        return {session: _first(response) for session, response in zip(sessions, answer["responses"], strict=True)}

    async def _attempt(self, attempt: Attempt, rows: Rows) -> tuple[Json, int]:
        keys, session, head = self._keys, attempt.session, self._keys.of(b"h", attempt.session)
        compare = [absent(head) if attempt.expected is None else holds(head, layout.encode_head(attempt.expected))]
        success, failure = [put(head, layout.encode_head(attempt.records[-1].head))], [get(head), self.newest(session)]
        for record in attempt.records:
            value = await self._record_value(session, record)
            success.append(put(keys.at(b"r", session, record.head.version), value))
            if record.key is not None:
                compare.append(absent(keys.key(session, record.key)))
                success.append(put(keys.key(session, record.key), layout.encode_key(record.head.version, record.request)))
        if attempt.key is not None:
            failure.append(get(keys.key(session, attempt.key)))
            if all(record.key != attempt.key for record in attempt.records):
                compare.append(absent(keys.key(session, attempt.key)))
        if attempt.expected is None:
            row = IndexCells(attempt.records[0].head.at, {})
            success += self._put_row(session, row, row.changed(attempt.index), new=True)
        elif _cells(attempt):
            before = rows[session]
            row = IndexCells(0, {}) if before is None else layout.decode_index(before)
            compare.append(_is_still(keys.of(b"i", session), before))
            failure.append(get(keys.of(b"i", session)))
            success += self._put_row(session, row, row.changed(attempt.index))
        return nested(compare, success, failure), sum(map(_weight, success))

    def _put_row(self, session: SessionKey, before: IndexCells, after: IndexCells, *, new: bool = False) -> list[Json]:
        """The requests that make an index row another, and the keys of what is due with it."""
        if before == after and not new:
            return []
        return [put(self._keys.of(b"i", session), layout.encode_index(after)), *moved(self._keys, session, before.due_at, after.due_at)]

    async def _record_value(self, session: SessionKey, record: Record) -> bytes:
        if len(record.body) <= CHUNK:
            return layout.encode_record(record, record.body, 0)
        return layout.encode_record(record, b"", await self._cut(session, record.id.hex(), record.body))

    async def _cut(self, session: SessionKey, name: str, body: bytes) -> int:
        """Write a body in chunks, under a name that nothing refers to yet; how many there are. A second time changes nothing."""
        prefix, chunks = self._keys.chunks(session, name), cut(body, CHUNK)
        for number, chunk in enumerate(chunks):
            await self._header.write([put(prefix + b"%04x" % number, chunk)])
        return len(chunks)

    async def _send(self, attempts: Sequence[Attempt], batch: Sequence[Json], rows: Rows) -> list[Answer | _Moved]:
        answers = await self._header.write(batch)
        return [self._answered(attempt, answer["response_txn"], rows) for attempt, answer in zip(attempts, answers, strict=True)]

    def _answered(self, attempt: Attempt, response: Json, rows: Rows) -> Answer | _Moved:
        try:
            return self._answer(attempt, response, rows)
        except Error as error:
            return error

    def _answer(self, attempt: Attempt, response: Json, rows: Rows) -> Answer | _Moved:
        if response.get("succeeded"):
            return Stored(self.durability_read)
        found = [_first(answer) for answer in response["responses"]]
        head = None if found[0] is None else layout.decode_head(found[0])
        if head is not None and (found[1] is None or layout.decode_record(found[1])[0].head != head):
            raise head_differs(attempt.session)
        known = found[2] if attempt.key is not None else None
        if known is not None and head is not None:
            return Known(*layout.decode_key(known), head)
        if head != attempt.expected:
            return HeadMismatch(head, proven=True)
        if attempt.session in rows and _value(found[-1]) != _value(rows[attempt.session]):
            return _Moved(found[-1])
        return key_applied_twice(attempt.session)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`."""
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
        answer = await self._header.decide(
            [unchanged(record, int(found[0]["mod_revision"]))], [put(keys.at(b"s", session, snapshot.version), value), *old[:100]]
        )
        if answer.get("succeeded") and size_bytes is not None:
            await self._change_row(session, lambda row, _: row.changed(Index(size_bytes=size_bytes)))

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`: the row is read, then changed where it and the head are as they were."""

        def change(cells: IndexCells, head: Head) -> IndexCells | None:
            return cells.changed(index) if (head, cells.due_at) == (row.head, row.due_at) else None

        return await self._change_row(row.session, change)

    async def _change_row(self, session: SessionKey, change: Callable[[IndexCells, Head], IndexCells | None]) -> bool:
        """Make an index row what `change` makes of it beside its head, as of one moment; false where it makes nothing, or there is none."""
        head_key, row_key = self._keys.of(b"h", session), self._keys.of(b"i", session)
        both = [get(head_key), get(row_key)]
        answers = (await self.gateway.txn([], both, writes=False))["responses"]
        for _ in range(ROW_TRIES):
            head, row = map(_first, answers)
            if head is None or row is None:
                return False
            before = layout.decode_index(row)
            after = change(before, layout.decode_head(head))
            if after is None:
                return False
            compare = [_is_still(head_key, head), _is_still(row_key, row)]
            answer = await self._header.decide(compare, self._put_row(session, before, after), both)
            if answer.get("succeeded"):
                return True
            answers = answer["responses"]
        raise _contended(session)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`. Chunks of dropped records go afterwards, when nothing refers to them."""
        await self._header.check()
        keys = self._keys
        record, stored = keys.at(b"r", session, anchor[0]), keys.of(b"s", session)
        kept = prefix_end(stored) if snapshot else keys.at(b"s", session, max(below - 1, 0))
        answer = await self.gateway.txn([], [get(record), get(stored, kept, keys_only=True)], writes=False)
        found, snapshots = map(items, answer["responses"])
        check_anchor(session, layout.decode_record(found[0])[0] if found else None, below, anchor)
        cut_names = await self._cut_names(session, below)
        gone = [keys.chunks(session, str(layout.version_of(item))) for item in snapshots]
        answer = await self._header.decide(
            [unchanged(record, int(found[0]["mod_revision"]))],
            [
                delete(keys.of(b"r", session), keys.at(b"r", session, below)),
                delete(stored, kept),
                *[delete(prefix, prefix_end(prefix)) for prefix in gone[:100]],
            ],
        )
        if not answer.get("succeeded"):
            raise no_anchor(session, below, anchor)
        for name in cut_names:
            prefix = keys.chunks(session, name)
            await self._header.write([delete(prefix, prefix_end(prefix))])

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
        await self._header.check()
        keys = self._keys
        head_key, row_key = keys.of(b"h", session), keys.of(b"i", session)
        for _ in range(ROW_TRIES):
            both = await self.gateway.txn([], [get(head_key), get(row_key)], writes=False)
            found, row = map(_first, both["responses"])
            head = check_deleted(session, None if found is None else layout.decode_head(found))
            if row is None:
                raise row_gone(session)
            last = keys.at(b"r", session, head.version)
            (item,) = items(await self.gateway.range(key=last))
            stub = msgspec.structs.replace(layout.decode_record(item)[0], body=b"")
            before = layout.decode_index(row)
            removed = [delete(keys.of(kind, session), prefix_end(keys.of(kind, session))) for kind in (b"k", b"s", b"c")]
            answer = await self._header.decide(
                [_is_still(head_key, found), _is_still(row_key, row)],
                [
                    *removed,
                    delete(keys.of(b"r", session), last),
                    put(last, layout.encode_record(stub, b"", 0)),
                    *self._put_row(session, before, before.changed(_NOTHING)),
                ],
            )
            if answer.get("succeeded"):
                return
        raise _contended(session)

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await require_writer(self._header, version)

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`. Rows take the cells of schema 2 when they are written, so nothing but the header changes."""
        await upgrade(self._header, from_version, [], progress)

    def notices(self) -> AsyncGenerator[Notice, None]:
        """See `remote.NotificationSource`."""
        return notices(self.gateway, self._keys)

    async def checkup(self) -> Checkup:
        """See `remote.Driver.checkup`."""
        return await checkup(self.gateway)

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self.gateway.close()


def _first(answer: Json) -> Json | None:
    """What a request for one key found."""
    return next(iter(items(answer)), None)


def _weight(request: Json) -> int:
    """About how many bytes a request takes in etcd, where values are not in base64."""
    return REQUEST_BYTES + len(request.get("request_put", {}).get("value", "")) * 3 // 4


def _value(item: Json | None) -> bytes | None:
    return None if item is None else data(item, "value")


def _is_still(key: bytes, item: Json | None) -> Json:
    """The comparison: the key has the value that was read."""
    return absent(key) if item is None else holds(key, data(item, "value"))


def _cells(attempt: Attempt) -> bool:
    """Whether an attempt changes cells of the index row."""
    return attempt.index is not None and attempt.index != Index()


def _contended(session: SessionKey) -> Unavailable:
    return Unavailable(f"The index row of session {session.id!r} changes too often to be changed once more: try again later.")


def _final(attempt: Attempt, answer: Answer | _Moved) -> Answer:
    return _contended(attempt.session) if isinstance(answer, _Moved) else answer
