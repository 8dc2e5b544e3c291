"""The SDK's session on a store: what a turn adds is one commit, whatever the conversation's length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from agents import SessionSettings
from agents.memory.session import SessionABC

from perdure.adapters.faces import AnyStore, asynchronous
from perdure.adapters.naming import compose
from perdure.adapters.openai_agents import transcript
from perdure.adapters.openai_agents.transcript import Entry
from perdure.errors import Conflict, Invalid, NotFound, Unknown
from perdure.model.events import Event

if TYPE_CHECKING:
    from agents.items import TResponseInputItem
    from agents.memory.session import _CompactionSnapshot

ROOT = "openai"
"""What the ids of conversations begin with in the store: openai/<session id>."""
ATTEMPTS = 64
"""How often a removal is decided anew because others wrote first."""


class _Known(NamedTuple):
    """The conversation as of a version. Replaced as a whole, so threads may share it."""

    version: int
    entries: list[Entry]


class PerdureSession(SessionABC):
    """A conversation of the OpenAI Agents SDK in an open store, which stays the caller's to close.

    `session_id` names it (`openai/<session_id>` in the store); `session_settings` as for the SDK's own sessions: `limit` is how many
    of the newest items a run sees, all by default. Any number of objects, threads, event loops and processes may use one conversation:
    what they add is kept in the order of its commits, and an item is popped by one of them only.

    Reading all items costs what came since this object last looked; with a limit, a new object reads the end of the log alone.
    Raises `perdure.Error`s: `Invalid` for items that are no JSON, `Deleted` once the session was deleted in the store.
    """

    def __init__(self, session_id: str, store: AnyStore, *, session_settings: SessionSettings | dict[str, Any] | None = None) -> None:
        self.session_id = session_id
        self.session_settings = _settings(session_settings)
        self._store = asynchronous(store)
        self._session = compose("A conversation", ROOT, session_id)
        self._known: _Known | None = None

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first: the newest `limit` of them, or as many as the settings say. A negative limit means all."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit == 0:
            return []
        return [_copy(entry.item) for entry in await self._newest(None if limit is None or limit < 0 else limit)]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items: one commit, all of them or none."""
        if items:
            await self._add([transcript.event(_plain(item)) for item in items])

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item off and return it; `None` if there is none. It stays in the history."""
        for _ in range(ATTEMPTS):
            known = await self._all()
            if not known.entries:
                return None
            last = known.entries[-1]
            item: TResponseInputItem = _copy(last.item)
            if await self._replace(known, [transcript.popped(last)]):
                return item
        raise _overtaken(self._session)

    async def clear_session(self) -> None:
        """Take all items away. They stay in the history; `store.delete` ends the session itself."""
        if (await self._all()).version:
            await self._add([Event(transcript.CLEARED)])

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[Any], bool] | None = None
    ) -> _CompactionSnapshot | None:
        """What the SDK's compaction session asks stores for that can replace the end of a conversation atomically."""
        from agents.memory.session import _CompactionSnapshot

        known = await self._all()
        entries = known.entries[-limit:]

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            expected = entries[start:]
            if not expected:
                return False
            for _ in range(ATTEMPTS):
                now = await self._all()
                if now.entries[-len(expected) :] != expected:
                    return False
                until = _expired(now.entries[: -len(expected)], prune_prefix)
                events = [transcript.compacted(expected[0], until), *[transcript.event(_plain(item)) for item in output]]
                if await self._replace(now, events):
                    return True
            raise _overtaken(self._session)

        return _CompactionSnapshot([_copy(entry.item) for entry in entries], len(entries) == len(known.entries), replace_suffix)

    async def _newest(self, count: int | None) -> Sequence[Entry]:
        if count is None or self._known is not None:
            entries = (await self._all()).entries
            return entries if count is None else entries[-count:]
        try:
            return await transcript.newest(self._store.history(self._session, newest_first=True), count)
        except NotFound:
            return []

    async def _all(self) -> _Known:
        """The conversation as it is now: what is remembered, and what came since."""
        version, entries = self._known or _Known(0, [])
        try:
            async for commit in self._store.history(self._session, after=version):
                version, entries = commit.version, transcript.forward(entries, commit)
        except NotFound:
            return _Known(0, [])
        known = self._known
        if known is None or known.version <= version:
            self._known = _Known(version, entries)
        return _Known(version, entries)

    async def _add(self, events: list[Event]) -> None:
        """Commit events behind whatever is there; sent again under its key while nobody knows what became of it."""
        key = self._store.new_id()
        await _resent(lambda: self._store.append(self._session, *events, key=key))

    async def _replace(self, known: _Known, events: list[Event]) -> bool:
        """Commit events behind this very state; `False` if it is no longer the newest."""
        key = self._store.new_id()
        try:
            await _resent(lambda: self._store.append(self._session, *events, expect=known.version, on_conflict="raise", key=key))
        except Conflict:
            return False
        return True


def _settings(given: SessionSettings | dict[str, Any] | None) -> SessionSettings:
    if isinstance(given, dict):
        if unknown := given.keys() - {field.name for field in fields(SessionSettings)}:
            raise TypeError(f"Unknown session settings: {', '.join(sorted(unknown))}")
        return SessionSettings(**given)
    return given or SessionSettings()


async def _resent(send: Callable[[], Awaitable[object]]) -> None:
    try:
        await send()
    except Unknown:
        await send()


def _expired(entries: list[Entry], prune: Callable[[Any], bool] | None) -> Entry | None:
    """The last of the entries at the beginning that the SDK calls expired."""
    until = None
    for entry in entries if prune is not None else ():
        if prune is None or not prune(_copy(entry.item)):
            break
        until = entry
    return until


def _plain(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Invalid(f"An item of a conversation is a dict, not {type(item).__name__}.")
    return item


def _copy(value: Any) -> Any:
    """A value of the caller's own."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _overtaken(session: str) -> Conflict:
    return Conflict(f"Others wrote to {session!r} {ATTEMPTS} times in a row.", session=session, expected=0, actual=0, commits=(), paths=())
