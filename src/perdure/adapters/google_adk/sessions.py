"""The session service: ADK sessions as Perdure sessions, an event and its state delta in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event as AdkEvent
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.holds import HoldOptions, lease_of
from perdure.adapters.common.incarnation import start_incarnation
from perdure.adapters.common.kept import dropped_until, kept
from perdure.adapters.common.run_lease import RunLeases
from perdure.adapters.common.session_ids import actor_name
from perdure.adapters.common.surrogates import unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import delete_if_there
from perdure.adapters.google_adk import events, names
from perdure.adapters.google_adk.holds import SessionHold
from perdure.adapters.google_adk.names import Names
from perdure.adapters.google_adk.shared import SharedState
from perdure.engine.leasing.lease import Lease
from perdure.engine.views import Receipt, View
from perdure.engine.write.session_queue import SessionQueue
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, KeyReused, NotFound
from perdure.model.commit import Commit
from perdure.model.ids import SessionKey

NAMES_KEPT = 4096
"""How many sessions' names are kept, so that an append does not compose them again."""
_ALL = GetSessionConfig()
_NONE = GetSessionConfig(num_recent_events=0)


class _Known(NamedTuple):
    """The version of its session that a session object knows, and the life that the session was in ("" for the first)."""

    version: int
    life: str

    @classmethod
    def of(cls, version: int, document: Mapping[str, Any]) -> _Known:
        return cls(version, *document.get("life", ("",)))

    @classmethod
    def parse(cls, mark: str | None) -> _Known | None:
        """What a text of `mark` says; `None` for a text that another storage wrote."""
        version, _, life = (mark or "").partition(" ")
        return cls(int(version), life) if version.isdecimal() else None

    def mark(self) -> str:
        return f"{self.version} {self.life}".rstrip()

    def key(self, id: str) -> str:
        """The idempotency key of an event."""
        return f"{id} {self.life}".rstrip()


class _Tail(NamedTuple):
    """The end of a session's log: commits, oldest first; the newest that ADK made, `None` if it was dropped; when that was (s)."""

    commits: list[Commit]
    newest: Commit | None
    updated: float


class PerdureSessionService(BaseSessionService):
    """Keeps ADK sessions in an open store, which stays the caller's to close.

    One `append_event` is one commit of the session: the event and the session-scope part of its state delta, both or neither, at
    the store's durability. The event's id is the idempotency key: the same event appended again is there once. What goes to
    `app:` and `user:` keys is committed to sessions of their own right after it, once. If the process dies in between, the next load of
    the session carries it out (keys that were set again since keep the newer value).

    An append to a session that others changed since it was loaded raises `StaleSessionError`, whatever the clocks say.

    `expire_after`, `keep` and `drop` are the policy that sessions begin with, as in `Store.configure`: one that was not written to for so
    long (a `timedelta` or seconds) is deleted by a sweeper, is `None` to `get_session`, and may be created again. Of the others only so
    many commits, or those of a time, are kept; an event is one. Older events go to the store's archive and are read as before, or with
    `drop` for good: then a session has the events that are left, and all of its state. One that is there keeps the policy that it has.
    State that sessions share (`app:`, `user:`) has no policy, for it is not any one session's.

    One worker at a time: `hold`, or a `PerdureLeasePlugin` in the app.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        self._store = asynchronous(store)
        self._starting = with_policy(self._store, expire_after=expire_after, keep=keep, drop=drop)
        self._runs = RunLeases(self._store)
        self._shared = SharedState(self._store)
        self._queue = SessionQueue()
        self._names = lru_cache(NAMES_KEPT)(Names)

    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        """Start a session. Raises `AlreadyExistsError`, and `Invalid` for ids that are too long together."""
        found = Names(app_name, user_id, names.stripped("A session id", session_id or "") or platform_uuid.new_uuid())
        delta = events.safe_state(state or {})
        mine = events.own(delta)
        now = platform_time.get_time()
        left = {key: value for key, value in delta.items() if key.startswith(("app:", "user:"))}
        data = {"timestamp": now, "actions": {"state_delta": left}}
        try:
            receipt, document = await start_incarnation(
                self._starting, found.session, events.CREATED, data, {"state": mine}, actor=actor_name(user_id)
            )
        except AlreadyExists as error:
            raise AlreadyExistsError(f"Session with id {found.id} already exists. {error}") from error
        await self._shared.write(found, delta, receipt.id)
        return _session(found, mine | await self._shared.seen_by(found), [], now, _Known.of(receipt.version, document))

    def hold(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        owner: str,
        ttl: float = 30,
        wait: float = 60,
        exclusive: bool = True,
    ) -> SessionHold:
        """`async with service.hold(app_name=…, user_id=…, session_id=…, owner="worker-7"):` hold a session while its runs are in the block.

        A second worker waits, or is refused with `Held`, before its model is called. Load the session, or call the runner, in the block.
        What this service appends to the session in the block is written under the lease: a worker that lost it is `Fenced`. "In the block"
        goes by the context (`contextvars`), which tasks and `asyncio.to_thread` take along.

        `owner`, `ttl` and `wait` (seconds) as in `Store.lease`. `exclusive`: who does not hold the session is refused too, with `Fenced`.
        Raises `Invalid` for bad options; on entry `SessionNotFoundError`, `Held`, and what `Store.lease` raises.
        """
        found = Names(app_name, user_id, names.stripped("A session id", session_id))
        return SessionHold(self._store, found, HoldOptions(owner, ttl, wait, exclusive))

    async def get_session(self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None) -> Session | None:
        """The session with its events in the order in which they were appended, or `None`.

        With a `config` only the end of the log is read. `after_timestamp` gives the events after the last one that is older.
        Raises `Invalid` for a session that something else made, `Unsupported` for events that this google-adk does not understand.
        """
        found = Names(app_name, user_id, names.stripped("A session id", session_id))
        try:
            view = await self._view(found)
            tail = await self._tail(found, view, config or _ALL)
            loaded = await self._events(found, tail.commits, config or _ALL)
        except (NotFound, Deleted):
            return None
        if tail.newest is not None:
            await self._shared.catch_up(found, tail.newest)
        state = view.state["state"] | await self._shared.seen_by(found)
        return _session(found, state, loaded, tail.updated, _Known.of(view.version, view.frozen_state))

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The app's sessions, or one user's, without events, least recently updated first. Costs two reads a session."""
        sessions = []
        seen: dict[str, dict[str, Any]] = {}
        async for info in self._store.list(prefix=names.sessions_prefix(app_name, user_id)):
            found = names.parse(info.session)
            if found is None:
                continue
            try:
                view = await self._view(found)
                tail = await self._tail(found, view, _NONE)
            except (NotFound, Deleted):  # since it was listed
                continue
            if found.user not in seen:
                seen[found.user] = await self._shared.seen_by(found)
            state = view.state["state"] | seen[found.user]
            sessions.append(_session(found, state, [], tail.updated, _Known.of(view.version, view.frozen_state)))
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Close the session with a tombstone, which refuses late writers; nothing happens if there is none. Shared state stays."""
        await delete_if_there(self._store, Names(app_name, user_id, names.stripped("A session id", session_id)).session)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """What the user's `user:` keys hold, without the prefix."""
        return unescape(await self._shared.of(names.user_scope(app_name, user_id)))

    async def append_event(self, session: Session, event: AdkEvent) -> AdkEvent:
        """Append an event and its state delta. A partial event is not stored.

        Raises `StaleSessionError` (nothing was written), `SessionNotFoundError`, `AlreadyExistsError` for an event id that the
        session holds with other content.
        """
        events.check_event(event)
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        if not event.id:
            event.id = AdkEvent.new_id()
        found = self._names(session.app_name, session.user_id, session.id)
        # Appends by one session object are made one after the other: each begins at the version that the previous one reached.
        async with self._queue.slot(SessionKey(self._store.tenant, found.session)):
            known = await self._known(found, session)
            data = events.as_json(event)
            receipt = await self._append(found, data, known, self._runs.lease_of(session) or lease_of(self._store, found.session))
            await self._shared.write(found, events.delta_of(data), receipt.id)
            if receipt.version <= known.version:
                return event  # It was appended before the session was loaded.
            session._storage_update_marker = known._replace(version=receipt.version).mark()
            session.last_update_time = event.timestamp
            return self._commit_event_to_session(session, event)

    async def _renew(self, session: Session, config: GetSessionConfig | None) -> bool:
        """Bring a session object up to date, in its place, if others wrote since it was loaded; false if there is no such session."""
        found = self._names(session.app_name, session.user_id, session.id)
        known = await self._known(found, session)
        try:
            view = await self._view(found)
        except (NotFound, Deleted):
            return False
        since = [commit.version async for commit in kept(self._store, found.session, after=known.version, types=events.TYPES)]
        if not since and _Known.of(view.version, view.frozen_state).life == known.life:
            return True
        fresh = await self.get_session(app_name=session.app_name, user_id=session.user_id, session_id=session.id, config=config)
        if fresh is None:
            return False
        session.events[:] = fresh.events
        session.state.clear()
        session.state.update(fresh.state)
        session.last_update_time = fresh.last_update_time
        session._storage_update_marker = fresh._storage_update_marker
        return True

    async def _append(self, found: Names, data: dict[str, Any], known: _Known, lease: Lease | None) -> Receipt:
        try:
            delta = events.delta_of(data)
            mine = events.own(delta) if delta else delta
            state = (await self._view(found)).frozen_state["state"] if mine and events.is_large(mine) else None
            return await self._store.append(
                found.session,
                events.written(data, mine, state),
                expect=known.version,
                key=known.key(data["id"]),
                actor=actor_name(data["author"]),
                on_conflict="raise",
                lease=lease,
            )
        except (NotFound, Deleted) as error:
            raise SessionNotFoundError(f"Session {found.id} not found. {error}") from error
        except Conflict as error:
            raise _stale(found, f"loaded at version {known.version}, now at {error.actual}") from error
        except KeyReused as error:
            raise AlreadyExistsError(f"Session {found.id} has an event {data['id']!r} with other content. {error}") from error

    async def _known(self, found: Names, session: Session) -> _Known:
        """The version at which the session was loaded. Without a mark of it, a session that ends with the newest event is current."""
        known = _Known.parse(session._storage_update_marker)
        if known is not None:
            return known
        try:
            view = await self._view(found)
            tail = await self._tail(found, view, GetSessionConfig(num_recent_events=1))
        except (NotFound, Deleted) as error:
            raise SessionNotFoundError(f"Session {found.id} not found. {error}") from error
        newest = [event.data["id"] for event in (() if tail.newest is None else tail.newest.events) if events.is_adk(event)]
        if newest[-1:] != [event.id for event in session.events[-1:]]:
            raise _stale(found, f"it carries no version, and does not end with the newest event of version {view.version}")
        return _Known.of(view.version, view.frozen_state)

    async def _view(self, found: Names) -> View:
        """The session as it is now. Raises `NotFound`, `Deleted`, and `Invalid` for what something else made."""
        view = await self._store.read(found.session)
        document = view.frozen_state
        if not isinstance(document, dict) or not isinstance(document.get("state"), dict):
            raise _foreign(found)
        return view

    async def _tail(self, found: Names, view: View, config: GetSessionConfig) -> _Tail:
        """The newest commits as of a view, back to where `config` is satisfied, the session's life began, or older ones were dropped; at
        least one of ADK's, if one is left."""
        commits: list[Commit] = []
        newest: Commit | None = None
        updated, count = view.updated_at.timestamp(), 0
        newest_first = kept(self._store, found.session, before=view.version + 1, newest_first=True)
        async with aclosing(newest_first) as history:
            async for commit in history:
                mine = [event.data["timestamp"] for event in commit.events if events.is_adk(event)]
                began = [event.data["timestamp"] for event in commit.events if events.is_created(event)]
                commits.append(commit)
                if newest is None and (mine or began):
                    newest, updated = commit, (mine or began)[-1]
                count += len(mine)
                if began or (newest is not None and _satisfied(config, count, mine)):
                    break
        if newest is None and not await dropped_until(self._store, found.session):
            raise _foreign(found)
        return _Tail(commits[::-1], newest, updated)

    async def _events(self, found: Names, commits: list[Commit], config: GetSessionConfig) -> list[AdkEvent]:
        """The events that `config` asks for, of the commits at the log's end."""
        if config.num_recent_events == 0:
            return []
        first = next((number for number, commit in enumerate(commits) if events.needs_state(commit)), len(commits))
        loaded = events.read_back(found.session, commits[:first])
        if first < len(commits):
            before = await self._store.read(found.session, at=commits[first].version - 1)
            loaded += events.read_back(found.session, commits[first:], before.frozen_state)
        if config.num_recent_events is not None:
            loaded = loaded[-config.num_recent_events :]
        if config.after_timestamp is not None:
            old = [number for number, event in enumerate(loaded) if event.timestamp < config.after_timestamp]
            loaded = loaded[old[-1] + 1 :] if old else loaded
        return loaded


def _satisfied(config: GetSessionConfig, count: int, timestamps: list[float]) -> bool:
    if config.num_recent_events is not None and count >= config.num_recent_events:
        return True
    return config.after_timestamp is not None and any(timestamp < config.after_timestamp for timestamp in timestamps)


def _session(found: Names, state: Mapping[str, Any], loaded: list[AdkEvent], updated: float, known: _Known) -> Session:
    mine = unescape(dict(state))
    session = Session(id=found.id, app_name=found.app, user_id=found.user, state=mine, events=loaded, last_update_time=updated)
    session._storage_update_marker = known.mark()  # where ADK has a storage keep its revision
    return session


def _stale(found: Names, why: str) -> StaleSessionError:
    return StaleSessionError(f"Session {found.id} was modified in storage since it was loaded ({why}): load it again, then append.")


def _foreign(found: Names) -> Invalid:
    return Invalid(f"Session {found.session!r} is no ADK session: something else made it.", session=found.session)
