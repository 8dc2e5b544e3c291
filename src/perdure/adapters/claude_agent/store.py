"""The SDK's session store: a transcript is a session, a batch of lines is a commit, the summary for listings is its state.

{"project_key": "-home-ann-trip", "session_id": "3f0c…", "summary": {…}}
{"project_key": "-home-ann-trip", "session_id": "3f0c…", "subpath": "subagents/agent-7"}
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar, cast

import anyio.to_thread
from claude_agent_sdk import SessionKey, SessionStore, SessionStoreEntry, fold_session_summary
from claude_agent_sdk.types import SessionListSubkeysKey, SessionStoreListEntry, SessionSummaryEntry

from perdure.adapters.claude_agent import names
from perdure.adapters.claude_agent.names import Place
from perdure.adapters.claude_agent.seen import Seen, SeenIds
from perdure.adapters.claude_agent.transcript import Batch, Line, batches, entry_of, id_of
from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.expired import append_or_begin, expired_at
from perdure.adapters.common.json_diff import diff_json
from perdure.adapters.common.kept import kept
from perdure.adapters.common.session_ids import unescape as session_part
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous, wait
from perdure.adapters.common.transactions import delete_if_there, lost_race, read_own, transact
from perdure.engine.views import Info, Receipt, View
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, KeyReused, NotFound, Unknown
from perdure.model import ops as op
from perdure.model.commit import Commit
from perdure.model.events import Event

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PerdureSessionStore(SessionStore):
    """Keeps the transcripts of the Claude Agent SDK in an open store, which stays the caller's to close.

    `append` is one commit, durable when it returns, whatever the transcript's length. A line that has a uuid is there once,
    however often it is sent; a batch that is sent again adds nothing. What two processes mirror of one session is kept, in the order of
    their commits. A session that was deleted stays deleted: what an agent still mirrors to it is refused with `Deleted`.

    `expire_after`, `keep` and `drop` are the policy that transcripts begin with, as in `Store.configure`: one that was not written to for
    so long (a `timedelta` or seconds) is deleted by a sweeper, is `None` to `load`, and begins again with what is mirrored to it. Of the
    others only so many commits, or those of a time, are kept. Older lines go to the store's archive and are read as before, or with `drop`
    for good: then a transcript begins with the oldest line that is left. One that is there keeps the policy that it has.

    Any number of objects, threads, event loops (of asyncio or trio) and processes may use one store.
    Raises `perdure.Error`s, which the SDK reports as `MirrorErrorMessage`, or as `RuntimeError` on resuming.
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
        self._seen = SeenIds()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add lines to the end of the transcript; starts it if there is none.

        All of them or none, up to 8 MiB or 5,000 lines; more is several commits, and sending all again completes them.
        Raises `Deleted`, `Invalid` for what is no JSON, `TooLarge` for a line over 16 MiB, `Unknown`, `Unavailable`.
        """
        await _served(self._append(key, entries))

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """All lines, oldest first; `None` for a transcript that was never written, or was deleted."""
        return await _served(self._load(key))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The project's sessions with the time of their last commit, newest first. Reads the index alone."""
        return await _served(self._list_sessions(project_key))

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """The same sessions with what the SDK's fold made of their lines, kept at each append. Reads no transcript in full."""
        return await _served(self._list_session_summaries(project_key))

    async def delete(self, key: SessionKey) -> None:
        """Close a transcript with a tombstone; a main transcript's subagents too. Nothing happens if there is none."""
        await _served(self._delete(key))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The subpaths of the transcripts beside a main one."""
        return await _served(self._list_subkeys(key))

    async def _append(self, key: Mapping[str, Any], entries: list[SessionStoreEntry]) -> None:
        place = names.place(key)
        if not isinstance(entries, (list, tuple)):
            raise Invalid(f"Lines of a transcript come in a list, not in {type(entries).__name__}.")
        for batch in batches(cast("list[dict[str, Any]]", entries)):
            await self._commit(place, batch)

    async def _commit(self, place: Place, batch: Batch) -> None:
        """Append what the transcript lacks of a batch, on the very version that says so."""
        await transact(place.session, partial(self._try_commit, place, batch))

    async def _try_commit(self, place: Place, batch: Batch, strong: bool) -> None:
        # What this process remembers is mostly current: the append finds out.
        view = await self._view(place.session, strong=strong)
        version, seen = 0 if view is None else view.version, await self._known(place.session, view)
        lines = _lacking(batch, seen)
        key = f"batch/{seen.life}/{batch.digest}" if batch.marked else seen.unsure.get(batch.digest) or self._store.new_id()
        if len(lines) < len(batch.lines):
            if not strong:  # It was sent before, it seems. The newest state decides then: the transcript may have been deleted since.
                return await self._try_commit(place, batch, strong=True)
            if not lines or (view is not None and await self._store.find(place.session, key) is not None):
                return None
        try:
            with lost_race(AlreadyExists, Conflict):
                receipt = await self._sent(place.session, _events(place, view, lines), version, key)
        except Unknown:
            seen.unsure[batch.digest] = key
            raise
        seen.unsure.pop(batch.digest, None)
        if receipt is None or receipt.duplicate:
            await self._store.read(place.session)  # it was there once; raises `Deleted` if it no longer is
            return None
        self._seen.add(place.session, seen, [line.id for line in lines if line.id], after=version, version=receipt.version)
        if view is None and place.main is not None:
            await self._refuse_orphan(place.session, place.main)
        return None

    async def _sent(self, session: str, events: list[Event], version: int, key: str) -> Receipt | None:
        """One commit on this version; `None` if the batch is there, but was stored on another version, which made it another payload."""
        try:
            return await append_or_begin(self._store, session, *events, expect=version, on_conflict="raise", key=key)
        except KeyReused:
            return None

    async def _known(self, session: str, view: View | None) -> Seen:
        """The ids of the transcript's lines up to a version, or beyond."""
        if view is None:
            return self._seen.forget(session)
        # What is held here counts, for other transcripts may displace this one in the memory while it is read.
        seen = self._seen.of(session)
        if seen.version < view.version:
            async for commit in kept(self._store, session, after=seen.version, before=view.version + 1, control=True):
                seen = self._learn(session, seen, commit, _entries(commit))
        return seen

    def _learn(self, session: str, seen: Seen, commit: Commit, entries: list[dict[str, Any]]) -> Seen:
        """What is known of a transcript after a commit that has these lines."""
        if commit.version > seen.version:
            if commit.version > seen.version + 1:  # between them an earlier life ended, or commits were dropped
                seen = self._seen.forget(session, life=commit.version - 1)
            ids = [id for entry in entries if (id := id_of(entry))]
            self._seen.add(session, seen, ids, after=commit.version - 1, version=commit.version)
        return seen

    async def _refuse_orphan(self, session: str, main: str) -> None:
        """Delete a subagent's transcript again if its session was deleted before it began. Raises `Deleted` then."""
        try:
            await self._store.read(main)
        except NotFound:
            return
        except Deleted:
            if await expired_at(self._store, main) is not None:
                return
            await delete_if_there(self._store, session)
            raise

    async def _load(self, key: Mapping[str, Any]) -> list[SessionStoreEntry] | None:
        session = names.place(key).session
        view = await self._view(session)
        if view is None:
            return None
        entries: list[dict[str, Any]] = []
        seen = self._seen.of(session)
        async for commit in kept(self._store, session, before=view.version + 1, control=True):
            found = _entries(commit)
            seen = self._learn(session, seen, commit, found)
            entries += found
        return cast("list[SessionStoreEntry]", entries) or None

    async def _list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        return [{"session_id": id, "mtime": _milliseconds(info.updated_at)} for id, info in await self._sessions(project_key)]

    async def _list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        found: list[SessionSummaryEntry] = []
        for id, info in await self._sessions(project_key):
            view = await self._view(info.session, strong=False)
            if view is not None and view.version < info.version:
                view = await self._view(info.session)
            if view is not None:
                found.append({"session_id": id, "mtime": _milliseconds(view.updated_at), "data": unescape(view.state.get("summary", {}))})
        return found

    async def _sessions(self, project_key: str) -> list[tuple[str, Info]]:
        """The project's sessions, the last written first: the SDK's order, which knows milliseconds only, then keeps ours."""
        prefix = names.project(project_key)
        found = [
            (id, info)
            async for info in self._store.list(prefix=prefix)
            if (id := session_part(info.session.removeprefix(prefix))) is not None  # the transcripts beside a main one have another "/"
        ]
        return sorted(found, key=lambda pair: pair[1].updated_at, reverse=True)

    async def _delete(self, key: Mapping[str, Any]) -> None:
        place = names.place(key)
        await delete_if_there(self._store, place.session)  # first, so that no subagent begins unseen: see _refuse_orphan
        if place.main is None:
            for session in [info.session async for info in self._store.list(prefix=f"{place.session}/")]:
                await delete_if_there(self._store, session)

    async def _list_subkeys(self, key: Mapping[str, Any]) -> list[str]:
        prefix = f"{names.place({**key, 'subpath': None}).session}/"
        found = []
        for session in [info.session async for info in self._store.list(prefix=prefix)]:
            subpath = names.subpath(session.removeprefix(prefix))
            if subpath is None and (view := await self._view(session)) is not None:
                subpath = unescape(view.frozen_state.get("subpath"))
            if isinstance(subpath, str):
                found.append(subpath)
        return found

    async def _view(self, session: str, *, strong: bool = True) -> View | None:
        """The transcript as it is now, or else as this process knows it. Raises `Invalid` for what something else made.

        One that was deleted is `None` to readers, who ask strongly, and to a writer the append says so.
        """
        return await read_own(self._store, session, "is no transcript of the Claude Agent SDK", _is_transcript, strong=strong)


async def _served(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine on asyncio's loop, or in a thread where another loop runs, which is trio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return await anyio.to_thread.run_sync(wait, coroutine)
    return await coroutine


def _is_transcript(state: Any) -> bool:
    return isinstance(state, dict) and isinstance(state.get("project_key"), str)


def _entries(commit: Commit) -> list[dict[str, Any]]:
    """The lines of a commit."""
    return [entry for event in commit.events if (entry := entry_of(event)) is not None]


def _lacking(batch: Batch, seen: Seen) -> list[Line]:
    """The lines that have no id, or one that neither the transcript nor an earlier line of the batch has."""
    here: set[str] = set()
    lines = []
    for line in batch.lines:
        if line.id is not None:
            if line.id in seen.ids or line.id in here:
                continue
            here.add(line.id)
        lines.append(line)
    return lines


def _events(place: Place, view: View | None, lines: list[Line]) -> list[Event]:
    """The lines' events; what they change in the summary goes with the last, the state that they start with the first."""
    events = [line.event for line in lines]
    if view is None:
        state = place.state if place.main is not None else place.state | {"summary": _fold(place, None, lines)}
        events[0] = Event(events[0].type, events[0].data, (op.set("", state),))
    elif place.main is None:
        old = view.frozen_state.get("summary", {})
        ops = diff_json(old, _fold(place, old, lines), "/summary")
        events[-1] = Event(events[-1].type, events[-1].data, tuple(ops))
    return events


def _fold(place: Place, old: Mapping[str, Any] | None, lines: list[Line]) -> dict[str, Any]:
    """What the SDK makes of the lines for its listings."""
    id = place.key["session_id"]
    before: SessionSummaryEntry | None = None if old is None else {"session_id": id, "mtime": 0, "data": unescape(dict(old))}
    key: SessionKey = {"project_key": place.key["project_key"], "session_id": id}
    data = fold_session_summary(before, key, cast("list[SessionStoreEntry]", [line.entry for line in lines]))["data"]
    return escape(data)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
