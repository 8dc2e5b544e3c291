"""The SDK's session on a store. What a turn adds is one commit, whatever the conversation's length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from agents import SessionSettings
from agents.memory.session import SessionABC

from perdure.adapters.common.session_ids import compose
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import lost_race, transact
from perdure.adapters.openai_agents import parts, transcript
from perdure.adapters.openai_agents.parts import Parts
from perdure.adapters.openai_agents.transcript import Entry
from perdure.engine.options import EVENTS_MAX
from perdure.errors import Closed, Conflict, Invalid, NotFound, TooLarge, Unknown
from perdure.model.events import Event

if TYPE_CHECKING:
    from agents.items import TResponseInputItem
    from agents.memory.session import _CompactionSnapshot

ROOT = "openai"
"""What the ids of conversations begin with in the store: openai/<session id>."""


class SessionClosed(Closed):
    """Make another session object: the store is still open, and the conversation is as it was."""


class _Reads(NamedTuple):
    """Up to which versions one task read one session object: the read before the last, and the last."""

    session: PerdureSession
    before: int | None
    last: int


_reads: ContextVar[_Reads | None] = ContextVar("perdure_openai_reads", default=None)
"""The SDK's compaction reads a conversation, asks the model, reads again and then gives the replacement, all in one task. The replacement
is made of what the first of these reads saw."""


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
    Text is kept as it is, half of a surrogate pair too.

    Raises `perdure.Error`s: `Invalid` for items that are no JSON, `Deleted` once the session was deleted in the store.
    """

    def __init__(self, session_id: str, store: AnyStore, *, session_settings: SessionSettings | dict[str, Any] | None = None) -> None:
        self.session_id = session_id
        self.session_settings = _settings(session_settings)
        self._store = asynchronous(store)
        self._session = compose("A conversation", ROOT, session_id)
        self._known: _Known | None = None
        self._closed = False

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first: the newest `limit` of them, or as many as the settings say. A negative limit means all."""
        self._check_open()
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit == 0:
            return []
        if limit is not None and type(limit) is not int:
            raise Invalid(f"A limit is a number of items, not {type(limit).__name__}.")
        known = await self._newest(None if limit is None or limit < 0 else limit)
        held = _reads.get()
        _reads.set(_Reads(self, held.last if held is not None and held.session is self else None, known.version))
        return [_copy(entry.item) for entry in known.entries]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items: all of them or none, in one commit, whatever their number and size.

        What one commit cannot hold (10,000 items, 16 MiB) is written before it in parts that no reader sees. If the process dies in
        between, they stay unseen.
        """
        self._check_open()
        if items:
            await self._add_items([transcript.event(_plain(item)) for item in _listed(items)])

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it; `None` if there is none. It stays in the history."""

        async def attempt(_again: bool) -> TResponseInputItem | None:
            known = await self._all()
            if not known.entries:
                return None
            last = known.entries[-1]
            item: TResponseInputItem = _copy(last.item)
            await self._replace(known, [transcript.popped(last)])
            return item

        return await transact(self._session, attempt)

    async def clear_session(self) -> None:
        """Remove all items. They stay in the history; `store.delete` ends the session itself."""
        if (await self._all()).version:
            await self._add([Event(transcript.CLEARED)])

    def close(self) -> Awaitable[None]:
        """Close this object: its other methods raise `Closed` from now on. The store, and other objects, stay open.

        The SDK's `SQLiteSession` has a `close` to be called, its other sessions one to be awaited: this one may be either. Twice is once.
        """
        self._closed, self._known = True, None
        return _Done()

    @property
    def _read_compaction_items(self) -> Callable[[int | None], Awaitable[tuple[list[TResponseInputItem], bool]]] | None:
        """What the SDK's compaction session asks, where there is one, instead of `get_items` for what it compacts."""
        return self._read_to_compact if self._keeps_items_as_they_are() else None

    async def _read_to_compact(self, limit: int | None) -> tuple[list[TResponseInputItem], bool]:
        """The items, and whether these are all."""
        items = await self.get_items(limit)
        held = _reads.get()
        if held is not None:
            _reads.set(held._replace(before=held.last))
        return items, limit is not None and len(items) < limit

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """What the SDK's compaction session asks for to replace all items that it read. Those that came since follow.

        Raises `Conflict` if items that it read were taken away meanwhile: then nothing changes.
        """
        if not self._keeps_items_as_they_are():
            return False  # the SDK goes through the subclass's methods then
        output = [transcript.event(_plain(item)) for item in items]
        held = _reads.get()
        seen = held.before if held is not None and held.session is self else None
        written = Parts(self._store, self._session)

        async def attempt(_again: bool) -> bool:
            nonlocal seen
            now = await self._all()
            seen = now.version if seen is None else seen
            await self._check_all_there(seen, now.version)
            since = [transcript.event(entry.item) for entry in now.entries if entry.place[0] > seen]
            gone = [transcript.compacted(now.entries[0], None)] if now.entries else []
            events = [*gone, *await written.fitting([*output, *since])]
            if events:
                await self._replace(now, events)
            return True

        return await transact(self._session, attempt)

    def _keeps_items_as_they_are(self) -> bool:
        """Whether no subclass does something to items on their way."""
        return type(self).get_items is PerdureSession.get_items and type(self).add_items is PerdureSession.add_items

    async def _check_all_there(self, seen: int, now: int) -> None:
        if now > seen:
            last = seen
            async for commit in self._store.history(self._session, after=seen, before=now + 1):
                gap, last = commit.version > last + 1, commit.version
                if gap or transcript.removes_items(commit):
                    raise Conflict(
                        f"Items of {self._session!r} were taken away while they were compacted, at version {commit.version}.",
                        session=self._session,
                        expected=seen,
                        actual=now,
                        commits=(commit,),
                        paths=(),
                    )

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[Any], bool] | None = None
    ) -> _CompactionSnapshot | None:
        """What the SDK's compaction session asks stores for that can replace the end of a conversation atomically."""
        from agents.memory.session import _CompactionSnapshot

        known = await self._all()
        entries = known.entries[-limit:]

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            expected = entries[start:]
            written = Parts(self._store, self._session)

            async def attempt(_again: bool) -> bool:
                now = await self._all()
                if now.entries[-len(expected) :] != expected:
                    return False
                until = _expired(now.entries[: -len(expected)], prune_prefix)
                items = await written.fitting([transcript.event(_plain(item)) for item in output])
                await self._replace(now, [transcript.compacted(expected[0], until), *items])
                return True

            return bool(expected) and await transact(self._session, attempt)

        return _CompactionSnapshot([_copy(entry.item) for entry in entries], len(entries) == len(known.entries), replace_suffix)

    async def _newest(self, count: int | None) -> _Known:
        if count is None or self._known is not None:
            known = await self._all()
            return known if count is None else known._replace(entries=known.entries[-count:])
        try:
            return _Known(*await transcript.newest(self._store.history(self._session, newest_first=True), count, self._fetch))
        except NotFound:
            return _Known(0, [])

    async def _all(self) -> _Known:
        """The conversation as it is now: what is remembered, and what came since."""
        self._check_open()
        version, entries = self._known or _Known(0, [])
        try:
            async for commit in self._store.history(self._session, after=version):
                before = entries if commit.version == version + 1 else []  # an earlier life ended in between
                version, entries = commit.version, await transcript.forward(before, commit, self._fetch)
        except NotFound:
            return _Known(0, [])
        known = self._known
        if (known is None or known.version <= version) and not self._closed:
            self._known = _Known(version, entries)
        return _Known(version, entries)

    async def _fetch(self, logged: Event) -> list[dict[str, Any]]:
        return await parts.fetch(self._store, self._session, logged)

    async def _add_items(self, events: list[Event]) -> None:
        if len(events) <= EVENTS_MAX:
            try:
                return await self._add(events)
            except TooLarge:
                pass
        return await self._add([await Parts(self._store, self._session).instead(events)])

    async def _add(self, events: list[Event]) -> None:
        """Commit events after those that are there. If the outcome is unknown it is sent again under its key."""
        self._check_open()
        key = self._store.new_id()
        await _resent(lambda: self._store.append(self._session, *events, key=key))

    async def _replace(self, known: _Known, events: list[Event]) -> None:
        """Commit events after this very state. Raises `Overtaken` if it is no longer the newest."""
        key = self._store.new_id()
        with lost_race(Conflict):
            await _resent(lambda: self._store.append(self._session, *events, expect=known.version, on_conflict="raise", key=key))

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed(f"This session object of {self.session_id!r} was closed.")


class _Done:
    """An awaitable that need not be awaited."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


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


def _listed(items: Any) -> list[Any]:
    if not isinstance(items, (list, tuple)):
        raise Invalid(f"Items of a conversation come in a list, not in {type(items).__name__}.")
    return list(items)


def _plain(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Invalid(f"An item of a conversation is a dict, not {type(item).__name__}.")
    return item


def _copy(value: Any) -> Any:
    """A value of the caller's own."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
