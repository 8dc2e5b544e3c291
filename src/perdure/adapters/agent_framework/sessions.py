"""The session store: an `AgentSession` is one Perdure session, its snapshot the state, member by member.

agent-framework/sessions/<id>    {"type": "session", "session_id": …, "service_session_id": …, "state": {…}}
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from agent_framework import AgentSession, SessionStore

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.json_diff import diff_json
from perdure.adapters.common.models import FAILURES
from perdure.adapters.common.session_ids import compose
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import delete_if_there, lost_race, read_own, transact
from perdure.engine.views import View
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, Truncated, Unsupported
from perdure.model.events import Event
from perdure.model.values import check, same

SAVED = "session_saved"
STALE = -1
"""The version of an object that no longer has the content of the session."""


class PerdureSessionStore(SessionStore):
    """Keeps Agent Framework sessions in an open store, which stays the caller's to close.

    Only what differs is written. A session that was got from here and is set again is merged with what others wrote meanwhile: new
    messages of both are kept, and so are changes in different places. If both changed the same place, the later is refused with `Conflict`.
    After a merge the object is out of date: get the session again before it is set once more. A session object that did not come from here
    replaces what is there, as in the framework's own stores; what it replaced stays in the history.

    `expire_after`, `keep` and `drop` are the policy that sessions begin with, as in `Store.configure`: one that was not set for so long (a
    `timedelta` or seconds) is deleted by a sweeper, is `None` to `get`, and begins again when an object of it is made and set. `keep` and
    `drop` are about the history of changes: the newest snapshot always stays, and an object that is older than what was dropped is refused
    with `Conflict`. A session that is there keeps the policy that it has.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        super().__init__()
        self._store = with_policy(asynchronous(store), expire_after=expire_after, keep=keep, drop=drop)
        self._seen: WeakKeyDictionary[AgentSession, tuple[str, int]] = WeakKeyDictionary()

    async def get(self, session_id: str) -> AgentSession | None:
        """The session as it is now, the caller's own; `None` if there is none. Raises `ValueError`, `Invalid`, `Unsupported`."""
        view = await self._view(_name(session_id))
        if view is None:
            return None
        try:
            session = AgentSession.from_dict(unescape(view.state))
        except (KeyError, TypeError, ValueError) as error:
            raise Unsupported(f"Session {view.session!r} is not one that this agent-framework-core understands: {error}.") from error
        self._seen[session] = view.session, view.version
        return session

    async def set(self, session_id: str, session: AgentSession) -> None:
        """Keep a session. Raises `Conflict`, `Deleted` if it was deleted since it was got, `ValueError`, `TypeError`, `Invalid`."""
        name = _name(session_id)
        if type(session) is not AgentSession:
            raise TypeError(f"PerdureSessionStore keeps AgentSession objects, not {type(session).__name__}.")
        document = _document(session)
        where, version = self._seen.get(session, ("", 0))
        if where != name:
            version = await self._replace(name, document)
        elif version == STALE:
            raise Conflict(f"This object of session {session_id!r} was merged with what others wrote: get the session again.", session=name)
        else:
            version = await self._merge(name, version, document)
        self._seen[session] = name, version

    async def delete(self, session_id: str) -> None:
        """Close the session with a tombstone, which refuses those that got it before; nothing happens if there is none."""
        await delete_if_there(self._store, _name(session_id))

    async def _merge(self, name: str, version: int, document: dict[str, Any]) -> int:
        """Write what the object changed since `version`; the version that it then has."""
        now = await self._store.read(name)
        try:
            base = now if now.version == version else await self._store.read(name, at=version)
        except Truncated as error:
            message = f"What session {name!r} held when this object was got was dropped since: get the session again."
            raise Conflict(message, session=name, expected=version, actual=now.version, commits=(), paths=()) from error
        ops = diff_json(base.frozen_state, document)
        if not ops:
            return version
        receipt = await self._store.append(name, Event(SAVED, None, tuple(ops)), expect=version)
        if receipt.version > version + 1 and not same((await self._store.read(name, at=receipt.version)).frozen_state, document):
            return STALE
        return receipt.version

    async def _replace(self, name: str, document: dict[str, Any]) -> int:
        """Write what differs between the session and the document; the version that holds it."""

        async def attempt(_again: bool) -> int:
            view = await self._view(name)
            ops = diff_json({} if view is None else view.frozen_state, document)
            if view is not None and not ops:
                return view.version
            event, version = Event(SAVED, None, tuple(ops)), 0 if view is None else view.version
            with lost_race(AlreadyExists, Conflict, Deleted):
                return (await self._store.append(name, event, expect=version, on_conflict="raise", recreate=view is None)).version

        return await transact(name, attempt)

    async def _view(self, name: str) -> View | None:
        return await read_own(
            self._store, name, "is not Agent Framework's", lambda state: isinstance(state, dict) and state.get("type") == "session"
        )


def _name(session_id: str) -> str:
    SessionStore.validate_session_id(session_id)
    return compose("An Agent Framework session", "agent-framework", "sessions", session_id)


def _document(session: AgentSession) -> dict[str, Any]:
    """The framework's own snapshot of a session, as JSON: sound and escaped. Raises `Invalid`."""
    try:
        document = session.to_dict()
        service = document["service_session_id"]
        document = escape({**document, "service_session_id": dict(service) if isinstance(service, Mapping) else service})
    except FAILURES as error:
        raise Invalid(f"Session {session.session_id!r:.80} cannot be stored as JSON: {error}.") from error
    check(document, what="the session")
    return document
