"""The SDK's session on a store. What a turn adds is one commit, whatever the conversation's length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from dataclasses import fields
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import ReferenceType, ref

from agents import SessionSettings
from agents.memory.session import SessionABC

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.expired import append_or_begin, expired_at
from perdure.adapters.common.kept import kept
from perdure.adapters.common.run_lease import OwnLease, RunLease, run_lease
from perdure.adapters.common.session_ids import compose
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import lost_race, transact
from perdure.adapters.openai_agents import parts, transcript
from perdure.adapters.openai_agents.parts import Parts
from perdure.adapters.openai_agents.transcript import Entry
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import EVENTS_MAX
from perdure.errors import AlreadyExists, Closed, Conflict, Deleted, Invalid, NotFound, TooLarge, Unknown
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

    session: ReferenceType[PerdureSession]
    """Weakly: a task's context does not keep an object, and its lease, for as long as the task runs."""
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

    `expire_after`, `keep` and `drop` are the policy that a conversation begins with, as in `Store.configure`: one that was not written to
    for so long (a `timedelta` or seconds) is deleted by a sweeper, and is then empty; what is added begins it again. Of the others only so
    many commits, or those of a time, are kept; a turn is one or two. Older items go to the store's archive and are read as before, or with
    `drop` for good: then the conversation begins with the oldest item that is left, which may be the result of a call that is gone.
    A conversation that is there keeps the policy that it has.

    `lease`: with `True`, or a `RunLease` with other options, this object holds the conversation from its first use on: a second worker
    waits for it (60 s), or is refused with `Held`, before its model is called. It is released by `release()`, at the end of
    `async with session`, by `close()`, and at the end of the asyncio task that took it. One that was lost refuses with `Fenced` until then.

    Raises `perdure.Error`s: `Invalid` for items that are no JSON, `Deleted` once the session was deleted in the store.
    """

    def __init__(
        self,
        session_id: str,
        store: AnyStore,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
        lease: bool | RunLease = False,
    ) -> None:
        self.session_id = session_id
        self.session_settings = _settings(session_settings)
        self._store = with_policy(asynchronous(store), expire_after=expire_after, keep=keep, drop=drop)
        self._session = compose("A conversation", ROOT, session_id)
        options = run_lease(lease)
        self._own = None if options is None else OwnLease(self._store, self._session, options)
        self._known: _Known | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._hold()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def release(self) -> None:
        """Let go of the lease, where there is one, so that others need not wait. The next use takes it again."""
        if self._own is not None:
            await self._own.release()

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first: the newest `limit` of them, or as many as the settings say. A negative limit means all."""
        await self._hold()
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit == 0:
            return []
        if limit is not None and type(limit) is not int:
            raise Invalid(f"A limit is a number of items, not {type(limit).__name__}.")
        known = await self._newest(None if limit is None or limit < 0 else limit)
        held = _reads.get()
        _reads.set(_Reads(ref(self), held.last if held is not None and held.session() is self else None, known.version))
        return [_copy(entry.item) for entry in known.entries]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items: all of them or none, in one commit, whatever their number and size.

        What one commit cannot hold (10,000 items, 16 MiB) is written before it in parts that no reader sees. If the process dies in
        between, they stay unseen.
        """
        await self._hold()
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
        return _Closing(self._own)

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
        await self._hold()
        output = [transcript.event(_plain(item)) for item in items]
        held = _reads.get()
        seen = held.before if held is not None and held.session() is self else None
        written = Parts(self._store, self._session, lease=self._lease)

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
            async for commit in kept(self._store, self._session, after=seen, before=now + 1, control=True):
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
            written = Parts(self._store, self._session, lease=self._lease)

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
            return _Known(*await transcript.newest(kept(self._store, self._session, newest_first=True), count, self._fetch))
        except NotFound:
            return _Known(0, [])
        except Deleted:
            return await self._if_expired()

    async def _all(self) -> _Known:
        """The conversation as it is now: what is remembered, and what came since."""
        await self._hold()
        version, entries = self._known or _Known(0, [])
        try:
            async for commit in kept(self._store, self._session, after=version, control=True):
                before = entries if commit.version == version + 1 else []  # an earlier life ended in between, or commits were dropped
                version, entries = commit.version, await transcript.forward(before, commit, self._fetch)
        except NotFound:
            return _Known(0, [])
        except Deleted:
            return await self._if_expired()
        known = self._known
        if (known is None or known.version <= version) and not self._closed:
            self._known = _Known(version, entries)
        return _Known(version, entries)

    async def _if_expired(self) -> _Known:
        """A conversation that has expired is empty. Raises `Deleted` for one that somebody deleted."""
        if await expired_at(self._store, self._session) is None:
            raise Deleted(f"Session {self._session!r} was deleted.", session=self._session)
        return _Known(0, [])

    async def _fetch(self, logged: Event) -> list[dict[str, Any]]:
        return await parts.fetch(self._store, self._session, logged)

    async def _add_items(self, events: list[Event]) -> None:
        if len(events) <= EVENTS_MAX:
            try:
                return await self._add(events)
            except TooLarge:
                pass
        return await self._add([await Parts(self._store, self._session, lease=self._lease).instead(events)])

    async def _add(self, events: list[Event]) -> None:
        """Commit events after those that are there. If the outcome is unknown it is sent again under its key."""
        await self._hold()
        options = {"key": self._store.new_id(), "lease": self._lease}
        await _resent(lambda: append_or_begin(self._store, self._session, *events, **options))

    async def _replace(self, known: _Known, events: list[Event]) -> None:
        """Commit events after this very state. Raises `Overtaken` if it is no longer the newest."""
        options = {"expect": known.version, "on_conflict": "raise", "key": self._store.new_id(), "lease": self._lease}
        with lost_race(AlreadyExists, Conflict):
            await _resent(lambda: append_or_begin(self._store, self._session, *events, **options))

    @property
    def _lease(self) -> Lease | None:
        return None if self._own is None else self._own.lease

    async def _hold(self) -> None:
        """Take the lease, where there is to be one and it was not taken yet. Raises `SessionClosed`."""
        self._check_open()
        if self._own is not None:
            await self._own.take()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed(f"This session object of {self.session_id!r} was closed.")


class _Closing:
    """An awaitable that need not be awaited: the lease is released then, or else soon."""

    def __init__(self, own: OwnLease | None) -> None:
        self._own = own

    def __await__(self) -> Generator[Any, Any, None]:
        own, self._own = self._own, None
        if own is not None:
            yield from own.release().__await__()

    def __del__(self) -> None:
        if self._own is not None:
            self._own.let_go()


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
