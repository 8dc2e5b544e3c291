"""Reads from etcd: ranges of keys, pinned to one revision where several belong to one moment."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.backends.common.checks import LOOKED_MAX, selects
from perdure.backends.common.pages import RecordPage
from perdure.backends.common.refusals import numbers_of
from perdure.backends.etcd import layout
from perdure.backends.etcd.due import scan_due
from perdure.backends.etcd.gateway import Compacted, Gateway, Json, data, get, items, prefix_end
from perdure.backends.etcd.layout import Layout, row_gone
from perdure.backends.spi import Change, Head, Known, Loaded, Page, Query, Record, Row, Snapshot
from perdure.errors import Corrupt, Unavailable
from perdure.model.ids import SessionKey

TAIL = 64
"""Records that a load fetches at once in the hope that the snapshot is not further back."""
FETCHED = 256
"""Most records that a read fetches at once."""
SCANNED = 256
"""Index rows fetched at once while listing."""


class Reader:
    """The reading half of the driver."""

    def __init__(self, gateway: Gateway, keys: Layout) -> None:
        self._gateway, self._keys = gateway, keys

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """The heads, 128 sessions a round trip."""
        found: list[Head | None] = []
        for start in range(0, len(sessions), 128):
            requests = [get(self._keys.of(b"h", session)) for session in sessions[start : start + 128]]
            answer = await self._gateway.txn([], requests, writes=False)
            for response in answer["responses"]:
                found += [layout.decode_head(item) for item in items(response)] or [None]
        return found

    def newest(self, session: SessionKey) -> Json:
        """The request for a session's newest record."""
        return get(self._keys.of(b"r", session), prefix_end(self._keys.of(b"r", session)), limit=1, descend=True)

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """One round trip while the snapshot is no further back than `TAIL` records; else one more for each further page."""
        while True:
            try:
                return await self._load(session, at)
            except Compacted:
                continue  # The moment was compacted away between two pages: look at a newer one.

    async def _load(self, session: SessionKey, at: int | None) -> Loaded | None:
        keys = self._keys
        upto = prefix_end(keys.of(b"r", session)) if at is None else keys.at(b"r", session, at + 1)
        snapshots = prefix_end(keys.of(b"s", session)) if at is None else keys.at(b"s", session, at + 1)
        answer = await self._gateway.txn(
            [],
            [
                get(keys.of(b"h", session)),
                get(keys.of(b"i", session)),
                get(keys.of(b"s", session), snapshots, limit=1, descend=True),
                get(keys.of(b"r", session), upto, limit=TAIL, descend=True),
            ],
            writes=False,
        )
        heads, index, found, tail = map(items, answer["responses"])
        if not heads:
            return None
        if not index:
            raise row_gone(session)
        row = layout.decode_index(index[0]).row(session, layout.decode_head(heads[0]))
        snapshot = await self._snapshot(session, found[0]) if found else None
        start = keys.at(b"r", session, snapshot.version + 1 if snapshot else 0)
        revision, page = int(answer["header"]["revision"]), tail
        while len(page) >= TAIL and data(page[-1], "key") > start:
            more = await self._gateway.range(
                key=start, end=data(page[-1], "key"), limit=max(TAIL, len(page)), descend=True, revision=revision
            )
            page = items(more)
            tail = tail + page
        records = [await self._record(session, item) for item in reversed(tail) if data(item, "key") >= start]
        return Loaded(row, snapshot, records)

    async def _snapshot(self, session: SessionKey, item: Json) -> Snapshot:
        version = layout.version_of(item)
        hash, chunks, body = layout.decode_snapshot(item)
        if chunks:
            body = await self._whole(session, str(version), chunks)
        return Snapshot(version, hash, body)

    async def _record(self, session: SessionKey, item: Json) -> Record:
        record, chunks = layout.decode_record(item)
        if not chunks:
            return record
        return msgspec.structs.replace(record, body=await self._whole(session, record.id.hex(), chunks))

    async def _whole(self, session: SessionKey, name: str, chunks: int) -> bytes:
        prefix = self._keys.chunks(session, name)
        parts: list[bytes] = []
        while len(parts) < chunks:
            page = items(await self._gateway.range(key=prefix + b"%04x" % len(parts), end=prefix_end(prefix), limit=16))
            if not page:
                raise Corrupt(f"Chunk {len(parts)} of {name} of session {session.id!r} is gone from etcd.", session=session.id)
            parts += [data(item, "value") for item in page]
        return b"".join(parts)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """A page; as many records a round trip as the sizes seen so far promise to be small."""
        keys = self._keys
        first = keys.at(b"r", session, after + 1)
        last = prefix_end(keys.of(b"r", session)) if before is None else keys.at(b"r", session, before)
        page = RecordPage[Record](limit)
        while not page.full and first < last:
            wanted = page.room(FETCHED if page.records else TAIL)
            found = items(await self._gateway.range(key=first, end=last, limit=wanted, descend=reverse))
            for item in found:
                if page.add(await self._record(session, item)):
                    return page.records
            if len(found) < wanted:
                break
            if reverse:
                last = data(found[-1], "key")
            else:
                first = data(found[-1], "key") + b"\0"
        return page.records

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """One round trip."""
        answer = await self._gateway.txn([], [get(self._keys.key(session, key)), get(self._keys.of(b"h", session))], writes=False)
        found, heads = map(items, answer["responses"])
        return Known(*layout.decode_key(found[0]), layout.decode_head(heads[0])) if found and heads else None

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By id, or what is due."""
        return await (
            scan_due(self._gateway, self._keys, query, cursor, limit) if query.order == "due" else self._by_id(query, cursor, limit)
        )

    async def _by_id(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By id; tags and status are looked at row by row, etcd has no other index, at most about `LOOKED_MAX` rows a page."""
        keys, rows = self._keys, list[Row]()
        looked = 0
        start = keys.rows(b"", query.one_tenant, query.prefix)
        end = prefix_end(start)
        if cursor is not None:
            start = max(start, keys.of(b"", SessionKey(query.one_tenant, cursor)) + b"\0")
        slot = len(keys.all(b"")) - 1
        heads, index, more = [], [], True

        def kind(key: bytes, letter: bytes) -> bytes:
            return key[:slot] + letter + key[slot:]

        while more:
            ranges = [get(kind(start, letter), kind(end, letter), limit=SCANNED) for letter in (b"h", b"i")]
            heads, index = map(items, (await self._gateway.txn([], ranges, writes=False))["responses"])
            more = len(heads) == SCANNED
            for head, rest in zip(heads, index, strict=False):
                session = keys.session(head)
                if session != keys.session(rest):
                    raise row_gone(session)
                row = layout.decode_index(rest).row(session, layout.decode_head(head))
                if selects(query, row.head, row.tags):
                    rows.append(row)
                    if len(rows) == limit:
                        return Page(rows, session.id)
                start = keys.of(b"", session) + b"\0"
            looked += len(heads)
            if more and looked >= LOOKED_MAX:
                return Page(rows, keys.session(heads[-1]).id)
        return Page(rows, None)

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """In the order of etcd's revisions, a revision's records together. etcd looks through all records for it."""
        (last,) = (0,) if cursor is None else numbers_of(cursor, 1)
        found = await self._since(last + 1, limit)
        if len(found) == limit:
            newest = int(found[-1]["mod_revision"])
            whole = [item for item in found if int(item["mod_revision"]) < newest]
            found = whole or await self._since(newest, 0, newest)
        found.sort(key=lambda item: (int(item["mod_revision"]), data(item, "key")))
        changes = []
        for item in found:
            session = self._keys.session(item)
            changes.append(Change(session, await self._record(session, item)))
        return Page(changes, found[-1]["mod_revision"] if found else str(last))

    async def _since(self, revision: int, limit: int, newest: int = 0) -> list[Json]:
        start = self._keys.all(b"r")
        request = get(start, prefix_end(start), limit=limit)["request_range"]
        request |= {"min_mod_revision": str(revision), "sort_target": "MOD"}
        if newest:
            request["max_mod_revision"] = str(newest)
        try:
            return items(await self._gateway.call("kv/range", request))
        except Compacted as error:
            raise Unavailable(f"etcd compacted while it was read: {error}.") from error
