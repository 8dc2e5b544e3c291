"""SQLite: one file, one writing thread, group commit.

Condition   the records are finished inside the transaction, on heads that no other process can move (BEGIN IMMEDIATE)
Durability  local: WAL with synchronous=FULL, one sync a batch; buffered: synchronous=NORMAL, on request
Processes   several may share the file; a writer waits `busy_timeout` for the others (default 30 s), readers never wait
Errors      `schema.errors`, once; a COMMIT that failed is `Unknown`, everything before it wrote nothing
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import apsw
import msgspec

from perdure.backends.common.refusals import no_store, numbers_of
from perdure.backends.common.schema import check_index
from perdure.backends.spi import (
    APPENDS_MAX,
    NEVER,
    SCHEMA_VERSION,
    Append,
    Capabilities,
    Change,
    Durability,
    Head,
    Hear,
    Index,
    Known,
    Loaded,
    Outcome,
    Page,
    Progress,
    Query,
    Record,
    Row,
    Snapshot,
)
from perdure.backends.sqlite import due, reader
from perdure.backends.sqlite.files import Identity, OpenFiles, gone
from perdure.backends.sqlite.heads import Heads
from perdure.backends.sqlite.listener import Listener
from perdure.backends.sqlite.rows import cells
from perdure.backends.sqlite.schema import Options, connect, errors, initialise, parse_url, read_header, settled
from perdure.backends.sqlite.writer import RECORD_BYTES_MAX, BatchWriter
from perdure.clock import Clock
from perdure.concurrency.replies import Reply
from perdure.concurrency.workers import WorkerPool
from perdure.errors import Closed, Invalid, NotFound, Unavailable, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

T = TypeVar("T")

NO_CELLS = Index(due_at=NEVER, control=b"", size_bytes=0)
"""What a purge leaves of an index row."""
SNAPSHOTS_KEPT = 2
"""Newest snapshots kept of a session."""


async def open(url: str, *, clock: Clock, create: bool = True) -> SQLiteBackend:
    """Open, or with `create` make, the file that a `sqlite:///` URL names, a relative path from the folder of now.

    Raises `Invalid`, `NotFound`, `Unsupported`, `Corrupt`, `Unavailable`.
    """
    backend = SQLiteBackend(settled(parse_url(url)), clock)
    try:
        await backend.start(create=create)
    except BaseException:
        await backend.close()
        raise
    return backend


class SQLiteBackend:
    """A `Backend` on one SQLite file. Made by `open`."""

    capabilities = Capabilities(
        durability=Durability.local,
        linearizable_reads=True,
        failover_loss=None,
        atomic_batch=True,
        keys_remembered=None,
        notification=True,
        record_bytes_max=RECORD_BYTES_MAX,
        scan_orders=("id", "due"),
    )

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options = options
        self._clock = clock
        self._queued: deque[tuple[Sequence[Append], Reply[Sequence[Outcome | BaseException]]]] = deque()
        self._writing = WorkerPool("perdure-sqlite-writer", 1, self._acquire_writer, lambda writer: writer.connection.close())
        self._reading = WorkerPool("perdure-sqlite-reader", options.readers, self._acquire_reader, lambda connection: connection.close())
        self._listener = Listener(options.place, self._acquire_reader)
        self._heads = Heads()
        self._closed = self._creating = False
        self.store_id, self.schema = "", SCHEMA_VERSION
        self._file: Identity = None

    def __repr__(self) -> str:
        return f"<SQLiteBackend [{'closed' if self._closed else 'open'}] {self.options.place}>"

    async def start(self, *, create: bool = True) -> None:
        """Create or check the schema. The writing connection is opened by the first write, or to create it."""
        try:
            known = await self._read(lambda connection: read_header(connection, self.options.place))
        except NotFound:
            if not create:
                raise
            known = None
        if known is None:
            if not create:
                raise no_store(self.options.place, "the schema")
            self._creating = True
            known = await self._writing.call(lambda writer: initialise(writer.connection, self.options, self._clock))
            self._creating = False
        self.store_id, self.schema = known.id, known.schema
        if self.schema < 2:
            self.capabilities = msgspec.structs.replace(self.capabilities, scan_orders=("id",))
        self._file = OpenFiles(self.options).database

    async def settled(self, session: SessionKey) -> None:  # noqa: ARG002 - one thread writes for all sessions
        """See `spi.Settling.settled`: the writing thread has done what it was given before."""
        await self._writing.call(lambda writer: writer.place)

    def prove_with(self, check: Callable[[SessionKey, Record], bytes]) -> None:
        """See `spi.Proving.prove_with`."""
        self._heads.check = check

    async def copies(self, session: SessionKey) -> None:
        """See `spi.Proving.copies`."""
        await self._read(lambda connection: reader.copies(connection, self._heads, session, cells(self.schema)))

    def _acquire_writer(self) -> BatchWriter:
        return BatchWriter(self._connect(writing=True), self.options, self._heads, self.schema)

    def _acquire_reader(self) -> apsw.Connection:
        return self._connect(writing=False)

    def _connect(self, *, writing: bool) -> apsw.Connection:
        """Another connection to the file that was opened, not to one that has its name since."""
        try:
            connection = connect(self.options, writing=writing, create=writing and self._creating)
        except NotFound as error:
            if not self.store_id:
                raise
            raise Unavailable(gone(self.options.place)) from error
        if self.store_id and OpenFiles(self.options).database != self._file:
            connection.close()
            raise Unavailable(gone(self.options.place))
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise Closed

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        """See `spi.Backend.append`. Calls that wait while a transaction runs share the next one."""
        self._check_open()
        if not 1 <= len(appends) <= APPENDS_MAX:
            raise Invalid(f"One call takes 1 to {APPENDS_MAX} appends, not {len(appends)}.")
        call = appends, Reply[Sequence[Outcome | BaseException]]()
        try:
            self._queued.append(call)
            self._writing.post(self._drain, fail=call[1].fail)
            return await call[1]
        except BaseException:  # Cancelled or interrupted: what was not begun is not written later.
            with suppress(ValueError, IndexError):
                self._queued.remove(call)
            raise

    def _drain(self, writer: BatchWriter) -> None:
        """Write what is queued: up to `APPENDS_MAX` appends in one transaction; a call is never split over two."""
        calls: list[tuple[Sequence[Append], Reply[Sequence[Outcome | BaseException]]]] = []
        count = 0
        while self._queued and (not calls or count + len(self._queued[0][0]) <= APPENDS_MAX):
            calls.append(self._queued.popleft())
            count += len(calls[-1][0])
        if not calls:
            return
        try:
            outcomes = writer.write([append for appends, _ in calls for append in appends])
        except BaseException as error:  # noqa: BLE001 - handed to every caller of the batch
            for _, reply in calls:
                reply.fail(error)
            return
        start = 0
        for appends, reply in calls:
            reply.set(outcomes[start : start + len(appends)])
            start += len(appends)

    @property
    def hears(self) -> bool:
        return self._listener.hears

    async def listen(self, hear: Hear) -> None:
        """See `spi.Notifying.listen`."""
        self._check_open()
        await self._listener.listen(hear)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """See `spi.Backend.heads`."""
        return await self._read(lambda connection: reader.heads(connection, self._heads, sessions))

    async def load(self, session: SessionKey, at: int | None = None) -> Loaded | None:
        """See `spi.Backend.load`."""
        return await self._read(lambda connection: reader.load(connection, self._heads, session, at, cells(self.schema)))

    async def read(
        self, session: SessionKey, *, after: int = 0, before: int | None = None, limit: int = 256, reverse: bool = False
    ) -> Sequence[Record]:
        """See `spi.Backend.read`."""
        return await self._read(lambda connection: reader.read(connection, session, after, before, limit, reverse))

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `spi.Backend.find_key`."""
        self._check_open()

        def find(writer: BatchWriter) -> Known | None:
            with errors(self.options.place):
                return writer.find_key(session, key)

        return await self._writing.call(find)

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Page[Row]:
        """See `spi.Backend.scan`."""
        if query.order not in self.capabilities.scan_orders:
            raise Unsupported(f"This store lists in the orders {', '.join(self.capabilities.scan_orders)}, not {query.order!r}.")
        if query.order == "due":
            return await self._read(lambda connection: due.scan(connection, self._heads, query, cursor, limit))
        return await self._read(lambda connection: reader.scan(connection, self._heads, query, cursor, limit, cells(self.schema, "s.")))

    async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[Change]:
        """See `spi.Backend.feed`: the order of the commits in the file, each exactly once."""
        (after,) = (0,) if cursor is None else numbers_of(cursor, 1)
        return await self._read(lambda connection: reader.feed(connection, after, limit))

    async def _read(self, function: Callable[[apsw.Connection], T]) -> T:
        self._check_open()

        def guarded(connection: apsw.Connection) -> T:
            with errors(self.options.place):
                return function(connection)

        return await self._reading.call(guarded)

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`."""
        check_index(row.session, index, schema=self.schema, alone=True)
        changed = False

        def change(writer: BatchWriter) -> None:
            nonlocal changed
            changed = due.change(writer, row, index)

        await self._write(change)
        return changed

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`; the newest `SNAPSHOTS_KEPT` are kept."""
        size = Index(size_bytes=size_bytes)
        check_index(session, size, schema=self.schema)

        def put(writer: BatchWriter) -> None:
            n, connection = writer.place(session).n, writer.connection
            if connection.execute("SELECT hash FROM log WHERE n = ? AND version = ?", (n, snapshot.version)).get != snapshot.hash:
                return
            kept = (n, snapshot.version, snapshot.hash, snapshot.body)
            connection.execute("INSERT OR REPLACE INTO snapshot (n, version, hash, body) VALUES (?, ?, ?, ?)", kept)
            connection.execute(
                "DELETE FROM snapshot WHERE n = ?1 AND version NOT IN "
                "(SELECT version FROM snapshot WHERE n = ?1 ORDER BY version DESC LIMIT ?2)",
                (n, SNAPSHOTS_KEPT),
            )
            writer.set_cells(n, size)

        await self._write(put)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`."""

        def truncate(writer: BatchWriter) -> None:
            n, connection = writer.place(session).n, writer.connection
            row = connection.execute("SELECT hash, kind FROM log WHERE n = ? AND version = ?", (n, anchor[0])).fetchone()
            if row != (anchor[1], int(Kind.anchor)) or below > anchor[0]:
                raise Invalid(f"Session {session.id!r} has no anchor commit at version {anchor[0]} with this hash, or {below} is above it.")
            connection.execute("DELETE FROM log WHERE n = ? AND version < ?", (n, below))
            connection.execute("DELETE FROM snapshot WHERE n = ? AND (version < ? OR ?)", (n, below - 1, snapshot))

        await self._write(truncate)

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""

        def purge(writer: BatchWriter) -> None:
            place, connection = writer.place(session), writer.connection
            if place.head is None or place.head.status != Status.deleted:
                raise Invalid(f"Session {session.id!r} is not deleted: delete it before it is purged.")
            connection.execute("DELETE FROM log WHERE n = ? AND version < ?", (place.n, place.head.version))
            connection.execute("UPDATE log SET body = x'' WHERE n = ?", (place.n,))
            connection.execute("UPDATE session SET tags = '{}' WHERE n = ?", (place.n,))
            writer.set_cells(place.n, NO_CELLS)
            for table in ("snapshot", "key"):
                connection.execute(f"DELETE FROM {table} WHERE n = ?", (place.n,))
            connection.execute("DELETE FROM tag WHERE tenant = ? AND id = ?", session)

        await self._write(purge)
        await self._writing.call(lambda writer: writer.fold_log())

    async def _write(self, change: Callable[[BatchWriter], None]) -> None:
        await self._call(lambda writer: writer.transact(change))

    async def _call(self, work: Callable[[BatchWriter], None]) -> None:
        self._check_open()

        def guarded(writer: BatchWriter) -> None:
            with errors(self.options.place):
                work(writer)

        await self._writing.call(guarded)

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await self._call(lambda writer: writer.require_writer(version))

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`: one transaction."""
        await self._call(lambda writer: writer.migrate(from_version, progress))

    def _end(self, _: None) -> None:
        self._listener.close()
        self._writing.close()
        self._reading.close()

    async def close(self) -> None:
        """See `spi.Backend.close`. The last process that closes the file folds the write-ahead log into it."""
        self._closed = True
        closing = WorkerPool[None]("perdure-sqlite-close", 1, lambda: None, lambda _: None)
        await closing.call(self._end)
        closing.close()
