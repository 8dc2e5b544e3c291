"""The smallest engine that passes every case of the kit: stores in this process, each under a name: `toy:NAME`.

docs/architecture.md adds it to the package step by step, and a test follows the page. What a store holds is gone with the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from threading import Lock
from uuid import uuid4

import msgspec

from perdure.backends.common.checks import matches
from perdure.backends.common.pages import one_page, version_range
from perdure.backends.common.refusals import bad_cursor, check_anchor, check_deleted, no_store
from perdure.backends.remote import Answer, Attempt, HeadMismatch, RemoteBackend, Stored, open_remote
from perdure.backends.spi import Capabilities, Change, Checkup, Durability, Head, Known, Loaded, Page, Query, Record, Row, Snapshot
from perdure.clock import Clock
from perdure.errors import Invalid
from perdure.model.ids import SessionKey


class Chain(msgspec.Struct):
    """One session, as a server would keep it."""

    records: list[Record] = []
    keys: dict[str, tuple[int, bytes]] = {}
    tags: dict[str, str] = {}
    created_at: int = 0
    snapshot: Snapshot | None = None


class Server:
    """One named store: its sessions, and all records in the order in which they came."""

    def __init__(self) -> None:
        self.id, self.chains, self.lock = uuid4().hex, dict[SessionKey, Chain](), Lock()
        self.log, self.numbers = dict[int, Change](), count(1)


SERVERS: dict[str, Server] = {}


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """The engine of one name. Raises `Invalid` without a name, `NotFound` where nothing has it and `create` is false."""
    name = url.removeprefix("toy:")
    if not name:
        raise Invalid("A URL of the toy engine needs a name: write toy:NAME.")
    if not create and name not in SERVERS:
        raise no_store(url, "the name")

    async def connect() -> ToyDriver:
        return ToyDriver(SERVERS.setdefault(name, Server()))

    return await open_remote(connect, place=url, timeout=10)


class ToyDriver:
    """See `remote.Driver`. A real one sends each of these to its server, as one request."""

    capabilities = Capabilities(
        durability=Durability.memory, linearizable_reads=True, failover_loss=None, atomic_batch=False, keys_remembered=None,
        notification=False, record_bytes_max=64 << 20,
    )  # fmt: skip
    lanes, batch_max, durability_read = 1, 64, Durability.memory

    def __init__(self, server: Server) -> None:
        self._server, self.store_id = server, server.id

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        with self._server.lock:
            return [self._write(attempt) for attempt in attempts]

    def _write(self, attempt: Attempt) -> Answer:
        chain = self._server.chains.get(attempt.session, Chain())
        head = chain.records[-1].head if chain.records else None
        if attempt.key in chain.keys and head:
            return Known(*chain.keys[attempt.key], head)
        if head != attempt.expected:
            return HeadMismatch(head)
        chain.keys |= {record.key: (record.head.version, record.request) for record in attempt.records if record.key}
        chain.created_at = chain.created_at or attempt.records[0].head.at
        if attempt.index is not None and attempt.index.tags is not None:
            chain.tags = dict(attempt.index.tags)
        chain.records.extend(attempt.records)
        self._server.chains[attempt.session] = chain
        self._server.log |= {next(self._server.numbers): Change(attempt.session, record) for record in attempt.records}
        return Stored(Durability.memory)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        return [self._head(session) for session in sessions]

    def _head(self, session: SessionKey) -> Head | None:
        chain = self._server.chains.get(session)
        return chain.records[-1].head if chain else None

    def _row(self, session: SessionKey) -> Row | None:
        chain = self._server.chains.get(session)
        return Row(session, chain.records[-1].head, chain.tags, chain.created_at) if chain else None

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        row = self._row(session)
        if row is None:
            return None
        chain, end = self._server.chains[session], row.head.version if at is None else at
        kept = chain.snapshot if chain.snapshot and chain.snapshot.version <= end else None
        first, last = version_range(kept.version if kept else 0, end + 1)
        return Loaded(row, kept, [record for record in chain.records if first <= record.head.version <= last])

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[Record]:
        chain = self._server.chains.get(session, Chain())
        first, last = version_range(after, before)
        found = [record for record in chain.records if first <= record.head.version <= last]
        return one_page(reversed(found) if reverse else found, limit)

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        chain = self._server.chains.get(session, Chain())
        return Known(*chain.keys[key], chain.records[-1].head) if key in chain.keys else None

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        chain = self._server.chains.get(session, Chain())
        if any((record.head.version, record.head.hash) == (snapshot.version, snapshot.hash) for record in chain.records):
            chain.snapshot = snapshot

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        tenant = query.one_tenant
        sessions = sorted((session for session in self._server.chains if session.tenant == tenant), key=lambda key: key.id.encode())
        rows = (row for session in sessions if (row := self._row(session)) is not None)
        found = [row for row in rows if matches(query, cursor, row.session, row.head, row.tags)]
        return Page(found[:limit], found[limit - 1].session.id if len(found) > limit else None)

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        if cursor is not None and not cursor.isdecimal():
            raise bad_cursor(cursor)
        with self._server.lock:
            found = [(number, change) for number, change in self._server.log.items() if number > int(cursor or 0)][:limit]
        return Page([change for _, change in found], str(found[-1][0]) if found else cursor or "0")

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes]) -> None:
        with self._server.lock:
            chain = self._server.chains.get(session, Chain())
            check_anchor(session, next((record for record in chain.records if record.head.version == anchor[0]), None), below, anchor)
            self._drop(session, [record for record in chain.records if record.head.version >= below])

    async def purge(self, session: SessionKey) -> None:
        with self._server.lock:
            check_deleted(session, self._head(session))
            chain = self._server.chains[session]
            self._drop(session, [msgspec.structs.replace(chain.records[-1], body=b"", key=None, request=b"")])
            chain.keys, chain.tags, chain.snapshot = {}, {}, None

    def _drop(self, session: SessionKey, kept: list[Record]) -> None:
        """Leave these records of a session, in its chain and in the log."""
        self._server.chains[session].records = kept
        left = {record.head.version: Change(session, record) for record in kept}
        for number, change in list(self._server.log.items()):
            if change.session == session:
                version = change.record.head.version
                if version in left:
                    self._server.log[number] = left[version]
                else:
                    del self._server.log[number]

    async def checkup(self) -> Checkup:
        return Checkup({"server": "a dictionary"}, [])

    async def close(self) -> None:
        """The data stay: other handles are on them."""
