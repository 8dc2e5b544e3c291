"""The blocking API: `perdure.open` and `Store` without `await`, safe from many threads.

Made by scripts/make_sync.py from engine/store: change that, then run it. Do not edit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self, TypeVar, cast, overload

from msgspec import UNSET, UnsetType

from perdure.backends.spi import Capabilities, Durability
from perdure.clock import Clock
from perdure.codec.upcast import Upcaster
from perdure.concurrency.replies import run_blocking
from perdure.engine import opening as _opening
from perdure.engine import store as _async
from perdure.engine.calls.edit import Edit as _AsyncEdit
from perdure.engine.calls.enqueue import Queued as _AsyncQueued
from perdure.engine.leasing.lease import Lease as _AsyncLease
from perdure.engine.leasing.lease import Leasing as _AsyncLeasing
from perdure.engine.leasing.lease_end import LeaseEnd as _AsyncLeaseEnd
from perdure.engine.unentered import Blocking
from perdure.engine.views import Archived, CacheInfo, Change, Info, LeaseInfo, Policy, Receipt, Sizes, Spooled, Verified, View
from perdure.engine.write.drafts import Draft
from perdure.model.commit import Commit, Status
from perdure.model.events import Event
from perdure.model.policy import OnConflict

T = TypeVar("T")

__all__ = ["Edit", "Lease", "LeaseEnd", "Leasing", "Queued", "Store", "open"]


def _iterate(items: AsyncIterator[T]) -> Iterator[T]:
    try:
        while True:
            try:
                item: T = run_blocking(items.__anext__())  # type: ignore[arg-type]
            except StopAsyncIteration:
                return
            yield item
    finally:
        run_blocking(items.aclose())  # type: ignore[attr-defined]


class Edit(Blocking):
    """`with store.edit(...) as draft`: loads the session, commits at the end of the block, once."""

    _right = "with store.edit(...) as draft"

    def __init__(self, edit: _AsyncEdit) -> None:
        self._edit = edit

    def __enter__(self) -> Draft:
        return run_blocking(self._edit.__aenter__())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        run_blocking(self._edit.__aexit__(kind, error, trace))


class LeaseEnd:
    """See `perdure.LeaseEnd`."""

    def __init__(self, lost: _AsyncLeaseEnd) -> None:
        self._lost = lost

    def __repr__(self) -> str:
        return repr(self._lost)

    def is_set(self) -> bool:
        """Whether the lease has ended, as far as this process knows. Nothing is asked: see `Lease.confirm`."""
        return self._lost.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most (`None`: as long as it takes); whether it is."""
        return run_blocking(self._lost.wait(timeout))


class Lease:
    """A session that is held, blocking: see `perdure.Lease`. Safe from any thread."""

    def __init__(self, lease: _AsyncLease) -> None:
        self._lease = lease
        self.lost = LeaseEnd(lease.lost)

    def __repr__(self) -> str:
        return repr(self._lease)

    @property
    def session(self) -> str:
        """The session's id."""
        return self._lease.session

    @property
    def owner(self) -> str:
        """Who holds it, in the words of `store.lease`."""
        return self._lease.owner

    @property
    def ttl(self) -> float:
        """Seconds for which a challenge has to stand unanswered before somebody else may take the lease."""
        return self._lease.ttl

    @property
    def exclusive(self) -> bool:
        """Whether writes that are not made under the lease are `Fenced`."""
        return self._lease.exclusive

    @property
    def token(self) -> int:
        """The fencing token: see `perdure.Lease.token`."""
        return self._lease.token

    @property
    def grant(self) -> str:
        """By which another process goes on with it: see `perdure.Lease.grant`."""
        return self._lease.grant

    def confirm(self) -> None:
        """Ask the engine whether the lease still holds: see `perdure.Lease.confirm`."""
        run_blocking(self._lease.confirm())

    def release(self) -> None:
        """Let go, so that others need not wait: see `perdure.Lease.release`."""
        run_blocking(self._lease.release())


class Leasing(Blocking):
    """`with store.lease(...) as lease`: waits for the lease, and lets go of it at the end of the block."""

    _right = "with store.lease(...) as lease"

    def __init__(self, leasing: _AsyncLeasing) -> None:
        self._leasing = leasing

    def __enter__(self) -> Lease:
        return Lease(run_blocking(self._leasing.__aenter__()))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        run_blocking(self._leasing.__aexit__(kind, error, trace))


def _asynchronous(lease: Lease | None) -> Any:
    """The lease that the asynchronous store took; what is no lease is refused there."""
    return lease._lease if isinstance(lease, Lease) else lease


class Queued:
    """A write that lies in the spool: see `perdure.Queued`."""

    def __init__(self, queued: _AsyncQueued) -> None:
        self._queued = queued

    def __repr__(self) -> str:
        return repr(self._queued)

    @property
    def session(self) -> str:
        """The session that it is a write to."""
        return self._queued.session

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return self._queued.key

    @property
    def duplicate(self) -> bool:
        """Whether an earlier `enqueue` with this key had stored it."""
        return self._queued.duplicate

    def receipt(self, *, timeout: float | None = None) -> Receipt:
        """The receipt of its commit, once the store has it: see `perdure.Queued.receipt`."""
        return run_blocking(self._queued.receipt(timeout=timeout))


class Store:
    """Sessions of one tenant, blocking. Made by `perdure.sync.open`; safe from any thread."""

    def __init__(self, store: _async.Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return repr(self._store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def asynchronous(self) -> _async.Store:
        """The same store with the asynchronous API; both may be used at once."""
        return self._store

    @property
    def id(self) -> str:
        """The identity of the data, made when it was initialised."""
        return self._store.id

    @property
    def tenant(self) -> str:
        """Whose sessions these are."""
        return self._store.tenant

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._store.capabilities

    def for_tenant(self, tenant: str) -> Store:
        """The same store, for another tenant's sessions. Closing one closes both."""
        return Store(self._store.for_tenant(tenant))

    def new_id(self) -> str:
        """A fresh session id: a UUIDv7."""
        return self._store.new_id()

    def cache_info(self) -> CacheInfo:
        """What is in memory, of all tenants, and how often that was enough; and what the shared cache did."""
        return self._store.cache_info()

    def close(self) -> Spooled | None:
        """Finish what was handed over and let go of every file and thread. Calling it twice is calling it once.

        Returns what is left in the spool, which is shipped when a store is opened with it again; `None` without a spool.
        """
        return run_blocking(self._store.close())

    def append(
        self,
        session: str,
        *events: Event,
        expect: int | str | None = None,
        key: str | None = None,
        actor: str | None = None,
        on_conflict: OnConflict = "merge",
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
        lease: Lease | None = None,
    ) -> Receipt:
        """Append one commit with these events; starts the session if there is none. One round trip.

        `expect`: `None` whatever the head is; `0` the session must not exist (`AlreadyExists`); `n` the version on which you
        decided: what others committed since is merged or refused, as `on_conflict` says. The `token` of a `View` stands for its version,
        and for its very commit: `Rewound` where that is not in the chain. `key`: an idempotency key; a second call with it gets the first
        one's receipt. `actor`: who did it, for the audit. `durability`: the least level the receipt may name. `recreate`: go on from the
        tombstone of a deleted session. `create=False` makes a missing session `NotFound`. `lease`: only while this lease holds the session,
        else `Fenced`; no further round trip.

        Atomic: all events or none. Raises `Conflict`, `Busy`, `Invalid`, `KeyReused`, `AlreadyExists`, `Deleted`, `Fenced`, `TooLarge`,
        `Rewound`, `Unknown`, `Unavailable`.
        """
        return run_blocking(
            self._store.append(
                session,
                *events,
                expect=expect,
                key=key,
                actor=actor,
                on_conflict=on_conflict,
                durability=durability,
                recreate=recreate,
                create=create,
                lease=_asynchronous(lease),
            )
        )

    def enqueue(self, session: str, *events: Event, expect: int | None = None, key: str | None = None, actor: str | None = None) -> Queued:
        """Append events later: they are stored in the spool now, synced to the local disk, and shipped in order. No round trip.

        For stores opened with `spool=`. What is queued for a session is shipped in the order in which it was enqueued, exactly once, also
        after restarts and by another process; a failed write parks the later ones of its session. It is meant for the life of the session
        that this store knows of, and fails in another. Operations are applied to whatever state there is then, and reads do not see them
        before; `expect` is refused, for nobody knows the version. `key`: an idempotency key, made where it is left out.

        Atomic: all events or none. Raises `QuotaExceeded` when the spool is full (`spool_bytes`), `Invalid`, `KeyReused`, `TooLarge`,
        `Unavailable`, `Unknown`.
        """
        return Queued(run_blocking(self._store.enqueue(session, *events, expect=expect, key=key, actor=actor)))

    def queued(self, session: str, key: str) -> Queued:
        """A write that was enqueued with this key, here or by another process with the same spool: ask it for its `receipt`."""
        return Queued(self._store.queued(session, key))

    def flush(self, *, timeout: float = 60.0) -> Spooled:
        """Wait until everything that is queued now was shipped, so many seconds at most; what the spool holds then."""
        return run_blocking(self._store.flush(timeout=timeout))

    def find(self, session: str, key: str, *, include_deleted: bool = False) -> Receipt | None:
        """The receipt of the commit that this idempotency key was applied by (`duplicate` is true), or `None`. One or two round trips.

        Keys end with the life of the session that used them; `include_deleted` finds those too.
        """
        return run_blocking(self._store.find(session, key, include_deleted=include_deleted))

    def edit(
        self,
        session: str,
        *,
        expect: int | str | None = None,
        key: str | None = None,
        actor: str | None = None,
        on_conflict: OnConflict = "merge",
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
        payload: Any = None,
        lease: Lease | None = None,
    ) -> Edit:
        """`with store.edit(id) as draft`: change `draft.state` as dicts and lists; the block's end is one commit.

        By default writes are merged, not reads: your operations are carried over what others committed meanwhile, or
        `Conflict`. `draft.require(path)` or `on_conflict="raise"` makes it strict. An exception in the block writes nothing; an
        edit that changes nothing writes nothing. Options as in `append`. `payload`: a JSON value that stands for what is asked; a call that
        repeats `key` with another one is `KeyReused`. It is not stored.
        """
        return Edit(
            self._store.edit(
                session,
                expect=expect,
                key=key,
                actor=actor,
                on_conflict=on_conflict,
                durability=durability,
                recreate=recreate,
                create=create,
                payload=payload,
                lease=_asynchronous(lease),
            )
        )

    def update(
        self,
        session: str,
        function: Callable[[Draft], Any],
        *,
        expect: int | str | None = None,
        key: str | None = None,
        actor: str | None = None,
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
        attempts: int = 16,
        payload: Any = None,
        lease: Lease | None = None,
    ) -> tuple[Receipt | None, Any]:
        """Run `function(draft)` and commit on the very state it saw, again on the new state while others win: serializable.

        Returns the receipt (`None` when it changed nothing) and what the function returned (`None` when `key` was applied
        before: the function is not run). The function may run several times: keep side effects
        out of it. From the second time on other writes of this process to the session wait for it, for a second. `payload` as in `edit`.
        Raises `Busy` after `attempts` lost races, and as `append`.
        """
        return run_blocking(
            self._store.update(
                session,
                function,
                expect=expect,
                key=key,
                actor=actor,
                durability=durability,
                recreate=recreate,
                create=create,
                attempts=attempts,
                payload=payload,
                lease=_asynchronous(lease),
            )
        )

    def fork(self, session: str, *, at: int | None = None, id: str | None = None, key: str | None = None, actor: str | None = None) -> str:
        """A new session that goes on from this one at a version (default: the head); its id. The cost does not grow with history.

        `key`: an idempotency key of this session; a second call with it gets the id of the first one's fork, and finishes it where that
        was cut off. Raises `NotFound`, `Deleted`, `KeyReused`, `AlreadyExists` when `id` is taken.
        """
        return run_blocking(self._store.fork(session, at=at, id=id, key=key, actor=actor))

    def merge(
        self,
        session: str,
        *,
        into: str,
        on_conflict: OnConflict = "raise",
        key: str | None = None,
        actor: str | None = None,
        durability: Durability | str | None = None,
        lease: Lease | None = None,
    ) -> Receipt | None:
        """Carry what a fork did since it was made (or last merged) into its parent, as one commit; `None` if there is nothing.

        What both changed in ways that do not combine raises `Conflict` (with "raise" and with "merge"), or is decided by a
        callable. Histories stay apart: the merge commit names the fork's version and hash. `lease` is one of `into`. Raises `Invalid` if it
        is no fork of `into`, and `Fenced`.
        """
        return run_blocking(
            self._store.merge(
                session, into=into, on_conflict=on_conflict, key=key, actor=actor, durability=durability, lease=_asynchronous(lease)
            )
        )

    def read(
        self,
        session: str,
        *,
        at: int | datetime | None = None,
        consistency: Literal["strong", "eventual"] = "strong",
        max_staleness: float | None = None,
        at_least: str | None = None,
        include_deleted: bool = False,
    ) -> View:
        """The session's state at its head, at a version, or at a time (the last version not later; an aware datetime).

        `strong` sees every commit acknowledged before the call, by any process. `eventual` answers from memory where this process knew
        the state to be the newest within the last `max_staleness` seconds (default and most: the setting `cache_ttl`), by its own
        monotonic clock; else it looks at the head. It never answers with less than this store has acknowledged, or shown by `read`,
        `history` or `watch`.
        `at_least` is the `token` of a `View`, of any process: an answer that would be older looks at the head first.
        `include_deleted` reads a deleted session, and with `at` what was before a deletion, for audit.
        Raises `NotFound`, `Deleted`, `Truncated`, `Invalid`, and `Rewound` where the chain has lost the token's commit.
        """
        return run_blocking(
            self._store.read(
                session, at=at, consistency=consistency, max_staleness=max_staleness, at_least=at_least, include_deleted=include_deleted
            )
        )

    def token(self, session: str) -> str:
        """The token of the session's newest version, as `View.token`, without its state. One round trip. Raises `NotFound`, `Deleted`."""
        return run_blocking(self._store.token(session))

    def history(
        self,
        session: str,
        *,
        after: int = 0,
        before: int | None = None,
        types: Collection[str] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        include_deleted: bool = False,
        control: bool = False,
    ) -> Iterator[Commit]:
        """The session's commits with `after < version < before`, checked link by link, through forks to their parents.

        Those of its present life; `include_deleted` gives all that are left, of a deleted session too, for audit. `types` keeps the
        commits that have an event of one of these types, and of their events only those. `control` gives the commits of leases too, which
        are left out else. `limit` counts commits. Read a page at a time. Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`.
        """
        return _iterate(
            self._store.history(
                session,
                after=after,
                before=before,
                types=types,
                newest_first=newest_first,
                limit=limit,
                include_deleted=include_deleted,
                control=control,
            )
        )

    @overload
    def watch(
        self, session: str, *, after: int = 0, types: Collection[str] | None = None, include_deleted: bool = False, control: bool = False
    ) -> Iterator[Commit]: ...

    @overload
    def watch(
        self,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        after: str | None = None,
        types: Collection[str] | None = None,
        control: bool = False,
    ) -> Iterator[Change]: ...

    def watch(
        self,
        session: str | None = None,
        *,
        after: int | str | None = 0,
        types: Collection[str] | None = None,
        include_deleted: bool = False,
        control: bool = False,
        prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Commit] | Iterator[Change]:
        """The session's commits with a version above `after`, then those to come as they come, by whomever they are written.

        Nothing is skipped and nothing comes twice: go on later with `after=` the last version seen. Begins with the session's present
        life and ends after its tombstone (`include_deleted`: neither); break off whenever you like. `types` and `control` as in
        `history`. Waits out an engine that is away, for `watch_outage` seconds.

        With `prefix` or `tags` in place of a session it gives `Change`s of every session whose id begins so and that has these tags: the
        same as `changes`, with a cursor as `after`.

        Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`, `Unavailable`, `Closed`, and `Rewound` when the store has lost what was seen.
        """
        return _iterate(
            cast("Any", self._store).watch(
                session, after=after, types=types, include_deleted=include_deleted, control=control, prefix=prefix, tags=tags
            )
        )

    def changes(
        self,
        *,
        after: str | None = None,
        types: Collection[str] | None = None,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        control: bool = False,
        follow: bool = True,
    ) -> Iterator[Change]:
        """The commits of every session of this tenant, from the start or after a cursor, then those to come; each with a cursor to go on.

        At least once: one session's commits come in the order of their versions, and some may come again after a cursor was taken up: also
        all that the archive has of a session, where some of it may have gone there unread.
        Between sessions there is no promised order. Deleted sessions are among them up to their tombstone; of a purged one only the
        tombstone is left. With `follow=False` it ends when there are no more.

        `types` as in `history` (a deletion is an event of the type "deleted"). `prefix`: ids that begin so. `tags`: sessions that have them
        when their commits are read here; every tombstone of a session whose tags are not known any more comes too. `control`: lease commits
        too. Go on with the same choice. The engine's feed has all tenants' commits, and those of others are passed over.

        Waits out an engine that is away, for `watch_outage` seconds. Raises `Invalid` for a cursor of another store or tenant, `Rewound`
        when the store has lost commits that were seen, `Truncated` (with a `cursor` to go on without them) when commits were truncated
        before they were read, or may have been, `Corrupt`, `Unavailable`, `Closed`.
        """
        return _iterate(self._store.changes(after=after, types=types, prefix=prefix, tags=tags, control=control, follow=follow))

    def list(
        self,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        status: Status | str | None = None,
        updated_after: datetime | None = None,
        updated_before: datetime | None = None,
        order: str = "id",
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Iterator[Info]:
        """This tenant's sessions by id prefix, tags (all must match), status (default: all but deleted and moved) and the time of their
        newest commit (aware datetimes, both exclusive; looked at row by row on every engine).

        Go on after the last id seen by passing it as `cursor`. Raises `Invalid`, `Unsupported` for an order the engine lacks.
        """
        return _iterate(
            self._store.list(
                prefix=prefix,
                tags=tags,
                status=status,
                updated_after=updated_after,
                updated_before=updated_before,
                order=order,
                limit=limit,
                cursor=cursor,
            )
        )

    def verify(self, session: str) -> Verified:
        """Prove the session: each commit's hash and place, and each snapshot against the fold. Reads everything.

        Works on deleted sessions too. Raises `Corrupt` naming what is wrong, `NotFound`.
        """
        return run_blocking(self._store.verify(session))

    def sizes(self, session: str, *, parts: int = 20, include_deleted: bool = False) -> Sizes:
        """Where the session's bytes are: its state, with at most `parts` of its heaviest parts, its snapshot, its commits and its bodies
        out of line. Reads all records, and no body that it does not have to fold. Raises `NotFound`, `Deleted`, `Invalid`.
        """
        return run_blocking(self._store.sizes(session, parts=parts, include_deleted=include_deleted))

    def lease(
        self, session: str, *, owner: str, ttl: float = 30, wait: float = 60, exclusive: bool = False, max_hold: float | None = None
    ) -> Leasing:
        """`with store.lease(id, owner="worker-7") as lease`: hold the session while the block runs; pass `lease=` to what is written.

        A write under a lease that was lost is `Fenced`, on every engine, whatever the clocks say. `owner`: who holds it, for people. `ttl`:
        seconds (3, or 10 on an engine that does not notify, to a day) for which a holder may be silent before one that waits takes over;
        a thread of the store answers for the block, even where it blocks. `wait`: seconds to wait for another holder, then `Held`; 0
        writes nothing where the session is held. `exclusive`: what others write without the lease (data, merges, tags) is `Fenced` too.
        `max_hold`: seconds after which the lease is released, whatever the block does. A session that does not exist is started, with the
        take as its first commit. While nobody competes, nothing more is written.

        Raises, on entry, `Held`, `Deleted`, `Invalid`, `Unsupported`, `Busy`, `Unavailable`, `Unknown`.
        """
        return Leasing(self._store.lease(session, owner=owner, ttl=ttl, wait=wait, exclusive=exclusive, max_hold=max_hold))

    def adopt(self, session: str, grant: str) -> Lease:
        """A lease that was taken elsewhere, by its `grant`: from now on writes here can be made under it, with `lease=`. Two round trips.

        For processes that serve a holder by turns, such as the nodes of the session service. Challenges of it are answered here for half a
        ttl, and again so long after each `adopt`: who calls this says that the holder is alive. It is released by `lease.release()`, here
        or elsewhere. Raises `Fenced` where it no longer holds the session, `Invalid`.
        """
        return Lease(run_blocking(self._store.adopt(session, grant)))

    def claim(
        self,
        *,
        owner: str,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        ttl: float = 30,
        limit: int | None = None,
        exclusive: bool = False,
    ) -> Iterator[Lease]:
        """`async for lease in store.claim(owner="worker-7")`: sessions whose alarm is due, set with `wake="claim"`, each to one worker.

        Ends when nothing is due any more, or after `limit` sessions: call it again after a pause. Each session is held while the loop's
        body runs: pass `lease=` to what is written. The next turn of the loop releases it. With that its alarm is used up, and the next one
        of `wake_every` stands; an alarm that was set meanwhile stays. Where the body raises, or breaks before `lease.release()`, or the
        worker dies, the session stays due: so work is done at least once. A session that somebody else holds is passed over, and its holder
        is asked whether it is alive. Sessions by id prefix and tags (all must match); what was due first comes first, by this machine's
        clock.

        Raises `Invalid`, `Unsupported` on a store of schema 1, `Busy`, `Unavailable`, `Unknown`.
        """
        return map(Lease, _iterate(self._store.claim(owner=owner, prefix=prefix, tags=tags, ttl=ttl, limit=limit, exclusive=exclusive)))

    def take_due(
        self,
        *,
        owner: str,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        ttl: float = 30,
        limit: int | None = None,
        exclusive: bool = False,
    ) -> Iterator[Lease]:
        """As `claim`, but each lease stays taken until the caller releases it, here or, with `adopt`, in another process: its session
        is due again where that does not happen. For processes that hand work to others. Raises as `claim`."""
        return map(Lease, _iterate(self._store.take_due(owner=owner, prefix=prefix, tags=tags, ttl=ttl, limit=limit, exclusive=exclusive)))

    def leases(self, *, prefix: str = "") -> Iterator[LeaseInfo]:
        """Who holds which of this tenant's sessions, ordered by session, from the index rows: all of them with this prefix are read."""
        return _iterate(self._store.leases(prefix=prefix))

    def break_lease(self, session: str, *, actor: str | None = None) -> LeaseInfo | None:
        """Take a lease from its holder by force: what it writes from now on is `Fenced`, and the session is free. Whose lease it was, or
        `None` where nobody held it. A commit says that `actor` did it. Raises `NotFound`, `Deleted`."""
        return run_blocking(self._store.break_lease(session, actor=actor))

    def configure(
        self,
        session: str | None = None,
        *,
        prefix: str | None = None,
        expire_after: timedelta | float | UnsetType | None = UNSET,
        archive_after: timedelta | float | UnsetType | None = UNSET,
        wake_at: datetime | UnsetType | None = UNSET,
        wake_every: timedelta | float | UnsetType | None = UNSET,
        wake: Literal["sweep", "claim"] | UnsetType | None = UNSET,
        keep: timedelta | int | UnsetType | None = UNSET,
        drop: bool | UnsetType | None = UNSET,
        grace: timedelta | float | UnsetType | None = UNSET,
        tags: Mapping[str, str] | UnsetType | None = UNSET,
        key: str | None = None,
        actor: str | None = None,
        lease: Lease | None = None,
    ) -> Receipt:
        """Set a session's tags, and what is to become of it by itself, which `perdure sweep` then does. What is left out stays as it is;
        `None` removes. Durations: a `timedelta` or seconds, from 1 second to 100 years. One commit.

        `tags`: all of them, in place of those it had; they are indexed, see `list`. `expire_after`: so long after its last data commit the
        session is deleted, and after `grace` (7 days) purged. `wake_at`, an aware datetime, and `wake_every`: when it is woken, by a commit
        with the event `woken`; `wake="claim"` leaves that to a worker that claims it. `keep`: the age, as a `timedelta`, or the number of
        the commits that it keeps; with `drop=True` older ones are removed, without it they go to the archive. `archive_after`: so long
        after its last data commit all of the session goes there, and its next write brings it back. Both need `open(archive=...)`.

        With `prefix` in place of the session: what this tenant's sessions begin with whose ids begin so. Writers learn it within 30
        seconds, and a sweeper gives it to sessions that were started meanwhile. Older ones stay as they are: see `perdure sweep
        --existing`. The longest prefix decides; `tags` and `wake_at` are a session's own.

        `key` and `lease` as in `append`; the key of a prefix's policy is its own. Raises `NotFound`, `Deleted`, `Fenced`, `Invalid`,
        `KeyReused`, `Busy`, and `Unsupported` where the engine, or the store's schema, has no place for it.
        """
        return run_blocking(
            self._store.configure(
                session,
                prefix=prefix,
                expire_after=expire_after,
                archive_after=archive_after,
                wake_at=wake_at,
                wake_every=wake_every,
                wake=wake,
                keep=keep,
                drop=drop,
                grace=grace,
                tags=tags,
                key=key,
                actor=actor,
                lease=_asynchronous(lease),
            )
        )

    def policy(self, session: str | None = None, *, prefix: str | None = None) -> Policy:
        """What is to become of a session by itself, or of those that begin with a prefix: what `configure` set. Strongly consistent.

        Raises `NotFound`, `Deleted`, `Invalid`.
        """
        return run_blocking(self._store.policy(session, prefix=prefix))

    def delete(self, session: str, *, key: str | None = None, actor: str | None = None) -> Receipt:
        """Close the session with a tombstone: later calls raise `Deleted`, a late writer too; versions never start again.

        Its keys, history, forks and watches end here for ordinary calls, and its tags. Its commits stay in the store until
        `purge`. Its lease ends too. `key`: an idempotency key; a second call with it gets the first one's receipt, also in a later life of
        the session, which it does not end. Raises `NotFound`, `Deleted`, `KeyReused`.
        """
        return run_blocking(self._store.delete(session, key=key, actor=actor))

    def archive(self, session: str, *, actor: str | None = None) -> Archived:
        """Move all of a session to the store's archive: only its index row, its idempotency keys and one commit stay in the engine.

        `read`, `history`, `find` and `fork` go on as before, through the archive. The first write restores the session by itself. Nothing
        happens where it is archived already. A crash at any point leaves the session whole; the next call goes on with it.
        Raises `NotFound`, `Deleted`, `Busy` while somebody writes to the session or holds its lease, or a consumer has not read it
        (`error.consumers` names them), `Unsupported` without `open(archive=...)`, `Unavailable`, and `Corrupt` for a segment that does not
        read as it was written.
        """
        return run_blocking(self._store.archive(session, actor=actor))

    def restore(self, session: str, *, actor: str | None = None) -> bool:
        """Make an archived session live again, as its first write does; whether it was archived. Its older commits stay in the archive.

        Raises `NotFound`, `Deleted`, `Unsupported` without `open(archive=...)`, `Unavailable`, and `Corrupt` for a segment that is missing
        or damaged.
        """
        return run_blocking(self._store.restore(session, actor=actor))

    def compact(self, session: str, *, keep: int | timedelta, drop: bool = False, actor: str | None = None) -> Archived:
        """Move commits to the archive but for the newest: so many, or those of so long a time. With `drop` they go for good.

        What is in the archive reads as before. What was dropped is `Truncated`; the state at the head stays, and idempotency keys stay
        known. What is in the archive already is dropped once all of it is older. `drop` is refused with `Invalid` while a fork reads its
        past from this session. Nothing happens where there is nothing older.
        Raises as `archive`, and `Invalid` for a negative `keep`.
        """
        return run_blocking(self._store.compact(session, keep=keep, drop=drop, actor=actor))

    def purge(self, session: str) -> None:
        """Remove all bytes of a deleted session, of every life it had, but a stub: its id, and the tombstone's version, hash and time.

        The stub keeps the id dead and refuses late writers; `recreate=True` goes on from it. What may remain elsewhere (free pages,
        backups, replicas, the server's logs) is in the docs of each engine. Raises `NotFound`, and `Invalid` when the session is not
        deleted, or has a fork that is alive or not purged, which reads its past here. Segments of the archive go first: `Unsupported`
        where there are some and the store was opened without `archive`.
        """
        run_blocking(self._store.purge(session))


def open(
    url: str | None = None,
    *,
    tenant: str = "default",
    durability: Durability | str | None = None,
    spool: str | None = None,
    create: bool = True,
    clock: Clock | None = None,
    upcasters: Mapping[str, Upcaster] = MappingProxyType({}),
    blobs: str | None = None,
    shared_cache: str | None = None,
    archive: str | None = None,
    **settings: Any,
) -> Store:
    """Open a store: `with perdure.sync.open("sqlite:///agents.db") as store`.

    `url` chooses the engine; without one, the environment's `PERDURE_URL`, else `sqlite:///perdure.db`. `tenant` scopes every
    call. `durability` is the least level that receipts may name (default: `local`, or the engine's strongest if that is
    weaker). `spool` names a file on the local disk, `sqlite:///spool.db`, from which `store.enqueue` ships. `create=False` opens what is
    there and makes nothing: no file, schema, table or key; where there is no store it raises `NotFound`. `upcasters` say, by event type,
    how old events read today; `history` applies them. `blobs` is the URL of a place for large bodies (`file:///folder`,
    `s3://bucket/prefix`, `gs://`, `az://`): a stored body above `blob_bytes` goes there, and a store that has such bodies is always opened
    with it. `shared_cache` is a `redis://`, `rediss://` or `memcached://` URL: states that one process has loaded save others the load. It
    is never needed, and never trusted. `archive` is the URL of a place for archived commits, of the same kinds as `blobs`: one for each
    store. It is proven now that it can be written; with `create=False` that it can be read. `settings` are the fields of
    `perdure.Settings`.

    Raises `Invalid`, `NotFound`, `Unauthorized`, `Unsupported`, `Unavailable`, `Corrupt`.
    """
    return Store(
        run_blocking(
            _opening.open(
                url,
                tenant=tenant,
                durability=durability,
                spool=spool,
                create=create,
                clock=clock,
                upcasters=upcasters,
                blobs=blobs,
                shared_cache=shared_cache,
                archive=archive,
                **settings,
            )._open()
        )
    )
