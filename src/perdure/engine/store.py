"""The public calls of one store and one tenant: signatures and docstrings. Each is one call of the module that does it.

A store belongs to no loop and no thread: calls from any of them are served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self, overload

from msgspec import UNSET, UnsetType

from perdure.backends.spi import Capabilities, Durability
from perdure.config import shown_url
from perdure.engine.branch.fork import fork, purge
from perdure.engine.branch.merge import merge
from perdure.engine.calls.adopt import adopt
from perdure.engine.calls.append import append, find
from perdure.engine.calls.archive import archive, compact, restore
from perdure.engine.calls.changes import changes, watch_many
from perdure.engine.calls.claim import claim, take_due
from perdure.engine.calls.configure import configure, policy, wanted
from perdure.engine.calls.delete import delete
from perdure.engine.calls.edit import Edit, edit, update
from perdure.engine.calls.enqueue import Queued, enqueue, flush, queued
from perdure.engine.calls.history import history
from perdure.engine.calls.lease import break_lease, lease, leases
from perdure.engine.calls.listing import list_sessions
from perdure.engine.calls.read import newest_token, read
from perdure.engine.calls.sizes import sizes
from perdure.engine.calls.verify import verify
from perdure.engine.calls.watch import watch
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Lease, Leasing
from perdure.engine.options import Options
from perdure.engine.views import Archived, CacheInfo, Change, Info, LeaseInfo, Policy, Receipt, Sizes, Spooled, Verified, View
from perdure.engine.write.drafts import Draft
from perdure.model.commit import Commit, Status
from perdure.model.events import Event
from perdure.model.ids import check_tenant, system_tenant, uuid_text
from perdure.model.lifecycle import Begin
from perdure.model.policy import OnConflict


class Store:
    """Sessions of one tenant. Made by `perdure.open`; safe from any thread and event loop."""

    def __init__(self, core: Core, tenant: str, begin: Begin | None = None) -> None:
        self._context = Context(core, tenant, begin)
        self._core = core

    def __repr__(self) -> str:
        return f"<Store [{'closed' if self._core.closed else 'open'}] {shown_url(self._core.url)} tenant={self.tenant}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def id(self) -> str:
        """The identity of the data, made when it was initialised."""
        return self._core.backend.store_id

    @property
    def tenant(self) -> str:
        """Whose sessions these are."""
        return self._context.tenant

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._core.backend.capabilities

    def for_tenant(self, tenant: str) -> Store:
        """The same store, for another tenant's sessions. Closing one closes both."""
        return Store(self._core, check_tenant(tenant))

    def new_id(self) -> str:
        """A fresh session id: a UUIDv7."""
        return uuid_text(self._context.opened().committer.new_id())

    async def append(
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
        return await append(
            self._context, session, events, expect, key, actor, on_conflict, durability, recreate=recreate, create=create, lease=lease
        )

    async def enqueue(
        self, session: str, *events: Event, expect: int | None = None, key: str | None = None, actor: str | None = None
    ) -> Queued:
        """Append events later: they are stored in the spool now, synced to the local disk, and shipped in order. No round trip.

        For stores opened with `spool=`. What is queued for a session is shipped in the order in which it was enqueued, exactly once, also
        after restarts and by another process; a failed write parks the later ones of its session. It is meant for the life of the session
        that this store knows of, and fails in another. Operations are applied to whatever state there is then, and reads do not see them
        before; `expect` is refused, for nobody knows the version. `key`: an idempotency key, made where it is left out.

        Atomic: all events or none. Raises `QuotaExceeded` when the spool is full (`spool_bytes`), `Invalid`, `KeyReused`, `TooLarge`,
        `Unavailable`, `Unknown`.
        """
        return await enqueue(self._context, session, events, expect, key, actor)

    def queued(self, session: str, key: str) -> Queued:
        """A write that was enqueued with this key, here or by another process with the same spool: ask it for its `receipt`."""
        return queued(self._context, session, key)

    async def flush(self, *, timeout: float = 60.0) -> Spooled:
        """Wait until everything that is queued now was shipped, so many seconds at most; what the spool holds then."""
        return await flush(self._context, timeout)

    async def find(self, session: str, key: str, *, include_deleted: bool = False) -> Receipt | None:
        """The receipt of the commit that this idempotency key was applied by (`duplicate` is true), or `None`. One or two round trips.

        Keys end with the life of the session that used them; `include_deleted` finds those too.
        """
        return await find(self._context, session, key, include_deleted=include_deleted)

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
        """`async with store.edit(id) as draft`: change `draft.state` as dicts and lists; the block's end is one commit.

        By default writes are merged, not reads: your operations are carried over what others committed meanwhile, or
        `Conflict`. `draft.require(path)` or `on_conflict="raise"` makes it strict. An exception in the block writes nothing; an
        edit that changes nothing writes nothing. Options as in `append`. `payload`: a JSON value that stands for what is asked; a call that
        repeats `key` with another one is `KeyReused`. It is not stored.
        """
        options = Options(key=key, actor=actor, on_conflict=on_conflict, recreate=recreate, create=create)
        return edit(self._context, session, options, expect, payload, durability, lease)

    async def update(
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
        before: the function is not run). The function may be a coroutine function and may run several times: keep side effects
        out of it. From the second time on other writes of this process to the session wait for it, for a second. `payload` as in `edit`.
        Raises `Busy` after `attempts` lost races, and as `append`.
        """
        options = Options(key=key, actor=actor, on_conflict="raise", recreate=recreate, create=create)
        return await update(self._context, session, function, options, expect, payload, durability, attempts, lease)

    async def read(
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
        return await read(self._context, session, at, consistency, max_staleness, at_least, include_deleted=include_deleted)

    async def token(self, session: str) -> str:
        """The token of the session's newest version, as `View.token`, without its state. One round trip. Raises `NotFound`, `Deleted`."""
        return await newest_token(self._context, session)

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
    ) -> AsyncIterator[Commit]:
        """The session's commits with `after < version < before`, checked link by link, through forks to their parents.

        Those of its present life; `include_deleted` gives all that are left, of a deleted session too, for audit. `types` keeps the
        commits that have an event of one of these types, and of their events only those. `control` gives the commits of leases too, which
        are left out else. `limit` counts commits. Read a page at a time. Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`.
        """
        return history(
            self._context,
            session,
            after=after,
            before=before,
            types=types,
            newest_first=newest_first,
            limit=limit,
            include_deleted=include_deleted,
            control=control,
        )

    @overload
    def watch(
        self,
        session: str,
        *,
        after: int = 0,
        types: Collection[str] | None = None,
        include_deleted: bool = False,
        control: bool = False,
    ) -> AsyncIterator[Commit]: ...

    @overload
    def watch(
        self,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        after: str | None = None,
        types: Collection[str] | None = None,
        control: bool = False,
    ) -> AsyncIterator[Change]: ...

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
    ) -> AsyncIterator[Commit] | AsyncIterator[Change]:
        """The session's commits with a version above `after`, then those to come as they come, by whomever they are written.

        Nothing is skipped and nothing comes twice: go on later with `after=` the last version seen. Begins with the session's present
        life and ends after its tombstone (`include_deleted`: neither); break off whenever you like. `types` and `control` as in
        `history`. Waits out an engine that is away, for `watch_outage` seconds.

        With `prefix` or `tags` in place of a session it gives `Change`s of every session whose id begins so and that has these tags: the
        same as `changes`, with a cursor as `after`.

        Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`, `Unavailable`, `Closed`, and `Rewound` when the store has lost what was seen.
        """
        if prefix is None and tags is None:
            return watch(self._context, session, after, types, include_deleted=include_deleted, control=control)
        return watch_many(self._context, session, after, types, prefix, tags, include_deleted=include_deleted, control=control)

    def changes(
        self,
        *,
        after: str | None = None,
        types: Collection[str] | None = None,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        control: bool = False,
        follow: bool = True,
    ) -> AsyncIterator[Change]:
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
        return changes(self._context, after, types=types, prefix=prefix, tags=tags, control=control, follow=follow)

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
    ) -> AsyncIterator[Info]:
        """This tenant's sessions by id prefix, tags (all must match), status (default: all but deleted and moved) and the time of their
        newest commit (aware datetimes, both exclusive; looked at row by row on every engine).

        Go on after the last id seen by passing it as `cursor`. Raises `Invalid`, `Unsupported` for an order the engine lacks.
        """
        return list_sessions(
            self._context,
            prefix=prefix,
            tags=tags,
            status=status,
            after=updated_after,
            before=updated_before,
            order=order,
            limit=limit,
            cursor=cursor,
        )

    async def fork(self, session: str, *, at: int | None = None, id: str | None = None, actor: str | None = None) -> str:
        """A new session that goes on from this one at a version (default: the head); its id. The cost does not grow with history.

        Raises `NotFound`, `Deleted`, `AlreadyExists` when `id` is taken.
        """
        return await fork(self._context, session, at, id, actor)

    async def merge(
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
        return await merge(self._context, session, into, on_conflict, key, actor, durability, lease)

    def lease(
        self, session: str, *, owner: str, ttl: float = 30, wait: float = 60, exclusive: bool = False, max_hold: float | None = None
    ) -> Leasing:
        """`async with store.lease(id, owner="worker-7") as lease`: hold the session while the block runs; pass `lease=` to what is written.

        A write under a lease that was lost is `Fenced`, on every engine, whatever the clocks say. `owner`: who holds it, for people. `ttl`:
        seconds (3, or 10 on an engine that does not notify, to a day) for which a holder may be silent before one that waits takes over;
        a thread of the store answers for the block, even where it blocks. `wait`: seconds to wait for another holder, then `Held`; 0
        writes nothing where the session is held. `exclusive`: what others write without the lease (data, merges, tags) is `Fenced` too.
        `max_hold`: seconds after which the lease is released, whatever the block does. A session that does not exist is started, with the
        take as its first commit. While nobody competes, nothing more is written.

        Raises, on entry, `Held`, `Deleted`, `Invalid`, `Unsupported`, `Busy`, `Unavailable`, `Unknown`.
        """
        return lease(self._context, session, owner, ttl, wait, max_hold, exclusive=exclusive)

    async def adopt(self, session: str, grant: str) -> Lease:
        """A lease that was taken elsewhere, by its `grant`: from now on writes here can be made under it, with `lease=`. Two round trips.

        For processes that serve a holder by turns, such as the nodes of the session service. Challenges of it are answered here for half a
        ttl, and again so long after each `adopt`: who calls this says that the holder is alive. It is released by `lease.release()`, here
        or elsewhere. Raises `Fenced` where it no longer holds the session, `Invalid`.
        """
        return await adopt(self._context, session, grant)

    def claim(
        self,
        *,
        owner: str,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        ttl: float = 30,
        limit: int | None = None,
        exclusive: bool = False,
    ) -> AsyncIterator[Lease]:
        """`async for lease in store.claim(owner="worker-7")`: sessions whose alarm is due, set with `wake="claim"`, each to one worker.

        Ends when nothing is due any more, or after `limit` sessions: call it again after a pause. Each session is held while the loop's
        body runs: pass `lease=` to what is written. The next turn of the loop releases it. With that its alarm is used up, and the next one
        of `wake_every` stands; an alarm that was set meanwhile stays. Where the body raises, or breaks before `lease.release()`, or the
        worker dies, the session stays due: so work is done at least once. A session that somebody else holds is passed over, and its holder
        is asked whether it is alive. Sessions by id prefix and tags (all must match); what was due first comes first, by this machine's
        clock.

        Raises `Invalid`, `Unsupported` on a store of schema 1, `Busy`, `Unavailable`, `Unknown`.
        """
        return claim(self._context, prefix, tags, owner, ttl, limit, exclusive=exclusive)

    def take_due(
        self,
        *,
        owner: str,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        ttl: float = 30,
        limit: int | None = None,
        exclusive: bool = False,
    ) -> AsyncIterator[Lease]:
        """As `claim`, but each lease stays taken until the caller releases it, here or, with `adopt`, in another process: its session
        is due again where that does not happen. For processes that hand work to others. Raises as `claim`."""
        return take_due(self._context, prefix, tags, owner, ttl, limit, exclusive=exclusive)

    def leases(self, *, prefix: str = "") -> AsyncIterator[LeaseInfo]:
        """Who holds which of this tenant's sessions, ordered by session, from the index rows: all of them with this prefix are read."""
        return leases(self._context, prefix)

    async def break_lease(self, session: str, *, actor: str | None = None) -> LeaseInfo | None:
        """Take a lease from its holder by force: what it writes from now on is `Fenced`, and the session is free. Whose lease it was, or
        `None` where nobody held it. A commit says that `actor` did it. Raises `NotFound`, `Deleted`."""
        return await break_lease(self._context, session, actor)

    async def configure(
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

        `lease` as in `append`. Raises `NotFound`, `Deleted`, `Fenced`, `Invalid`, `Busy`, and `Unsupported` where the engine, or the
        store's schema, has no place for it.
        """
        asked = wanted(expire_after, archive_after, wake_at, wake_every, wake, keep, drop, grace)
        return await configure(self._context, session, prefix, tags, asked, actor, lease)

    async def policy(self, session: str | None = None, *, prefix: str | None = None) -> Policy:
        """What is to become of a session by itself, or of those that begin with a prefix: what `configure` set. Strongly consistent.

        Raises `NotFound`, `Deleted`, `Invalid`.
        """
        return await policy(self._context, session, prefix)

    async def delete(self, session: str, *, actor: str | None = None) -> Receipt:
        """Close the session with a tombstone: later calls raise `Deleted`, a late writer too; versions never start again.

        Its keys, history, forks and watches end here for ordinary calls, and its tags. Its commits stay in the store until
        `purge`. Its lease ends too. Raises `NotFound`, `Deleted`.
        """
        return await delete(self._context, session, actor)

    async def archive(self, session: str, *, actor: str | None = None) -> Archived:
        """Move all of a session to the store's archive: only its index row, its idempotency keys and one commit stay in the engine.

        `read`, `history`, `find` and `fork` go on as before, through the archive. The first write restores the session by itself. Nothing
        happens where it is archived already. A crash at any point leaves the session whole; the next call goes on with it.
        Raises `NotFound`, `Deleted`, `Busy` while somebody writes to the session or holds its lease, or a consumer has not read it
        (`error.consumers` names them), `Unsupported` without `open(archive=...)`, `Unavailable`, and `Corrupt` for a segment that does not
        read as it was written.
        """
        return await archive(self._context, session, actor)

    async def restore(self, session: str, *, actor: str | None = None) -> bool:
        """Make an archived session live again, as its first write does; whether it was archived. Its older commits stay in the archive.

        Raises `NotFound`, `Deleted`, `Unsupported` without `open(archive=...)`, `Unavailable`, and `Corrupt` for a segment that is missing
        or damaged.
        """
        return await restore(self._context, session, actor)

    async def compact(self, session: str, *, keep: int | timedelta, drop: bool = False, actor: str | None = None) -> Archived:
        """Move commits to the archive but for the newest: so many, or those of so long a time. With `drop` they go for good.

        What is in the archive reads as before. What was dropped is `Truncated`; the state at the head stays, and idempotency keys stay
        known. What is in the archive already is dropped once all of it is older. `drop` is refused with `Invalid` while a fork reads its
        past from this session. Nothing happens where there is nothing older.
        Raises as `archive`, and `Invalid` for a negative `keep`.
        """
        return await compact(self._context, session, keep, actor, drop=drop)

    async def purge(self, session: str) -> None:
        """Remove all bytes of a deleted session, of every life it had, but a stub: its id, and the tombstone's version, hash and time.

        The stub keeps the id dead and refuses late writers; `recreate=True` goes on from it. What may remain elsewhere (free pages,
        backups, replicas, the server's logs) is in the docs of each engine. Raises `NotFound`, and `Invalid` when the session is not
        deleted, or has a fork that is alive or not purged, which reads its past here. Segments of the archive go first: `Unsupported`
        where there are some and the store was opened without `archive`.
        """
        await purge(self._context, session)

    async def verify(self, session: str) -> Verified:
        """Prove the session: each commit's hash and place, and each snapshot against the fold. Reads everything.

        Works on deleted sessions too. Raises `Corrupt` naming what is wrong, `NotFound`.
        """
        return await verify(self._context, session)

    async def sizes(self, session: str, *, parts: int = 20, include_deleted: bool = False) -> Sizes:
        """Where the session's bytes are: its state, with at most `parts` of its heaviest parts, its snapshot, its commits and its bodies
        out of line. Reads all records, and no body that it does not have to fold. Raises `NotFound`, `Deleted`, `Invalid`.
        """
        return await sizes(self._context, session, parts, include_deleted=include_deleted)

    def cache_info(self) -> CacheInfo:
        """What is in memory, of all tenants, and how often that was enough; and what the shared cache did."""
        return self._core.cache_info()

    async def close(self) -> Spooled | None:
        """Finish what was handed over and let go of every file and thread. Calling it twice is calling it once.

        Returns what is left in the spool, which is shipped when a store is opened with it again; `None` without a spool.
        """
        await self._core.close()
        return self._core.spool_left


def system_store(store: Store) -> Store:
    """The same store, for Perdure's own sessions about its tenant."""
    return Store(store._core, system_tenant(store.tenant))


def global_store(store: Store) -> Store:
    """The same store, for Perdure's own sessions about all of it."""
    return Store(store._core, system_tenant())
