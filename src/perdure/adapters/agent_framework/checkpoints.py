"""The checkpoint storage: a run of a workflow is one Perdure session, its newest checkpoint the state, one commit for each.

    agent-framework/workflows/<name>/<first checkpoint>    {"checkpoint": {…}, "removed": {id: true}}
    agent-framework/checkpoints/<2 digits>                 in which session a checkpoint was put (see `id_index`)

A checkpoint is written as its difference from the one it follows. Older ones are the state at an older version. A run that continues
from an older one gets a fork of the session, named after the first checkpoint that is its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from agent_framework import WorkflowCheckpoint, WorkflowCheckpointException

from perdure.adapters.agent_framework.values import Codec
from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.expired import append_or_begin
from perdure.adapters.common.id_index import IdIndex
from perdure.adapters.common.json_diff import diff_json
from perdure.adapters.common.kept import dropped_until, kept
from perdure.adapters.common.models import FAILURES
from perdure.adapters.common.session_ids import compose, decompose
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import lost_race, read_own, transact
from perdure.engine.views import View
from perdure.errors import AlreadyExists, Busy, Conflict, Deleted, Invalid, NotFound, TooLarge
from perdure.lru import LruMap
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.pointer import join
from perdure.model.state import apply
from perdure.model.values import check, same

ROOT, WORKFLOWS, CHECKPOINTS = "agent-framework", "workflows", "agent-framework/checkpoints"
SAVED, REMOVED = "checkpoint", "checkpoint_removed"
KNOWN_MAX = 1024
"""Of how many checkpoints a storage remembers the sessions."""


class PerdureCheckpointStorage:
    """Keeps workflow checkpoints in an open store, which stays the caller's to close.

    A checkpoint costs what it changed. Two workers that continue from one checkpoint both succeed, as in the framework: the later
    one's checkpoints are a branch, listed with the others. A checkpoint saved twice is there once. What was deleted is not listed or
    loaded any more; it stays in the history. Values are stored as data (see `values`), never pickled: classes of the program are allowed
    by the framework's `register_checkpoint_type`, or here by class or "module:qualname".

    `expire_after`, `keep` and `drop` are the policy that runs begin with, as in `Store.configure`: one that was not written to for so long
    (a `timedelta` or seconds) is deleted by a sweeper, and its checkpoints are not there any more. Of the others only so many commits, or
    those of a time, are kept; a checkpoint is one. Older checkpoints go to the store's archive and are read as before, or with `drop` for
    good: they are not listed or loaded, and what continues from one of them is a run of its own. A run's newest checkpoint can always be
    loaded. A run that is there keeps the policy that it has.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        allowed_checkpoint_types: Iterable[type | str] = (),
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        self._plain = asynchronous(store)
        self._store = with_policy(self._plain, expire_after=expire_after, keep=keep, drop=drop)
        self._index = IdIndex(self._plain, CHECKPOINTS)
        self._codec = Codec(allowed_checkpoint_types)
        self._known = LruMap[str, str](KNOWN_MAX)

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a checkpoint as it is now; its id. Raises `WorkflowCheckpointException` for a value that is not allowed, or too
        large, and where the run's session was deleted."""
        if not isinstance(checkpoint, WorkflowCheckpoint):
            raise WorkflowCheckpointException(f"A checkpoint is a WorkflowCheckpoint, not {type(checkpoint).__name__}.")
        id = escape(checkpoint.checkpoint_id)
        try:
            encoded = escape(self._codec.encode(checkpoint.to_dict(), f"Checkpoint {id}"))
            check(encoded, what="the checkpoint")
            own = _session(checkpoint.workflow_name, id)
            run = await self._run_session(checkpoint)
            entry = await self._index.put(id, {"session": run, "own": own})
            run = entry["session"]
            self._remember(id, await transact(run, lambda _again: self._append(run, own, encoded)))
        except (Busy, Deleted, Invalid, TooLarge, *FAILURES) as error:
            raise WorkflowCheckpointException(f"Checkpoint {id} cannot be stored. {error}") from error
        return checkpoint.checkpoint_id

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """The checkpoint, the caller's own. Raises `WorkflowCheckpointException` if there is none, or it holds what is not allowed."""
        view = await self._find(escape(checkpoint_id))
        if view is None:
            raise WorkflowCheckpointException(f"No checkpoint found with ID {checkpoint_id}")
        return self._restored(view.state["checkpoint"])

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """All checkpoints of a workflow's runs, by their time. One pass over each run's log."""
        found = [self._restored(document) async for document in self._documents(workflow_name)]
        return sorted(found, key=_time)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """The ids of `list_checkpoints`."""
        documents = [(document["timestamp"], document["checkpoint_id"]) async for document in self._documents(workflow_name)]
        return [unescape(id) for _, id in sorted(documents, key=lambda pair: datetime.fromisoformat(pair[0]))]

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """The checkpoint with the latest time of all the workflow's runs, or `None`. One read a run."""
        latest: dict[str, Any] | None = None
        async for session in self._sessions(workflow_name):
            view = await self._view(session)
            if view is None:
                continue
            document = view.frozen_state["checkpoint"]
            if document["checkpoint_id"] in view.frozen_state["removed"]:
                document = max([kept async for kept in self._own(session)], key=_document_time, default=None)
            if document is not None and (latest is None or _document_time(document) > _document_time(latest)):
                latest = document
        return None if latest is None else self._restored(latest)

    async def delete(self, checkpoint_id: str) -> bool:
        """Remove a checkpoint from what is listed and loaded; whether there was one. A run can still continue from it."""
        id = escape(checkpoint_id)

        async def attempt(_again: bool) -> bool:
            found = await self._find(id)
            if found is None:
                return False
            view = await self._store.read(found.session)
            if id in view.frozen_state["removed"]:  # another writer removed it between the two reads
                return False
            event = Event(REMOVED, {"checkpoint_id": id}, (op.set(join(["removed", id]), True),))
            with lost_race(Conflict):
                await self._store.append(found.session, event, expect=view.version, on_conflict="raise")
            return True

        try:
            return await transact(str(id), attempt)
        except Busy as error:
            raise WorkflowCheckpointException(f"Checkpoint {checkpoint_id} cannot be deleted. {error}") from error

    async def _run_session(self, checkpoint: WorkflowCheckpoint) -> str:
        """The session of the run that a checkpoint belongs to: that of the previous checkpoint, or a new one for the first."""
        before = escape(checkpoint.previous_checkpoint_id)
        if before is not None:
            session = self._known.get(before) or await self._place(before)
            if session is not None and session.startswith(_session(checkpoint.workflow_name, "")):
                return session
        return _session(checkpoint.workflow_name, escape(checkpoint.checkpoint_id))

    async def _append(self, run: str, own: str, encoded: dict[str, Any]) -> str:
        """Write a checkpoint after the one it follows, in `own`, a fork, if another one follows that; the session that it is in."""
        id, before = encoded["checkpoint_id"], encoded["previous_checkpoint_id"]
        view = await self._view(run)
        summary = {name: encoded[name] for name in ("checkpoint_id", "iteration_count", "timestamp")}
        if view is None:
            event = Event(SAVED, summary, (op.set("", {"checkpoint": encoded, "removed": {}}),))
            with lost_race(AlreadyExists, Conflict):
                await append_or_begin(self._store, run, event, expect=0)
            return run
        held = view.frozen_state["checkpoint"]
        if held["checkpoint_id"] not in {id, before}:
            return run if await self._holds(run, encoded) else await self._append_to_fork(run, own, encoded)
        ops = diff_json(held, encoded, "/checkpoint")
        if id in view.frozen_state["removed"]:
            ops.append(op.remove(join(["removed", id])))
        if ops:
            with lost_race(AlreadyExists, Conflict):
                await self._store.append(run, Event(SAVED, summary, tuple(ops)), expect=view.version, on_conflict="raise")
        return run

    async def _holds(self, run: str, encoded: dict[str, Any]) -> bool:
        """Whether an older checkpoint of the run is this one. Raises `Invalid` for one of this id with other content."""
        version = await self._version(run, encoded["checkpoint_id"])
        if version is not None and not same((await self._store.read(run, at=version)).frozen_state["checkpoint"], encoded):
            raise Invalid("Others follow a checkpoint of this id that has other content.", session=run)
        return version is not None

    async def _append_to_fork(self, run: str, own: str, encoded: dict[str, Any]) -> str:
        """Others follow the previous checkpoint: fork the run there, and write to the fork."""
        before = encoded["previous_checkpoint_id"]
        version = None if before is None or run == own else await self._version(run, before)
        if version is None:
            raise Invalid(f"Session {run!r} lacks checkpoint {before}, which the index says it has.", session=run)
        with suppress(AlreadyExists):
            await self._store.fork(run, at=version, id=own)
        return await self._append(own, own, encoded)

    async def _place(self, id: str) -> str | None:
        """The session that holds a checkpoint: one of its own, or that of the run that it continues."""
        entry = await self._index.get(id)
        if entry is None:
            return None
        for session in dict.fromkeys((entry["own"], entry["session"])):
            if await self._holds_id(session, id):
                self._remember(id, session)
                return str(session)
        return None

    async def _find(self, id: str) -> View | None:
        """The session as of a checkpoint that was not deleted, or `None`."""
        session = (self._known.get(id) or await self._place(id)) if isinstance(id, str) else None
        view = None if session is None else await self._view(session)
        if session is None or view is None or id in view.frozen_state["removed"]:
            return None
        if view.frozen_state["checkpoint"]["checkpoint_id"] == id:
            return view
        version = await self._version(session, id)
        return None if version is None else await self._store.read(session, at=version)

    async def _version(self, session: str, id: str) -> int | None:
        """Where a session's log has a checkpoint. It is read from its end."""
        try:
            async for commit in kept(self._store, session, types={SAVED}, newest_first=True):
                if any(_id(event) == id for event in commit.events):
                    return commit.version
        except (NotFound, Deleted):
            pass
        return None

    async def _holds_id(self, session: str, id: str) -> bool:
        """Whether a session has a checkpoint. The commit of its newest one may have been dropped."""
        if await self._version(session, id) is not None:
            return True
        view = await self._view(session)
        return view is not None and view.frozen_state["checkpoint"]["checkpoint_id"] == id

    async def _sessions(self, workflow_name: str) -> AsyncIterator[str]:
        async for info in self._store.list(prefix=_session(workflow_name, "")):
            yield info.session

    async def _documents(self, workflow_name: str) -> AsyncIterator[dict[str, Any]]:
        async for session in self._sessions(workflow_name):
            async for document in self._own(session):
                yield document

    async def _own(self, session: str) -> AsyncIterator[dict[str, Any]]:
        """A session's checkpoints that were not deleted, encoded, without those that a fork has from its parent."""
        parts = decompose(session, 4)
        first = None if parts is None else await self._version(session, parts[3])
        view = await self._view(session)
        if view is None:
            return
        dropped = 0 if first else await dropped_until(self._store, session)
        if not first and not dropped:
            return
        first = first or dropped
        state = (await self._store.read(session, at=first)).frozen_state
        found = {state["checkpoint"]["checkpoint_id"]: state["checkpoint"]}
        if dropped and view.frozen_state["checkpoint"]["checkpoint_id"] not in found:
            found.clear()  # It was dropped. The newest one can be loaded without its commit.
        async for commit in self._store.history(session, after=first, before=view.version + 1):
            for event in commit.events:
                state = apply(state, event.ops)
                if event.type == SAVED:
                    found[_id(event)] = state["checkpoint"]
        for id, document in found.items():
            if id not in view.frozen_state["removed"]:
                yield document

    async def _view(self, session: str) -> View | None:
        return await read_own(self._store, session, "is no run of a workflow", _is_run)

    def _restored(self, document: dict[str, Any]) -> WorkflowCheckpoint:
        return WorkflowCheckpoint.from_dict(self._codec.decode(unescape(document)))

    def _remember(self, id: str, session: str) -> None:
        self._known.put(id, session)


def _is_run(state: Any) -> bool:
    return isinstance(state, dict) and state.keys() >= {"checkpoint", "removed"}


def _session(workflow_name: str, id: str) -> str:
    return compose("An Agent Framework workflow", ROOT, WORKFLOWS, workflow_name, id)


def _id(event: Event) -> str:
    return str(event.data.get("checkpoint_id")) if isinstance(event.data, dict) else ""


def _time(checkpoint: WorkflowCheckpoint) -> datetime:
    return datetime.fromisoformat(checkpoint.timestamp)


def _document_time(document: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(document["timestamp"])
