"""The memory service: what is remembered of a user is one Perdure session, searched by words.

    {"sessions": {"<session>": [entry, …]}, "entries": [entry, …], "forgotten": {"<id>": true}}

An entry is {"id": …, "content": {…}, "author": …, "timestamp": …, "custom_metadata": {…}}; `entries` are of no session. A
timestamp is an event's, in seconds, or a text that the caller gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from google.adk.events.event import Event as AdkEvent
from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import Session
from google.genai import types

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.cutting import batches
from perdure.adapters.common.models import model_json
from perdure.adapters.common.session_ids import actor_name
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.google_adk import names
from perdure.adapters.google_adk.search_terms import SearchTerms
from perdure.adapters.google_adk.transactions import SessionTransactions
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.pointer import join
from perdure.model.values import check, thaw

REMEMBERED, FORGOTTEN = "remembered", "forgotten"
RESULTS_MAX = 10
"""Most memories that a search gives, as ADK's in-memory service does."""
Entry = dict[str, Any]


class PerdureMemoryService(BaseMemoryService):
    """Keeps what agents remember of each user in an open store, which stays the caller's to close.

    An event is remembered once by its id, however often it or its session is added, by any number of processes. Events without
    content are left out. A search compares words, as ADK's in-memory service does, and reads all that is remembered of the user;
    it takes about as long as there.

    `expire_after`, `keep` and `drop` are the policy that a user's memory begins with, as in `Store.configure`: one to which nothing was
    added for so long (a `timedelta` or seconds) is deleted by a sweeper as a whole, and a search is no use of it. `keep` and `drop` are
    about the history of changes: nothing is forgotten with it.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        self._store = with_policy(asynchronous(store), expire_after=expire_after, keep=keep, drop=drop)
        self._memories = SessionTransactions(self._store, "memory of ADK", "sessions")

    async def add_session_to_memory(self, session: Session) -> None:
        """Remember a session's events. Those that are remembered already get their newest content. None is removed, so a session
        that was loaded in part can be added. One commit, or one for each 8 MiB if they are more. The same call sent again completes it."""
        entries = _entries(session.events, {})
        await self._add(session.app_name, session.user_id, session.id, entries, replace=True)

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[AdkEvent],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember these events, of a session or of none; what is remembered already stays. `custom_metadata` (JSON) goes to each.

        One commit, or one for each 8 MiB if they are more. The same call sent again completes it. Raises `TooLarge` for an event above
        16 MiB.
        """
        await self._add(app_name, user_id, session_id, _entries(events, custom_metadata or {}), replace=False)

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember these items: each once by its id, or as something new if it has none. `custom_metadata` (JSON) goes to each."""
        entries = []
        for memory in memories:
            entry = model_json(memory, "A memory", exclude_none=True)
            entry["id"] = escape(memory.id) or self._store.new_id()
            extra = escape({**memory.custom_metadata, **(custom_metadata or {})})
            entries.append({**entry, "custom_metadata": extra} if extra else entry)
        await self._add(app_name, user_id, None, entries, replace=False)

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """The up to ten memories of this user that share most words with the query, those that were added first before others.

        Upper and lower case are the same. Words of scripts that leave no spaces are found within a text. One read.
        """
        state = await self._memories.state(names.memory(app_name, user_id))
        wanted = SearchTerms(query)
        found = [(wanted.count(_text(entry)), entry) for _, entries in _lists(state) for entry in entries]
        best = sorted([pair for pair in found if pair[0]], key=lambda pair: -pair[0])
        return SearchMemoryResponse(memories=[_memory(entry) for _, entry in best[:RESULTS_MAX]])

    async def delete_memory(self, *, app_name: str, user_id: str, memory_id: str | None = None) -> None:
        """Forget one memory; if its event is added again, it stays forgotten. Nothing happens if there is none. The history has it."""

        def decide(state: Any) -> Event | None:
            found = [
                op.remove(join([*path, str(index)]))
                for path, entries in _lists(state)
                for index, entry in enumerate(entries)
                if entry["id"] == id
            ]
            return Event(FORGOTTEN, {"id": id}, (*found, op.set(join(["forgotten", str(id)]), True))) if found else None

        id = escape(memory_id)
        if memory_id:
            await self._memories.commit(names.memory(app_name, user_id), decide)

    async def _add(self, app: str, user: str, session: str | None, entries: list[Entry], *, replace: bool) -> None:
        for entry in entries:
            check(entry, what="what is to be remembered")
        for batch in batches(entries, entries):
            await self._add_batch(app, user, escape(session), batch, replace=replace)

    async def _add_batch(self, app: str, user: str, session: str | None, entries: list[Entry], *, replace: bool) -> None:
        path = ["entries"] if session is None else ["sessions", session]

        def decide(state: Any) -> Event | None:
            held = dict(_lists(state)).get(tuple(path), [])
            places = {entry["id"]: index for index, entry in enumerate(held)}
            left_out = places.keys() | (set() if state is None else state["forgotten"].keys())
            new: dict[str, Entry] = {}
            ops: list[Op] = [] if state is not None else [op.set("", {"sessions": {}, "entries": [], "forgotten": {}})]
            for entry in entries:
                index = places.get(entry["id"])
                if entry["id"] not in left_out:
                    new.setdefault(entry["id"], entry)
                elif replace and index is not None and held[index] != (newest := {**held[index], **entry}):
                    ops.append(op.set(join([*path, str(index)]), newest))
            ops += [op.append(join(path), list(new.values()))] if new else []
            return Event(REMEMBERED, {"session": session, "ids": list(new)}, tuple(ops)) if ops else None

        await self._memories.commit(names.memory(app, user), decide, actor=actor_name(user))


def _entries(events: Sequence[AdkEvent], metadata: Mapping[str, object]) -> list[Entry]:
    extra = {"custom_metadata": escape(dict(metadata))} if metadata else {}
    return [
        {
            "id": escape(event.id),
            "content": model_json(event.content, "An event's content", exclude_none=True),
            "author": escape(event.author),
            "timestamp": event.timestamp,
            **extra,
        }
        for event in events
        if event.content and event.content.parts
    ]


def _lists(state: Any) -> Iterator[tuple[tuple[str, ...], list[Entry]]]:
    """The lists of entries, each with its path."""
    if state is not None:
        for session, entries in state["sessions"].items():
            yield ("sessions", session), entries
        yield ("entries",), state["entries"]


def _text(entry: Entry) -> str:
    return " ".join([unescape(part["text"]) for part in entry["content"].get("parts") or () if part.get("text")])


def _memory(entry: Entry) -> MemoryEntry:
    held = unescape(thaw(entry))
    return MemoryEntry(
        id=held["id"],
        content=types.Content.model_validate(held["content"]),
        author=held.get("author"),
        timestamp=_time(held.get("timestamp")),
        custom_metadata=held.get("custom_metadata", {}),
    )


def _time(timestamp: Any) -> str | None:
    if not isinstance(timestamp, (int, float)):
        return timestamp if timestamp is None else str(timestamp)
    try:
        return datetime.fromtimestamp(timestamp).isoformat()  # noqa: DTZ006  # local time, as ADK's own services say it
    except (OSError, OverflowError, ValueError):  # no year of a calendar
        return str(timestamp)
