"""The protocols of an engine: `Backend`, which every one is, and those that some are besides."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

from perdure.backends.spi.capabilities import Capabilities, Checkup
from perdure.backends.spi.rows import Append, Change, Index, Known, Loaded, Outcome, Page, Query, Row
from perdure.model.ids import SessionKey
from perdure.model.record import Head, Record, Snapshot


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
class Identified(Protocol):
    """A backend that may say which store is in its place now."""

    async def identify(self) -> str | None:
        """The id of that store, at the cost of a read; `None`: only who opens it again knows. Raises `NotFound` where there is none."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A backend whose appends go on when their caller is cancelled."""

    async def settled(self, session: SessionKey) -> None:
        """Wait until no append of this session that was handed over before is on its way. Raises `Unknown` after the engine's time-out."""
        ...


@runtime_checkable
class Spread(Protocol):
    """A backend whose appends go to several servers, of which one may be slow, or hang, while the others answer."""

    def server_of(self, session: SessionKey) -> Hashable:
        """Which server takes the next append of this session, as far as it is known now. A call with appends of one server waits for that
        one alone. Called from any thread, quick, never raises."""
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


@runtime_checkable
class Attentive(Protocol):
    """A backend whose notifications cost something, so that it is asked for no more than is watched."""

    def attend(self, what: SessionKey | str, *, watched: bool) -> None:
        """A session, or all sessions of a tenant by its name, is watched from now on, or no more. Until the first call everything is.
        Called from any thread, quick, never raises."""
        ...


@runtime_checkable
class Served(Protocol):
    """A backend that is a service: what only the engine of its nodes may decide is asked of a node, at a resource route.

    That is each write to Perdure's own sessions, and whatever moves or removes commits.
    """

    @property
    def archives(self) -> bool:
        """Whether the nodes have a place for archived commits."""
        ...

    async def first_held(self, session: SessionKey) -> int | None:
        """The version of the first record that the nodes' engine itself holds, without archived ones; `None`: it holds none."""
        ...

    async def ask(
        self,
        method: str,
        path: str,
        *,
        tenant: str,
        body: Any = None,
        key: str | None = None,
        lease: str | None = None,
        seconds: float | None = None,
        repeatable: bool = False,
    ) -> Any:
        """The JSON of a node's answer; `None` where it has none. `path` goes on from the address of a node, `body` is what JSON can say.

        `key` is an idempotency key, `lease` a grant. `seconds`: how long the answer is waited for; `None`: as the URL says. With a key, or
        `repeatable`, it is sent again where no answer came. Raises what the node says, `Unavailable` (nothing was done), `Unknown`.
        """
        ...

    def confirm(self, path: str, *, tenant: str, lease: str, ttl: float, on_loss: Callable[[], None]) -> Callable[[], None]:
        """Say that the holder of a lease is alive, thrice in each `ttl` (seconds), until the function is called that comes back.

        `on_loss` is called, from another thread, once the lease is lost, or no node could be asked for a ttl. Never raises.
        """
        ...


def served(backend: Backend) -> Served | None:
    """The backend, where it is a service."""
    return backend if isinstance(backend, Served) else None


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
