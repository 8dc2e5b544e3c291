"""The use cases: one store, one tenant, every public call.

A store belongs to no loop and no thread: calls from any of them are served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from perdure.backends.spi import NEVER, Capabilities, Durability, Index, Query, Row
from perdure.config import shown_url
from perdure.engine.branch import fork as forks
from perdure.engine.branch import merge as merges
from perdure.engine.core import Core
from perdure.engine.options import VERSION_MAX, Options, check_count, check_durability, check_events, check_options, check_time, check_types
from perdure.engine.read.cache import CachedState
from perdure.engine.read.listing import check_id_part, check_status, check_tags, listing
from perdure.engine.read.verify import verify
from perdure.engine.views import Info, Receipt, Verified, View, only, to_nanoseconds
from perdure.engine.write import drafts
from perdure.engine.write.drafts import Draft, Edit
from perdure.engine.write.request import WriteRequest, check_incarnation, has_ops
from perdure.errors import AlreadyExists, Deleted, Invalid, NotFound
from perdure.model.commit import Commit, Kind, Status
from perdure.model.events import Event
from perdure.model.ids import SessionKey, check_name, uuid_text
from perdure.model.policy import OnConflict

_PLAIN = Options()


class Store:
    """Sessions of one tenant. Made by `perdure.open`; safe from any thread and event loop."""

    def __init__(self, core: Core, tenant: str) -> None:
        self._core = core
        self._tenant = tenant

    def __repr__(self) -> str:
        return f"<Store [{'closed' if self._core.closed else 'open'}] {shown_url(self._core.url)} tenant={self._tenant}>"

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
        return self._tenant

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._core.backend.capabilities

    def for_tenant(self, tenant: str) -> Store:
        """The same store, for another tenant's sessions. Closing one closes both."""
        return Store(self._core, check_name("A tenant", tenant))

    def _open(self) -> Core:
        self._core.check_open()
        return self._core

    def _key(self, session: object) -> SessionKey:
        return SessionKey(self._tenant, check_name("A session id", session))

    def new_id(self) -> str:
        """A fresh session id: a UUIDv7."""
        return uuid_text(self._open().committer.new_id())

    async def append(
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
        core = self._open()
        target = self._key(session)
        options = _PLAIN
        if expect is not None or key is not None or actor is not None or on_conflict != "merge" or recreate:
            options = check_options(Options(expect=expect, key=key, actor=actor, on_conflict=on_conflict, recreate=recreate))
        level = check_durability(durability, core.durability, core.backend.capabilities)
        checked = check_events(events)
        with core.telemetry.span("append", *target):
            base = None
            if expect and has_ops(checked):
                base = await drafts.base_at(core.reader, target, options, await core.reader.cached(target))
            request = WriteRequest(
                session=target,
                events=checked,
                options=options,
                durability=level,
                base=base,
                blind=expect is None,
                since=expect,
                seen=expect or 0,
                check_request=True,
            )
            return await core.committer.commit(request)

    async def find(self, session: str, key: str, *, include_deleted: bool = False) -> Receipt | None:
        """The receipt of the commit that this idempotency key was applied by (`duplicate` is true), or `None`. One or two round trips.

        Keys end with the life of the session that used them; `include_deleted` finds those too.
        """
        core = self._open()
        target = self._key(session)
        if key is None:
            raise Invalid("find needs the idempotency key to look for.")
        check_options(Options(key=key))
        with core.telemetry.span("find", *target):
            return await drafts.find_receipt(core.committer, target, key, core.durability, include_deleted=include_deleted)

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
        """`async with store.edit(id) as draft`: change `draft.state` as dicts and lists; the block's end is one commit.

        By default writes are merged, not reads: your operations are carried over what others committed meanwhile, or
        `Conflict`. `draft.require(path)` or `on_conflict="raise"` makes it strict. An exception in the block writes nothing; an
        edit that changes nothing writes nothing. Options as in `append`; `create=False` makes a missing session `NotFound`.
        """
        core = self._open()
        options = check_options(Options(expect=expect, key=key, actor=actor, on_conflict=on_conflict, recreate=recreate, create=create))
        level = check_durability(durability, core.durability, core.backend.capabilities)
        return Edit(core.committer, core.reader, self._key(session), options, level, core.telemetry)

    async def update(
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
        before: the function is not run). The function may be a coroutine function and may run several times: keep side effects
        out of it. From the second time on other writes of this process to the session wait for it, for a second. Raises `Busy` after
        `attempts` lost races, and as `append`.
        """
        core = self._open()
        target = self._key(session)
        options = check_options(Options(expect=expect, key=key, actor=actor, on_conflict="raise", recreate=recreate, create=create))
        if not callable(function):
            raise Invalid(f"update needs a function that takes a draft, not {function!r}.")
        if type(attempts) is not int or attempts < 1:
            raise Invalid(f"attempts must be at least 1, not {attempts!r}.")
        level = check_durability(durability, core.durability, core.backend.capabilities)
        with core.telemetry.span("update", *target):
            return await drafts.update(core.committer, core.reader, target, function, options, level, attempts)

    async def read(
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
        core = self._open()
        target = self._key(session)
        if consistency not in ("strong", "eventual"):
            raise Invalid(f"consistency must be 'strong' or 'eventual', not {consistency!r}.")
        with core.telemetry.span("read", *target):
            reader = core.reader
            found, owned = await reader.load_uncached(target) if consistency == "strong" else (await reader.cached(target), False)
            now = self._check_live(target, found, include_deleted)
            await core.committer.snapshot(target, now, keep=not owned)
            if at is None:
                return _view(target, now, now, owned=owned)
            return _view(target, now, await self._past(target, now, at, include_deleted), owned=True)

    async def _live(self, session: SessionKey) -> CachedState:
        return self._check_live(session, await self._core.reader.read_head(session))

    def _check_live(self, session: SessionKey, cached: CachedState | None, include_deleted: bool = False) -> CachedState:
        if cached is None:
            raise NotFound(f"There is no session {session.id!r} in tenant {session.tenant!r}.", session=session.id)
        if cached.head.status == Status.deleted and not include_deleted:
            raise Deleted(f"Session {session.id!r} was deleted at version {cached.head.version}.", session=session.id)
        return cached

    async def _past(self, session: SessionKey, now: CachedState, at: int | datetime, include_deleted: bool) -> CachedState:
        tombstone = 0 if include_deleted else await self._core.reader.incarnation_start(session, now.head)
        if isinstance(at, datetime):
            moment = to_nanoseconds(check_time("at", at))
            at = await self._core.reader.at_time(session, now.head, moment, tombstone)
            if not at:
                raise NotFound(f"Session {session.id!r} did not exist at that time.", session=session.id)
        elif type(at) is not int or not 1 <= at <= VERSION_MAX:
            raise Invalid(f"at must be a version from 1 or an aware datetime, not {at!r}.")
        check_incarnation(session, tombstone, at)
        return (await self._core.reader.at(session, at))[0]

    async def history(
        self,
        session: str,
        *,
        after: int = 0,
        before: int | None = None,
        types: Collection[str] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        include_deleted: bool = False,
    ) -> AsyncIterator[Commit]:
        """The session's commits with `after < version < before`, checked link by link, through forks to their parents.

        Those of its present life; `include_deleted` gives all that are left, of a deleted session too, for audit. `types` keeps the
        commits that have an event of one of these types, and of their events only those. `limit` counts commits. Read a page at a
        time. Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`.
        """
        core = self._open()
        target = self._key(session)
        check_count("after", after)
        for name, value in (("before", before), ("limit", limit)):
            if value is not None:
                check_count(name, value)
        check_types(types)
        with core.telemetry.span("history", *target):
            await core.reader.settled(target)
            head = (await core.backend.heads([target]))[0]
        if head is None:
            raise NotFound(f"There is no session {session!r} in tenant {self._tenant!r}.", session=session)
        if not include_deleted:
            after = max(after, await core.reader.incarnation_start(target, head))
            if head.status == Status.deleted:
                raise Deleted(f"Session {session!r} was deleted at version {head.version}.", session=session)
        count = 0
        if limit == 0:
            return
        async for commit in core.reader.commits(target, after=after, before=before, newest_first=newest_first):
            core.check_process()
            if commit.kind is Kind.tombstone and commit.version > head.version and not include_deleted:
                raise Deleted(f"Session {session!r} was deleted at version {commit.version}.", session=session)
            chosen = only(core.codec.upcast(commit), types)
            if chosen is not None:
                yield chosen
                count += 1
                if count == limit:
                    return

    async def watch(
        self, session: str, *, after: int = 0, types: Collection[str] | None = None, include_deleted: bool = False
    ) -> AsyncIterator[Commit]:
        """The session's commits with a version above `after`, then those to come as they come, by whomever they are written.

        Nothing is skipped and nothing comes twice: go on later with `after=` the last version seen. Begins with the session's present
        life and ends after its tombstone (`include_deleted`: neither); break off whenever you like. `types` as in `history`. Waits out
        an engine that is away, for `watch_outage` seconds.
        Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`, `Unavailable`, `Closed`, and `Rewound` when the store has lost what was seen.
        """
        core = self._open()
        target = self._key(session)
        check_count("after", after)
        check_types(types)
        async with aclosing(core.watchers.follow(target, after, include_deleted=include_deleted)) as commits:
            async for commit in commits:
                chosen = only(core.codec.upcast(commit), types)
                if chosen is not None:
                    yield chosen
                    core.check_process()

    async def list(
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
        core = self._open()
        if limit is not None:
            check_count("limit", limit)
        check_id_part("prefix", prefix)
        check_id_part("cursor", cursor)
        query = Query(self._tenant, prefix, check_tags(tags or {}), check_status(status), order)
        async with aclosing(listing(core.backend, core.telemetry, query, cursor, limit, updated_after, updated_before)) as found:
            async for info in found:
                yield info
                core.check_process()

    async def fork(self, session: str, *, at: int | None = None, id: str | None = None, actor: str | None = None) -> str:
        """A new session that goes on from this one at a version (default: the head); its id. The cost does not grow with history.

        Raises `NotFound`, `Deleted`, `AlreadyExists` when `id` is taken.
        """
        core = self._open()
        parent, child = self._key(session), self._key(self.new_id() if id is None else id)
        check_options(Options(actor=actor))
        with core.telemetry.span("fork", *parent):
            cached = await self._live(parent)
            version = cached.head.version if at is None else at
            if type(version) is not int or not 1 <= version <= VERSION_MAX:
                raise Invalid(f"at must be a version from 1, not {at!r}.")
            if child == parent or (await core.backend.heads([child]))[0] is not None:
                raise AlreadyExists(f"Session {child.id!r} is there already.", session=child.id)
            check_incarnation(parent, await core.reader.incarnation_start(parent, cached.head), version)
            await forks.fork(core.committer, core.reader, parent, cached.head, version, child, actor, core.durability)
        return child.id

    async def merge(
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
        core = self._open()
        source, target = self._key(session), self._key(into)
        policy: OnConflict = on_conflict if callable(on_conflict) else "merge"
        check_options(Options(on_conflict=on_conflict))
        options = check_options(Options(key=key, actor=actor, on_conflict=policy, create=False))
        level = check_durability(durability, core.durability, core.backend.capabilities)
        with core.telemetry.span("merge", *target):
            await self._live(source)
            await self._live(target)
            return await merges.merge(core.committer, core.reader, source, target, options, level)

    async def configure(self, session: str, *, tags: Mapping[str, str] | None = None, actor: str | None = None) -> Receipt:
        """Set the session's tags: all of them, in place of those it had. Tags are indexed; see `list`. Raises `NotFound`, `Deleted`."""
        core = self._open()
        target = self._key(session)
        check_options(Options(actor=actor))
        if tags is None:
            raise Invalid("There is nothing to configure: pass tags.")
        checked = check_tags(tags)
        with core.telemetry.span("configure", *target):
            event = Event("configured", {"tags": checked})
            return await core.committer.control(
                target, Kind.configure, event, index=Index(checked), actor=actor, durability=core.durability
            )

    async def delete(self, session: str, *, actor: str | None = None) -> Receipt:
        """Close the session with a tombstone: later calls raise `Deleted`, a late writer too; versions never start again.

        Its keys, history, forks and watches end here for ordinary calls, and its tags. Its commits stay in the store until
        `purge`. Raises `NotFound`, `Deleted`.
        """
        core = self._open()
        target = self._key(session)
        check_options(Options(actor=actor))
        with core.telemetry.span("delete", *target):
            nothing = Index({}, due_at=NEVER, control=b"")
            return await core.committer.control(
                target, Kind.tombstone, Event("deleted"), status=Status.deleted, index=nothing, actor=actor, durability=core.durability
            )

    async def purge(self, session: str) -> None:
        """Remove all bytes of a deleted session, of every life it had, but a stub: its id, and the tombstone's version, hash and time.

        The stub keeps the id dead and refuses late writers; `recreate=True` goes on from it. What may remain elsewhere (free pages,
        backups, replicas, the server's logs) is in the docs of each engine. Raises `NotFound`, and `Invalid` when the session is not
        deleted, or has a fork that is alive or not purged, which reads its past here.
        """
        core = self._open()
        target = self._key(session)
        with core.telemetry.span("purge", *target):
            await forks.purge(core.backend, core.reader, target)
            core.cache.drop(target)

    async def verify(self, session: str) -> Verified:
        """Prove the session: each commit's hash and place, and each snapshot against the fold. Reads everything.

        Works on deleted sessions too. Raises `Corrupt` naming what is wrong, `NotFound`.
        """
        core = self._open()
        target = self._key(session)
        with core.telemetry.span("verify", *target):
            return await verify(core.backend, core.codec, core.reader, target)

    async def close(self) -> None:
        """Finish what was handed over and let go of every file and thread. Calling it twice is calling it once."""
        await self._core.close()


def _view(session: SessionKey, now: CachedState, cached: CachedState, *, owned: bool) -> View:
    info = Info.of(Row(session, now.head, now.tags, now.created_at))
    return View(session.id, cached.head.version, cached.head.hash, cached.state, info, at=cached.head.at, owned=owned)
