"""Memory: dictionaries, changed by one thread at a time. The reference model of every engine; nothing outlives the process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec

from perdure.backends.common.checks import check_records, fits, matches
from perdure.backends.common.refusals import no_store, numbers_of
from perdure.backends.common.schema import check_index, check_migration, check_writer, read_due_cursor, write_due_cursor
from perdure.backends.memory.chain import Chain, check_keys
from perdure.backends.spi import (
    APPENDS_MAX,
    NEVER,
    SCHEMA_VERSION,
    Append,
    Appended,
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
    Refused,
    Row,
    Snapshot,
)
from perdure.clock import Clock
from perdure.concurrency.critical_section import CriticalSection
from perdure.errors import Closed, Invalid, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey, uuid7

RECORD_BYTES_MAX = 64 << 20


async def open(url: str, *, clock: Clock, create: bool = True) -> MemoryBackend:
    """A new, empty engine; without `create` there is none. Raises `Invalid` unless the URL is `memory:`, `NotFound`."""
    if url != "memory:":
        raise Invalid("This is no URL of the memory engine: write memory: and nothing more.")
    if not create:
        raise no_store(url, "a store in memory, which is new each time it is opened,")
    return MemoryBackend(clock)


_Due = tuple[int, str, str]
"""When a session is due, its tenant and its id."""


class MemoryBackend:
    """A `Backend` in this process. Safe from any thread; its methods never wait."""

    capabilities = Capabilities(
        durability=Durability.memory,
        linearizable_reads=True,
        failover_loss=None,
        atomic_batch=True,
        keys_remembered=None,
        notification=True,
        record_bytes_max=RECORD_BYTES_MAX,
        scan_orders=("id", "due"),
        shared=False,
    )
    schema = SCHEMA_VERSION

    def __init__(self, clock: Clock) -> None:
        self.store_id = uuid7(clock.now(), clock.bits(74)).hex()
        self._chains: dict[SessionKey, Chain] = {}
        self._feed: dict[int, Change] = {}
        self._due: list[_Due] = []
        """What is due, in the order of `due`."""
        self._min_writer = SCHEMA_VERSION
        self._position = 0
        self._section = CriticalSection()
        self._steps: Callable[[], None] | None = None
        """A change under way. An interrupt may leave it half done; done again, it is whole."""
        self._ears: list[Hear] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryBackend [{'closed' if self._closed else 'open'}] {len(self._chains)} sessions>"

    def _check_open(self) -> None:
        if self._closed:
            raise Closed

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        """See `spi.Backend.append`."""
        self._check_open()
        if not 1 <= len(appends) <= APPENDS_MAX:
            raise Invalid(f"One call takes 1 to {APPENDS_MAX} appends, not {len(appends)}.")
        with self._section:
            self._complete()
            self._check_writer()
            outcomes = [self._one(append) for append in appends]
        for hear in self._ears:
            for append, outcome in zip(appends, outcomes, strict=True):
                if isinstance(outcome, Appended):
                    hear(append.session, outcome.head.version)
        return outcomes

    def _check_writer(self) -> None:
        check_writer("This store in memory", SCHEMA_VERSION, self._min_writer)

    def _one(self, append: Append) -> Outcome | BaseException:
        if append.durability > self.capabilities.durability:
            return Unsupported(f"Memory reaches the durability 'memory', not {append.durability.name!r}: ask for less, or open a file.")
        chain = self._chains.get(append.session)
        head = None if chain is None else chain.head
        if chain is not None and append.key is not None and append.key in chain.keys:
            return Known(*chain.keys[append.key], chain.head)
        try:
            records = append.finish(head)
            if records is None:
                return Refused(head)
            check_records(append.session, head, records, RECORD_BYTES_MAX)
            check_index(append.session, append.index, schema=SCHEMA_VERSION)
            check_keys(append.session, chain, records)
        except Exception as error:  # noqa: BLE001 - the outcome of this append alone
            return error
        index = append.index
        if index is not None and index.tags is not None:
            index = msgspec.structs.replace(index, tags=dict(index.tags))
        position = self._position
        self._change(lambda: self._store(append.session, records, index, position))
        return Appended(records[-1].head, head, records[-1].id, Durability.memory)

    def _store(self, session: SessionKey, records: Sequence[Record], index: Index | None, position: int) -> None:
        chain = self._chains.get(session) or Chain([], {}, {}, {}, records[0].head.at)
        for place, record in enumerate(records, position + 1):
            if not chain.records or chain.records[-1].head.version < record.head.version:
                chain.records.append(record)
            self._feed[place] = Change(session, record)
            if record.key is not None:
                chain.keys[record.key] = (record.head.version, record.request)
        self._chains[session] = chain
        if index is not None:
            self._set_cells(session, chain, index)
        self._position = position + len(records)

    def _set_cells(self, session: SessionKey, chain: Chain, index: Index) -> None:
        if index.tags is not None:
            chain.tags = dict(index.tags)
        if index.control is not None:
            chain.control = index.control
        if index.size_bytes is not None:
            chain.size_bytes = index.size_bytes
        if index.due_at is not None:
            if chain.due_at is not None:
                self._end_due((chain.due_at, *session))
            chain.due_at = None if index.due_at == NEVER else index.due_at
            if chain.due_at is not None:
                self._end_due((chain.due_at, *session))
                insort(self._due, (chain.due_at, *session))

    def _end_due(self, due: _Due) -> None:
        place = bisect_left(self._due, due)
        if self._due[place : place + 1] == [due]:
            del self._due[place]

    def _change(self, steps: Callable[[], None]) -> None:
        """Take steps that come to the same when they are taken again: from here on the change counts as done."""
        self._steps = steps
        self._complete()

    def _complete(self) -> None:
        """Finish what an interrupt left half done. First in every section."""
        if self._steps is not None:
            self._steps()
            self._steps = None

    @property
    def hears(self) -> bool:
        return bool(self._ears)

    async def listen(self, hear: Hear) -> None:
        """See `spi.Notifying.listen`."""
        self._check_open()
        self._ears.append(hear)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """See `spi.Backend.heads`."""
        self._check_open()
        with self._section:
            self._complete()
            chains = [self._chains.get(session) for session in sessions]
            return [None if chain is None else chain.head for chain in chains]

    async def load(self, session: SessionKey, at: int | None = None) -> Loaded | None:
        """See `spi.Backend.load`."""
        self._check_open()
        with self._section:
            self._complete()
            chain = self._chains.get(session)
            if chain is None:
                return None
            upto = chain.head.version if at is None else at
            version = max((version for version in chain.snapshots if version <= upto), default=None)
            snapshot = None if version is None else chain.snapshots[version]
            records = chain.records[chain.after(version or 0) : chain.after(upto)]
            return Loaded(self._row(session, chain), snapshot, records)

    def _row(self, session: SessionKey, chain: Chain) -> Row:
        return Row(session, chain.head, dict(chain.tags), chain.created_at, chain.due_at, chain.control, chain.size_bytes)

    async def read(
        self, session: SessionKey, *, after: int = 0, before: int | None = None, limit: int = 256, reverse: bool = False
    ) -> Sequence[Record]:
        """See `spi.Backend.read`."""
        self._check_open()
        with self._section:
            self._complete()
            chain = self._chains.get(session)
            if chain is None:
                return []
            return chain.page(after, before, limit, reverse=reverse)

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `spi.Backend.find_key`."""
        self._check_open()
        with self._section:
            self._complete()
            chain = self._chains.get(session)
            return None if chain is None or key not in chain.keys else Known(*chain.keys[key], chain.head)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`."""
        self._check_open()
        with self._section:
            self._complete()
            self._check_writer()
            chain = self._chains.get(session)
            record = None if chain is None else chain.find(snapshot.version)
            if chain is not None and record is not None and record.head.hash == snapshot.hash:
                chain.snapshots[snapshot.version] = snapshot
                chain.size_bytes = chain.size_bytes if size_bytes is None else size_bytes

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`."""
        self._check_open()
        check_index(row.session, index, schema=SCHEMA_VERSION, alone=True)
        with self._section:
            self._complete()
            self._check_writer()
            chain = self._chains.get(row.session)
            if chain is None or (chain.head, chain.due_at) != (row.head, row.due_at):
                return False
            self._change(lambda: self._set_cells(row.session, chain, index))
            return True

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Page[Row]:
        """See `spi.Backend.scan`."""
        self._check_open()
        if query.order not in self.capabilities.scan_orders:
            raise Unsupported(f"Memory lists in the orders {' and '.join(self.capabilities.scan_orders)}, not {query.order!r}.")
        with self._section:
            self._complete()
            if query.order == "due":
                return self._scan_due(query, cursor, limit)
            rows = [
                self._row(session, chain)
                for session, chain in self._chains.items()
                if matches(query, cursor, session, chain.head, chain.tags)
            ]
        rows.sort(key=lambda row: row.session.id.encode())
        page = rows[:limit]
        return Page(page, page[-1].session.id if len(page) < len(rows) else None)

    def _scan_due(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        rows: list[Row] = []
        start = 0
        if cursor is not None:
            due_at, session = read_due_cursor(cursor)
            start = bisect_right(self._due, (due_at, *session))
        for due_at, *names in islice(self._due, start, None):
            if query.due_before is not None and due_at >= query.due_before:
                break
            session = SessionKey(*names)
            chain = self._chains[session]
            if fits(query, session, chain.head, chain.tags):
                rows.append(self._row(session, chain))
                if len(rows) == limit:
                    return Page(rows, write_due_cursor(due_at, session))
        return Page(rows, None)

    async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[Change]:
        """See `spi.Backend.feed`: each record exactly once, in the order of the appends."""
        self._check_open()
        (start,) = (0,) if cursor is None else numbers_of(cursor, 1)
        with self._section:
            self._complete()
            page = list(islice(((position, change) for position, change in self._feed.items() if position > start), limit))
        return Page([change for _, change in page], str(page[-1][0] if page else start))

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`."""
        self._check_open()
        with self._section:
            self._complete()
            self._check_writer()
            chain = self._chains.get(session)
            record = None if chain is None else chain.find(anchor[0])
            if chain is None or record is None or (record.head.hash, record.kind) != (anchor[1], Kind.anchor) or below > anchor[0]:
                raise Invalid(f"Session {session.id!r} has no anchor commit at version {anchor[0]} with this hash, or {below} is above it.")
            self._change(lambda: self._truncate(session, chain, below, snapshot=snapshot))

    def _truncate(self, session: SessionKey, chain: Chain, below: int, *, snapshot: bool) -> None:
        chain.records = chain.records[chain.after(below - 1) :]
        self._forget(session, below)
        chain.snapshots = {} if snapshot else {version: kept for version, kept in chain.snapshots.items() if version >= below - 1}

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        self._check_open()
        with self._section:
            self._complete()
            self._check_writer()
            chain = self._chains.get(session)
            if chain is None or chain.head.status != Status.deleted:
                raise Invalid(f"Session {session.id!r} is not deleted: delete it before it is purged.")
            stub = msgspec.structs.replace(chain.records[-1], body=b"")
            self._change(lambda: self._purge(session, stub, chain.created_at))

    def _purge(self, session: SessionKey, stub: Record, created_at: int) -> None:
        self._set_cells(session, self._chains[session], Index(due_at=NEVER))
        self._chains[session] = Chain([stub], {}, {}, {}, created_at)
        self._forget(session, stub.head.version)
        (last,) = (position for position, change in self._feed.items() if change.session == session)
        self._feed[last] = Change(session, stub)

    def _forget(self, session: SessionKey, below: int) -> None:
        """Take what the chain dropped out of the feed. The positions stay taken."""
        gone = [at for at, change in self._feed.items() if change.session == session and change.record.head.version < below]
        for position in gone:
            del self._feed[position]

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        self._check_open()
        with self._section:
            self._min_writer = max(self._min_writer, version)

    async def migrate(self, from_version: int, progress: Progress) -> None:  # noqa: ARG002 - there is nothing to change
        """See `spi.Versioned.migrate`. Every store in memory is new."""
        self._check_open()
        check_migration(from_version)

    async def close(self) -> None:
        """See `spi.Backend.close`. The data is gone."""
        self._closed = True
