"""Import from a database of ADK's own session services: every event, the state of sessions, what apps and users share.

An event is one commit here too, so the state at each event can be read. What a session started with is not in the database: keys
that no event sets are taken for it. The copy is read back and compared with the source, event by event.
"""

from __future__ import annotations

from google.adk.events.event import Event as AdkEvent
from google.adk.platform import time as platform_time

from perdure.adapters.common.json_diff import diff_json
from perdure.adapters.common.migration_sources import ImportResult
from perdure.adapters.common.session_ids import compose, decompose
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.google_adk import events
from perdure.adapters.google_adk.names import Names
from perdure.adapters.google_adk.sessions import PerdureSessionService
from perdure.adapters.google_adk.tables import StoredSession, Tables, open_tables
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Corrupt, Deleted, NotFound
from perdure.model import ops as op
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.model.state import apply

SET_RIGHT = "state_imported"
"""The event that makes a session's state what the source says, where its events do not lead there."""


class AdkSource:
    """An open database of ADK sessions."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def ids(self) -> list[str]:
        """The ids of its sessions: app, user and session, joined by `/`."""
        return sorted(compose("An ADK session", *parts) for parts in self._tables.sessions())

    async def copy_session(self, id: str, store: Store) -> ImportResult:
        """Copy one session and compare it. See `perdure.adapters.common.migration_sources.Source`."""
        parts = decompose(id, 3)
        found = None if parts is None else Names(*parts)
        stored = None if found is None else self._tables.session(found)
        if found is None or stored is None:
            raise NotFound(f"The source has no session {id!r}: an id is app/user/session.")
        theirs = self._tables.events(found)
        for scope, values in self._tables.shared(found):
            await _copy_shared(store, scope, values)
        here = await _Here.of(store, found)
        here.check(theirs)
        if not here.has_own_commits:
            await _copy_events(store, found, here, stored, theirs)
        await _compare(store, found, theirs, None if here.has_own_commits else stored)
        return ImportResult(id, found.session, len(theirs) - min(len(here.ids), len(theirs)), min(len(here.ids), len(theirs)))

    async def close(self) -> None:
        """Close the database."""
        self._tables.close()


class _Here:
    """What of a session is here already: its version, the ids of its events, whether anything but imports wrote to it."""

    def __init__(self, session: str) -> None:
        self.session, self.version, self.has_own_commits = session, 0, False
        self.ids: list[str] = []

    @classmethod
    async def of(cls, store: Store, found: Names) -> _Here:
        """Read its log. Raises `AlreadyExists` for a session that did not come from an import, `Deleted` for one deleted here."""
        here = cls(found.session)
        try:
            async for commit in store.history(found.session):
                here.version = commit.version
                here.has_own_commits |= not _is_imported(commit)
                here.ids += [unescape(event.data["id"]) for event in commit.events if events.is_adk(event)]
                if commit.version == 1 and here.has_own_commits:
                    raise AlreadyExists(f"{found.session!r} is here already, and began here.", session=found.session, version=1)
        except NotFound:
            pass
        return here

    def check(self, theirs: list[AdkEvent]) -> None:
        """Raise `AlreadyExists` if the source has events that cannot follow those that are here."""
        same = all(mine == event.id for mine, event in zip(self.ids, theirs, strict=False))
        if not same or (self.has_own_commits and len(theirs) > len(self.ids)) or (not self.has_own_commits and len(theirs) < len(self.ids)):
            raise AlreadyExists(f"{self.session!r} is here already and has events of its own.", session=self.session, version=self.version)


def _is_imported(commit: Commit) -> bool:
    return all(event.type == SET_RIGHT or (isinstance(event.data, dict) and events.IMPORTED in event.data) for event in commit.events)


async def _copy_events(store: Store, found: Names, here: _Here, stored: StoredSession, theirs: list[AdkEvent]) -> None:
    """Write the events that are missing, one commit each, then what the source's state has otherwise."""
    data = [{**events.as_json(event), events.IMPORTED: True} for event in theirs]
    version, final = here.version, escape(stored.state)
    if version:
        state = (await store.read(found.session)).state["state"]
    else:
        later = {key for one in data for key in events.delta_of(one)}
        state = {key: value for key, value in final.items() if key not in later}
        created = {"timestamp": stored.created, "actions": {"state_delta": {}}, events.IMPORTED: True}
        begin = Event(events.CREATED, created, (op.set("", {"state": state}),))
        version = (await store.append(found.session, begin, expect=0)).version
    for one in data[len(here.ids) :]:
        event = events.written(one, events.own(events.delta_of(one)), state)
        state = apply({"state": state}, event.ops)["state"]
        version = (await store.append(found.session, event, expect=version, key=one["id"], on_conflict="raise")).version
    left = diff_json(state, final, events.STATE)
    if left:
        await store.append(found.session, Event(SET_RIGHT, None, tuple(left)), expect=version, on_conflict="raise")


async def _copy_shared(store: Store, scope: str, values: dict[str, object]) -> None:
    """Set what an app or a user shares. If anything but an import wrote to it here, only keys that are missing are set."""
    values = escape(values)
    try:
        mine = (await store.read(scope)).state
        newest = [commit async for commit in store.history(scope, newest_first=True, limit=1)]
    except (NotFound, Deleted):
        mine, newest = {}, []
    follow = all(_is_imported(commit) for commit in newest)
    missing = {key: value for key, value in values.items() if key not in mine or (follow and mine[key] != value)}
    if missing:
        data = {"keys": sorted(missing), "at": platform_time.get_time(), events.IMPORTED: True}
        await store.append(scope, Event(events.SHARED, data, events.setting(missing)), recreate=True)


async def _compare(store: Store, found: Names, theirs: list[AdkEvent], stored: StoredSession | None) -> None:
    """Raise `Corrupt` unless ADK gets from here what the source says; without `stored` the state has changed here since."""
    loaded = await PerdureSessionService(store).get_session(app_name=found.app, user_id=found.user, session_id=found.id)
    mine = [] if loaded is None else loaded.events
    for place, event in enumerate(theirs):
        if place >= len(mine) or events.as_json(mine[place]) != events.as_json(event):
            raise Corrupt(f"Event {place} ({event.id}) of {found.session!r} is not what the source says.", session=found.session)
    if loaded is None or (stored is not None and events.own(loaded.state) != stored.state):
        raise Corrupt(f"The state of {found.session!r} is not what the source says.", session=found.session)


def open_source(address: str) -> AdkSource:
    """Open a database of ADK's `SqliteSessionService` or `DatabaseSessionService`: the path of an SQLite file, or SQLAlchemy's URL.

    Raises `NotFound`, `Invalid` for what is no such database, `Unavailable`, `Unsupported` for a schema that is too new or a missing
    package.
    """
    return AdkSource(open_tables(address))
