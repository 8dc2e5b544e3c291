"""The specification of every engine: a chain per session, one conditional write, and reads in one round trip.

A backend stores finished records and never looks inside them. All truth about a session's head is in `Head`; a record
carries the head that it makes, so a backend copies those fields and decides nothing.

Vocabulary
    head        the newest record's position and standing; the condition of every append
    finish      the engine's pure function from a head to the records that follow it. A backend calls it where the head
                is certain (inside its transaction), or on the head it last saw and again after a lost race
    durability  how safe a write is on return, see `Durability`

Threads and loops: every method may be called from any event loop, and from a thread without one (the calls then block:
see `concurrency.replies`). Cancelling an `append` leaves each session appended or not; read the heads back before sending anything else.

Errors: only `perdure.errors`. `Unavailable` means that nothing was written, `Unknown` that it may have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from perdure.errors import Unsupported
from perdure.model.control import CONTROL_BYTES_MAX
from perdure.model.ids import SessionKey
from perdure.model.record import Durability, Head, Record, Snapshot

__all__ = [
    "APPENDS_MAX",
    "CONTROL_BYTES_MAX",
    "Append",
    "Appended",
    "Backend",
    "Capabilities",
    "Change",
    "Checkup",
    "Durability",
    "Examined",
    "Finding",
    "Head",
    "Hear",
    "Index",
    "Known",
    "Loaded",
    "Notifying",
    "Outcome",
    "Page",
    "Proving",
    "Query",
    "Record",
    "Refused",
    "Row",
    "Settling",
    "Snapshot",
]

T = TypeVar("T")

APPENDS_MAX = 256
"""Most appends in one call."""
SCHEMA_VERSION = 2
"""The schema of a store that is made now. An older store opens and works; `perdure upgrade` changes it, and `open` never does."""
NEVER = -1
"""As `Index.due_at`: the session is not due any more."""


class Index(msgspec.Struct, frozen=True):
    """A change to the cells of a session's index row. `None` leaves a cell as it is.

    The cells after `tags` are there from schema 2 on. An engine stores them and decides nothing by them, but for the order `due`. On a
    store of schema 1 a value for one of them is refused with `Unsupported`; a removal changes nothing there and is not refused.
    """

    tags: Mapping[str, str] | None = None
    """All tags; `{}` removes them."""
    due_at: int | None = None
    """When somebody should look at the session, in nanoseconds since 1970; `NEVER` removes it."""
    control: bytes | None = None
    """Bytes that are opaque to the engine, at most `CONTROL_BYTES_MAX`; `b""` removes them."""
    size_bytes: int | None = None
    """About how many bytes the session's records take; 0: not known."""

    @property
    def needs_schema_2(self) -> bool:
        """Whether this sets a cell that a store of schema 1 does not have."""
        return self.due_at not in (None, NEVER) or bool(self.control) or bool(self.size_bytes)


class Append(msgspec.Struct, frozen=True):
    """One session's part of an `append`.

    `finish(head)` is pure and quick; `head` is `None` for a session that has no record. It returns the records to store,
    the first at `head.version + 1` (a new chain may start anywhere), or `None` to refuse this head. `key` is looked up, in
    everything up to the head, before `finish` is called.
    """

    session: SessionKey
    finish: Callable[[Head | None], Sequence[Record] | None]
    key: str | None = None
    index: Index | None = None
    durability: Durability = Durability.memory
    """The least level asked for."""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The records are stored; `head` is what they made and `previous` the head before them."""

    head: Head
    previous: Head | None
    id: bytes
    durability: Durability


class Refused(msgspec.Struct, frozen=True, gc=False):
    """`finish` refused this head; nothing of this append was stored."""

    head: Head | None


class Known(msgspec.Struct, frozen=True, gc=False):
    """The key was applied before, at `version`, for the request with this digest; nothing was stored now."""

    version: int
    request: bytes
    head: Head


Outcome = Appended | Refused | Known


class Row(msgspec.Struct, frozen=True):
    """A session's index row. `created_at` is the first record's time in nanoseconds; the cells after it are those of `Index`."""

    session: SessionKey
    head: Head
    tags: Mapping[str, str]
    created_at: int
    due_at: int | None = None
    """`None`: not due."""
    control: bytes = b""
    """`b""`: there is none."""
    size_bytes: int = 0
    """0: not known."""


class Loaded(msgspec.Struct, frozen=True):
    """What one round trip knows of a session: its index row, the newest snapshot at or below the version asked for, and
    the records after that snapshot (all of them, when there is none) up to that version."""

    row: Row
    snapshot: Snapshot | None
    records: Sequence[Record]


class Query(msgspec.Struct, frozen=True):
    """Which index rows `scan` returns: all conditions must hold. `status` of `None` is everything but deleted and moved.

    order   id: by the bytes of the id, one tenant's; due: rows that have a `due_at`, by (`due_at`, tenant, id)
    tenant  `None` is every tenant, and asks for the order `due`: `Unsupported` in another
    """

    tenant: str | None
    prefix: str = ""
    tags: Mapping[str, str] = {}
    status: int | None = None
    order: str = "id"
    due_before: int | None = None
    """Rows with a smaller `due_at` only; asks for the order `due`: `Unsupported` in another."""

    @property
    def one_tenant(self) -> str:
        """The tenant, for an order that lists one. Raises `Unsupported` where the query asks for every one, or for what is due."""
        if self.tenant is None or self.due_before is not None:
            raise Unsupported(f"A listing of every tenant, or of what is due, is in the order 'due', not {self.order!r}.")
        return self.tenant


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some results and the cursor of the next page; `None` at the end."""

    items: Sequence[T]
    cursor: str | None


class Change(msgspec.Struct, frozen=True, gc=False):
    """One record of `feed`, with the session that it belongs to."""

    session: SessionKey
    record: Record


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can do: declared, and checked by the conformance kit."""

    durability: Durability
    """The strongest level it can reach."""
    linearizable_reads: bool
    """A read that starts after an append returned sees it, from any process."""
    failover_loss: Durability | None
    """Writes acknowledged at this level or below may be lost by a failover; `None`: there is no failover."""
    atomic_batch: bool
    """All sessions of one `append` call become visible at once."""
    keys_remembered: int | None
    """How many newest idempotency keys of a session are known; `None`: all, for ever."""
    notification: bool
    """It notifies of new records without being asked again and again: it is `Notifying`."""
    record_bytes_max: int
    """Largest `meta` plus `body` it takes as one record."""
    scan_orders: tuple[str, ...] = ("id",)
    """The orders of `scan`. With `"due"` the store has schema 2: it is `Indexed`, and takes every cell of `Index`."""
    batched: bool = True
    """Appends of one call share a transaction or a round trip. Where each is a write of its own, each is handed over by itself, so that
    none waits for the slowest."""
    shared: bool = True
    """Several processes can open the same data at once."""
    read_proves: Durability | None = None
    """The level that a commit has for certain when a read has shown it; `None`: the strongest."""
    min_writer_seconds: float = 0.0
    """How long a writer may go by what it knew of the store's `min_writer`. 0: each write compares it."""

    def proven(self, asked: Durability) -> Durability:
        """What a receipt may say of a commit that a read has shown, when this level was asked for."""
        return min(asked, self.durability, self.durability if self.read_proves is None else self.read_proves)


class Finding(NamedTuple):
    """Something about a server that is wrong, or may become so."""

    level: Literal["bad", "warning"]
    """bad: commits can be lost or refused; warning: worth knowing."""
    code: str
    """The `code` of the error that it is or would become."""
    what: str
    """What is wrong, as one sentence."""
    mend: str
    """What to do about it."""


class Checkup(NamedTuple):
    """What a server says of itself."""

    facts: Mapping[str, str]
    """By short names, as a person reads them: `{"server": "PostgreSQL 18.1", "fsync": "on"}`."""
    findings: Sequence[Finding]


@runtime_checkable
class Examined(Protocol):
    """A backend that can say what weakens it: `perdure doctor` asks. Not every backend does."""

    async def checkup(self) -> Checkup:
        """Ask the server. Reads only."""
        ...


@runtime_checkable
class Proving(Protocol):
    """A backend that keeps columns beside what is hashed, and compares the two before such a copy decides anything."""

    def prove_with(self, check: Callable[[SessionKey, Record], bytes]) -> None:
        """From now on `check` says whether a record is as it was written: raises `Corrupt`, or gives the hash that the record follows."""
        ...

    async def copies(self, session: SessionKey) -> None:
        """Compare every column of this session that is a copy with what it is a copy of. Raises `Corrupt`."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A backend whose appends go on when their caller is cancelled."""

    async def settled(self, session: SessionKey) -> None:
        """Wait until no append of this session that was handed over before is on its way. Raises `Unknown` after the engine's time-out."""
        ...


@runtime_checkable
class Indexed(Protocol):
    """A backend whose index rows have the cells of schema 2. It is meant only while `"due"` is one of its `scan_orders`."""

    async def change_index(self, row: Row, index: Index) -> bool:
        """Change cells of the index row without a commit, if the session's head and `due_at` are still those of `row`.

        False: they are not, or there is no such session; nothing was changed. One round trip, atomic, and no news for anyone: neither the
        feed nor who listens hears of it. The row is durable as an append of the level `local` is. `index.tags` is none of its business:
        `Invalid`, as for what `check_index` refuses. After `Unknown`, read the row again.
        """
        ...

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `Backend.put_snapshot`. Where the snapshot is kept and `size_bytes` is given, it becomes that of the index row: in the same
        transaction where that costs nothing, else soon after."""
        ...

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `Backend.truncate`. With `snapshot` every snapshot of the session goes too, also those at and above `below`; the index row
        and the keys stay."""
        ...


def indexed(backend: Backend) -> Indexed | None:
    """The backend, where its index rows have the cells of schema 2."""
    return backend if "due" in backend.capabilities.scan_orders and isinstance(backend, Indexed) else None


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0: not known). From any thread, quick, never raises."""


@runtime_checkable
class Versioned(Protocol):
    """A backend whose stores have a schema version, and refuse writers that are too old for what they hold.

    A handle writes what the schema that it opened asks of it; that is its writer version. `min_writer` stands in the store's header. Each
    write (append, `change_index`, snapshot, truncation, purge) compares it where that costs no round trip, or goes by what it read within
    the last `Capabilities.min_writer_seconds`. A writer below it is refused with `Unsupported`, and nothing is written. Reads go on.
    """

    @property
    def schema(self) -> int:
        """The schema of this store when it was opened; 0 where the engine has no versions, and nothing to upgrade."""
        ...

    async def require_writer(self, version: int) -> None:
        """From now on refuse writers below this version, in every process. It never falls: a smaller number changes nothing."""
        ...

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """Change the store from this schema to the next one. Meant to be run while nothing else uses the store.

        Takes a lock: raises `Busy` while another migration works. Requires the new writer version first, so that a handle of the old schema
        that is still open cannot write any more, and says the new schema last. A kill at any point leaves a store that reads the same, and
        that a further `migrate` finishes. Returns at once where the store has a newer schema already. Afterwards, close this handle and
        open the store again: until then it writes nothing. Raises `Invalid` for a version that it does not migrate from.
        """
        ...


Hear = Callable[[SessionKey | None, int], None]
"""Called when a session has a record of this version; `None`: some may have gone unheard. Called from any thread, quick, never raises."""


@runtime_checkable
class Notifying(Protocol):
    """A backend that notifies of new records. A notification is a hint: it may come late, twice or never; the chain alone is true."""

    @property
    def hears(self) -> bool:
        """Whether it would be notified of a record that is stored now. While it is not, watchers have to poll."""
        ...

    async def listen(self, hear: Hear) -> None:
        """From its return until `close`, call `hear` soon after anyone, in any process, stored records; when the engine was away, once it
        is back, with `None`. A broken connection is made again by itself.

        Called once; a call that was cancelled may be made again, with the same `hear`. Returns when it hears, or when the time-outs
        are over. Raises `Unsupported` where `capabilities.notification` is false.
        """
        ...


class Backend(Protocol):
    """One open engine. Every method is atomic and may be cancelled; see the module for what holds for all of them."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def store_id(self) -> str:
        """The identity of the data, made when it was first initialised and kept for ever."""
        ...

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        """Add records after each session's head, where `finish` accepts that head.

        Atomic per session: all its records, its key and its index change, or none of them. Sessions of one call share a
        transaction or a round trip where the engine can; one that lost its race does not stop the others. A session may
        come several times: its appends are tried in order. Outcomes come in the order of `appends`; what `finish` raised
        is an outcome too. Durable on return to the level that the outcome names.

        Limits: 1 to 256 appends. Raises `Unavailable` (nothing was written), `Unknown` (it may have been).
        """
        ...

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """The sessions' heads, in order, `None` where there is no record. One round trip."""
        ...

    async def load(self, session: SessionKey, at: int | None = None) -> Loaded | None:
        """Newest snapshot at or below version `at` (default: the head) and the records after it up to `at`, as of one moment.

        `None` if the session has no record. One round trip. A snapshot is offered only while the commit it belongs to is
        still in the chain with the same hash, or below its first record.
        """
        ...

    async def read(
        self, session: SessionKey, *, after: int = 0, before: int | None = None, limit: int = 256, reverse: bool = False
    ) -> Sequence[Record]:
        """Records with `after < version < before`, oldest first, or newest first with `reverse`.

        At most `limit` of them and about 4 MiB, yet at least one where there is one: ask again behind the last. Empty when
        there is none, and for an unknown session.
        """
        ...

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """Where this idempotency key was applied, if it was (with the session's head)."""
        ...

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        """Keep this snapshot if its commit is in the chain with that hash, or silently not. Older snapshots may go."""
        ...

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Page[Row]:
        """Index rows in the query's order, a page at a time. A session that is there from first page to last is seen exactly once."""
        ...

    async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[Change]:
        """All tenants' records in the engine's own order, from the start or behind a cursor, each at least once; one session's
        records in version order. At the end, the page is empty and its cursor is the one to poll with later."""
        ...

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes]) -> None:
        """Drop records with a version lower than `below` and the snapshots there; idempotency keys stay known.

        Refused with `Invalid` unless record (version, hash) `anchor` is in the chain, is an anchor commit, and `below` is not
        above its version.
        """
        ...

    async def purge(self, session: SessionKey) -> None:
        """Drop all of a deleted session but its head's stub (position, hash, status; an empty body), for ever.

        Refused with `Invalid` unless the head's status is deleted. A late write meets the stub.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed over, then let go of every thread, task, socket and file. Calling it twice is calling it once."""
        ...
