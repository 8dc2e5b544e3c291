"""The blocking API: `perdure.open` and `Store` without `await`, safe from many threads.

Made by scripts/make_sync.py from engine/store.py: change that, then run it. Do not edit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self, TypeVar

from msgspec import UNSET, UnsetType

from perdure.backends.spi import Capabilities, Durability
from perdure.clock import Clock
from perdure.codec.upcast import Upcaster
from perdure.concurrency.replies import run_blocking
from perdure.engine import opening as _opening
from perdure.engine import store as _async
from perdure.engine.calls.edit import Edit as _AsyncEdit
from perdure.engine.unentered import Blocking
from perdure.engine.views import Info, Policy, Receipt, Verified, View
from perdure.engine.write.drafts import Draft
from perdure.model.commit import Commit, Status
from perdure.model.events import Event
from perdure.model.policy import OnConflict

T = TypeVar("T")

__all__ = ["Edit", "Store", "open"]


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

    def append(
        self,
        session: str,
        *events: Event,
        expect: int | None = None,
        key: str | None = None,
        actor: str | None = None,
        on_conflict: OnConflict = "merge",
        durability: Durability | str | None = None,
        recreate: bool = False,
    ) -> Receipt:
        """Append one commit with these events; starts the session if there is none. One round trip.

        `expect`: `None` whatever the head is; `0` the session must not exist (`AlreadyExists`); `n` the version on which you
        decided: what others committed since is merged or refused, as `on_conflict` says. `key`: an idempotency key; a second
        call with it gets the first one's receipt. `actor`: who did it, for the audit. `durability`: the least level the
        receipt may name. `recreate`: go on from the tombstone of a deleted session.

        Atomic: all events or none. Raises `Conflict`, `Busy`, `Invalid`, `KeyReused`, `AlreadyExists`, `Deleted`, `TooLarge`, `Unknown`,
        `Unavailable`.
        """
        return run_blocking(
            self._store.append(
                session, *events, expect=expect, key=key, actor=actor, on_conflict=on_conflict, durability=durability, recreate=recreate
            )
        )

    def find(self, session: str, key: str, *, include_deleted: bool = False) -> Receipt | None:
        """The receipt of the commit that this idempotency key was applied by (`duplicate` is true), or `None`. One or two round trips.

        Keys end with the life of the session that used them; `include_deleted` finds those too.
        """
        return run_blocking(self._store.find(session, key, include_deleted=include_deleted))

    def edit(
        self,
        session: str,
        *,
        expect: int | None = None,
        key: str | None = None,
        actor: str | None = None,
        on_conflict: OnConflict = "merge",
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
    ) -> Edit:
        """`with store.edit(id) as draft`: change `draft.state` as dicts and lists; the block's end is one commit.

        By default writes are merged, not reads: your operations are carried over what others committed meanwhile, or
        `Conflict`. `draft.require(path)` or `on_conflict="raise"` makes it strict. An exception in the block writes nothing; an
        edit that changes nothing writes nothing. Options as in `append`; `create=False` makes a missing session `NotFound`.
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
            )
        )

    def update(
        self,
        session: str,
        function: Callable[[Draft], Any],
        *,
        expect: int | None = None,
        key: str | None = None,
        actor: str | None = None,
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
        attempts: int = 16,
    ) -> tuple[Receipt | None, Any]:
        """Run `function(draft)` and commit on the very state it saw, again on the new state while others win: serializable.

        Returns the receipt (`None` when it changed nothing) and what the function returned (`None` when `key` was applied
        before: the function is not run). The function may run several times: keep side effects
        out of it. From the second time on other writes of this process to the session wait for it, for a second. Raises `Busy` after
        `attempts` lost races, and as `append`.
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
            )
        )

    def read(
        self,
        session: str,
        *,
        at: int | datetime | None = None,
        consistency: Literal["strong", "eventual"] = "strong",
        include_deleted: bool = False,
    ) -> View:
        """The session's state at its head, at a version, or at a time (the last version not later; an aware datetime).

        `strong` sees every commit acknowledged before the call, by any process; `eventual` may answer from memory.
        `include_deleted` reads a deleted session, and with `at` what was before a deletion, for audit.
        Raises `NotFound`, `Deleted`, `Truncated`, `Invalid`.
        """
        return run_blocking(self._store.read(session, at=at, consistency=consistency, include_deleted=include_deleted))

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
    ) -> Iterator[Commit]:
        """The session's commits with `after < version < before`, checked link by link, through forks to their parents.

        Those of its present life; `include_deleted` gives all that are left, of a deleted session too, for audit. `types` keeps the
        commits that have an event of one of these types, and of their events only those. `limit` counts commits. Read a page at a
        time. Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`.
        """
        return _iterate(
            self._store.history(
                session, after=after, before=before, types=types, newest_first=newest_first, limit=limit, include_deleted=include_deleted
            )
        )

    def watch(
        self, session: str, *, after: int = 0, types: Collection[str] | None = None, include_deleted: bool = False
    ) -> Iterator[Commit]:
        """The session's commits with a version above `after`, then those to come as they come, by whomever they are written.

        Nothing is skipped and nothing comes twice: go on later with `after=` the last version seen. Begins with the session's present
        life and ends after its tombstone (`include_deleted`: neither); break off whenever you like. `types` as in `history`. Waits out
        an engine that is away, for `watch_outage` seconds.
        Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`, `Unavailable`, `Closed`, and `Rewound` when the store has lost what was seen.
        """
        return _iterate(self._store.watch(session, after=after, types=types, include_deleted=include_deleted))

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

    def fork(self, session: str, *, at: int | None = None, id: str | None = None, actor: str | None = None) -> str:
        """A new session that goes on from this one at a version (default: the head); its id. The cost does not grow with history.

        Raises `NotFound`, `Deleted`, `AlreadyExists` when `id` is taken.
        """
        return run_blocking(self._store.fork(session, at=at, id=id, actor=actor))

    def merge(
        self,
        session: str,
        *,
        into: str,
        on_conflict: OnConflict = "raise",
        key: str | None = None,
        actor: str | None = None,
        durability: Durability | str | None = None,
    ) -> Receipt | None:
        """Carry what a fork did since it was made (or last merged) into its parent, as one commit; `None` if there is nothing.

        What both changed in ways that do not combine raises `Conflict` (with "raise" and with "merge"), or is decided by a
        callable. Histories stay apart: the merge commit names the fork's version and hash. Raises `Invalid` if it is no fork of `into`.
        """
        return run_blocking(self._store.merge(session, into=into, on_conflict=on_conflict, key=key, actor=actor, durability=durability))

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
        actor: str | None = None,
    ) -> Receipt:
        """Set a session's tags, and what is to become of it by itself, which `perdure sweep` then does. What is left out stays as it is;
        `None` removes. Durations: a `timedelta` or seconds, from 1 second to 100 years. One commit.

        `tags`: all of them, in place of those it had; they are indexed, see `list`. `expire_after`: so long after its last data commit the
        session is deleted, and after `grace` (7 days) purged. `wake_at`, an aware datetime, and `wake_every`: when it is woken, by a commit
        with the event `woken`; `wake="claim"` leaves that to a worker that claims it. `keep`: the age, as a `timedelta`, or the number of
        the commits that it keeps; with `drop=True` older ones are removed, without it they would go to an archive (`Unsupported`).

        With `prefix` in place of the session: what this tenant's sessions begin with whose ids begin so. Writers learn it within 30
        seconds, and a sweeper gives it to sessions that were started meanwhile. Older ones stay as they are: see `perdure sweep
        --existing`. The longest prefix decides; `tags` and `wake_at` are a session's own.

        Raises `NotFound`, `Deleted`, `Invalid`, `Busy`, and `Unsupported` where the engine, or the store's schema, has no place for it.
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
                actor=actor,
            )
        )

    def policy(self, session: str | None = None, *, prefix: str | None = None) -> Policy:
        """What is to become of a session by itself, or of those that begin with a prefix: what `configure` set. Strongly consistent.

        Raises `NotFound`, `Deleted`, `Invalid`.
        """
        return run_blocking(self._store.policy(session, prefix=prefix))

    def delete(self, session: str, *, actor: str | None = None) -> Receipt:
        """Close the session with a tombstone: later calls raise `Deleted`, a late writer too; versions never start again.

        Its keys, history, forks and watches end here for ordinary calls, and its tags. Its commits stay in the store until
        `purge`. Raises `NotFound`, `Deleted`.
        """
        return run_blocking(self._store.delete(session, actor=actor))

    def purge(self, session: str) -> None:
        """Remove all bytes of a deleted session, of every life it had, but a stub: its id, and the tombstone's version, hash and time.

        The stub keeps the id dead and refuses late writers; `recreate=True` goes on from it. What may remain elsewhere (free pages,
        backups, replicas, the server's logs) is in the docs of each engine. Raises `NotFound`, and `Invalid` when the session is not
        deleted, or has a fork that is alive or not purged, which reads its past here.
        """
        run_blocking(self._store.purge(session))

    def verify(self, session: str) -> Verified:
        """Prove the session: each commit's hash and place, and each snapshot against the fold. Reads everything.

        Works on deleted sessions too. Raises `Corrupt` naming what is wrong, `NotFound`.
        """
        return run_blocking(self._store.verify(session))

    def close(self) -> None:
        """Finish what was handed over and let go of every file and thread. Calling it twice is calling it once."""
        run_blocking(self._store.close())


def open(
    url: str | None = None,
    *,
    tenant: str = "default",
    durability: Durability | str | None = None,
    create: bool = True,
    clock: Clock | None = None,
    upcasters: Mapping[str, Upcaster] = MappingProxyType({}),
    **settings: Any,
) -> Store:
    """Open a store: `with perdure.sync.open("sqlite:///agents.db") as store`.

    `url` chooses the engine; without one, the environment's `PERDURE_URL`, else `sqlite:///perdure.db`. `tenant` scopes every
    call. `durability` is the least level that receipts may name (default: `local`, or the engine's strongest if that is
    weaker). `create=False` opens what is there and makes nothing: no file, schema, table or key; where there is no store it raises
    `NotFound`. `upcasters` say, by event type, how old events read today; `history` applies them.
    `settings` are the fields of `perdure.Settings`. Raises `Invalid`, `NotFound`, `Unauthorized`, `Unsupported`, `Unavailable`, `Corrupt`.
    """
    return Store(
        run_blocking(
            _opening.open(url, tenant=tenant, durability=durability, create=create, clock=clock, upcasters=upcasters, **settings)._open()
        )
    )
