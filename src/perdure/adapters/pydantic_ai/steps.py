"""The harness's step store: a run is one Perdure session, the messages of its conversation are another, shared by all its runs.

    pydantic-ai/runs/<run>                    steps and snapshots in the log; {"run": {…}, "effects": {call: {…}}, "children": [run, …]}
    pydantic-ai/conversations/<conversation>  messages in the log (see `conversations`); {"runs": [run, …]}

Every snapshot repeats the history before it. Here it names the messages by number, so a step costs what it added, in the thousandth
run of a conversation too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_ai.messages import ModelMessage
from pydantic_ai_harness.step_persistence import ContinuableSnapshot, RunRecord, StepEvent, ToolEffectRecord

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.expired import append_or_begin
from perdure.adapters.common.kept import kept
from perdure.adapters.common.models import FAILURES, adapter_json
from perdure.adapters.common.session_ids import actor_name, decompose
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import read_own
from perdure.adapters.pydantic_ai import names
from perdure.adapters.pydantic_ai.conversations import Conversations, Numbers, expand
from perdure.errors import Deleted, Invalid, KeyReused, NotFound, Unsupported
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.pointer import join
from perdure.model.values import check

REGISTERED, CHILD, RUN, EFFECT, SNAPSHOT = "run_registered", "child_run", "run", "tool_effect", "snapshot"
_EVENT, _RECORD, _EFFECT = TypeAdapter(StepEvent), TypeAdapter(RunRecord), TypeAdapter(ToolEffectRecord)
_PLAIN = tuple(field.name for field in fields(ContinuableSnapshot) if field.name not in {"run_id", "messages", "timestamp"})


class PerdureStepStore:
    """Keeps the steps, snapshots and tool effects of Pydantic AI runs in an open store, which stays the caller's to close.

    Each call is one commit, durable when it returns (`save_snapshot` two when there are new messages, and the messages come first). A
    step or snapshot whose idempotency key was there before is not written again. A run id is registered once: of two workers that
    register it, one gets `ValueError`. The last record of a tool call counts; earlier ones stay in the history.

    `expire_after`, `keep` and `drop` are the policy that runs and conversations begin with, as in `Store.configure`: one that was not
    written to for so long (a `timedelta` or seconds) is deleted by a sweeper and is not there any more; what is written to it begins it
    again. Of the others only so many commits, or those of a time, are kept. Older steps, snapshots and messages go to the store's archive
    and are read as before, or with `drop` for good: then a run has the steps and snapshots that are left, and a snapshot the messages that
    are left. One of which none is left is not there. Records of runs and tool calls stay. What is there keeps the policy that it has.
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
        self._conversations = Conversations(self._store)

    async def register_run(self, record: RunRecord) -> None:
        """Start a run. Once more with the same registration is fine; a run id that is taken raises `ValueError`.

        The run is listed in its conversation and its parent before it is there, so that no crash hides it from `list_runs`.
        """
        data = _dumped(_RECORD, record)
        id, stored = record.run_id, escape(record.run_id)
        if record.conversation_id is not None:
            summary = {"run": stored} | ({"agent": escape(record.agent_name)} if record.agent_name else {})
            event = Event(RUN, summary, (op.union("/runs", [stored]),))
            await self._once(names.conversation(record.conversation_id), event, names.key(RUN, id))
        if record.parent_run_id is not None:
            await self._once(
                names.run(record.parent_run_id), Event(CHILD, {"run": stored}, (op.union("/children", [stored]),)), names.key(CHILD, id)
            )
        event = Event(REGISTERED, None, (op.set("/run", data),))
        if await self._once(names.run(id), event, REGISTERED, actor=record.agent_name):
            return
        held = await self.get_run(run_id=id)
        if held is None or record.registration_id is None or held.registration_id != record.registration_id:
            raise ValueError(f"Run {id!r} is already in the store: a run id is used once. Nothing was changed.")

    async def get_run(self, *, run_id: str) -> RunRecord | None:
        """The run as it was registered, or `None`."""
        state = await self._state(names.run(run_id))
        return _loaded(_RECORD, state["run"], run_id) if "run" in state else None

    async def list_runs(self, *, parent_run_id: str | None = None, conversation_id: str | None = None) -> list[RunRecord]:
        """The runs, by the time they started, of a conversation, of a parent, of both, or all. Costs one read a run."""
        records = []
        async for id in self._run_ids(parent_run_id, conversation_id):
            record = await self.get_run(run_id=id)
            if (
                record is not None
                and (parent_run_id is None or record.parent_run_id == parent_run_id)
                and (conversation_id is None or record.conversation_id == conversation_id)
            ):
                records.append(record)
        return sorted(records, key=lambda record: record.started_at)

    async def append_event(self, event: StepEvent) -> None:
        """Append a step. One whose idempotency key the run holds is not written again."""
        data = _dumped(_EVENT, event)
        key = None if event.idempotency_key is None else names.key("step", event.idempotency_key)
        await self._once(names.run(event.run_id), Event(data.pop("kind"), data), key, actor=event.agent_name)

    async def list_events(self, *, run_id: str) -> list[StepEvent]:
        """The run's steps in the order in which they were appended. Raises `Unsupported` for those of a newer harness."""
        found: list[StepEvent] = []
        try:
            async for commit in kept(self._store, names.run(run_id)):
                steps = filter(_is_step, commit.events)
                found += [_loaded(_EVENT, {**event.data, "kind": event.type}, run_id) for event in steps]
        except (NotFound, Deleted):
            return []
        return found

    async def save_snapshot(self, snapshot: ContinuableSnapshot) -> None:
        """Keep a snapshot: those of its messages that are new, and which ones it holds. One whose key the run holds is not kept again."""
        if not isinstance(snapshot, ContinuableSnapshot):
            raise Invalid(f"A snapshot is a ContinuableSnapshot, not {type(snapshot).__name__}.")
        session = self._messages_session(snapshot.run_id, snapshot.conversation_id)
        data = _snapshot_data(snapshot)
        numbers = await self._conversations.append_missing(session, snapshot.messages, actor_name(snapshot.agent_name))
        data["messages"] = [list(run) for run in numbers]
        key = None if snapshot.idempotency_key is None else names.key(SNAPSHOT, snapshot.idempotency_key)
        await self._once(names.run(snapshot.run_id), Event(SNAPSHOT, data), key, actor=snapshot.agent_name)

    async def latest_snapshot(self, *, run_id: str, include_interrupted: bool = False) -> ContinuableSnapshot | None:
        """The newest snapshot that is complete, or the newest of all, or `None`. Only the end of the run's log is read for it."""
        async for data in self._snapshots(run_id, newest_first=True):
            if (include_interrupted or data["state"] == "complete") and (found := await self._restored(run_id, [data])):
                return found[0]
        return None

    async def list_snapshots(self, *, run_id: str, include_interrupted: bool = False) -> list[ContinuableSnapshot]:
        """All snapshots of a run in the order in which they were saved; those that were interrupted only if asked for."""
        found = [data async for data in self._snapshots(run_id) if include_interrupted or data["state"] == "complete"]
        return await self._restored(run_id, found)

    async def record_tool_effect(self, record: ToolEffectRecord) -> None:
        """Set what is known of a tool call."""
        data = _dumped(_EFFECT, record)
        summary = {name: data[name] for name in ("tool_name", "tool_call_id", "status")}
        place = op.init("/effects", {}), op.set(join(["effects", data["tool_call_id"]]), data)
        await self._once(names.run(record.run_id), Event(EFFECT, summary, place), None)

    async def get_tool_effect(self, *, run_id: str, tool_call_id: str) -> ToolEffectRecord | None:
        """What was last recorded of a tool call, or `None`."""
        held = (await self._state(names.run(run_id))).get("effects", {}).get(escape(tool_call_id))
        return None if held is None else _loaded(_EFFECT, held, run_id)

    async def list_unresolved_tool_effects(self, *, run_id: str) -> list[ToolEffectRecord]:
        """The tool calls that were started and neither completed nor failed, in the order in which they were started."""
        held = (await self._state(names.run(run_id))).get("effects", {})
        return [_loaded(_EFFECT, effect, run_id) for effect in held.values() if effect["status"] == "started"]

    async def history(self, conversation_id: str) -> list[ModelMessage]:
        """The messages to continue a conversation with: those of the newest complete snapshot of its newest run that has one.

        Empty for a conversation without such a snapshot. Not part of the harness's protocol.
        """
        for id in reversed((await self._state(names.conversation(conversation_id))).get("runs", [])):
            snapshot = await self.latest_snapshot(run_id=id)
            if snapshot is not None:
                return snapshot.messages
        return []

    async def _once(self, session: str, event: Event, key: str | None, *, actor: str | None = None) -> bool:
        """Append, unless the key was used with other content before: then nothing is written, and the answer is no."""
        try:
            await append_or_begin(self._store, session, event, key=key, actor=actor_name(actor))
        except KeyReused:
            return False
        return True

    async def _state(self, session: str) -> Mapping[str, Any]:
        """The session's document, to be read only; empty if there is none. Raises `Invalid` for what something else made."""
        view = await read_own(self._store, session, "is not Pydantic AI's", _is_own)
        return {} if view is None else cast(Mapping[str, Any], view.frozen_state)

    async def _run_ids(self, parent: str | None, conversation: str | None) -> AsyncIterator[str]:
        if conversation is not None:
            ids = (await self._state(names.conversation(conversation))).get("runs", [])
        elif parent is not None:
            ids = (await self._state(names.run(parent))).get("children", [])
        else:
            async for info in self._store.list(prefix=names.run("")):
                parts = decompose(info.session, 3)
                if parts is not None:
                    yield parts[2]
            return
        for id in ids:
            yield unescape(id)

    async def _snapshots(self, run_id: str, *, newest_first: bool = False) -> AsyncIterator[dict[str, Any]]:
        try:
            async for commit in kept(self._store, names.run(run_id), types={SNAPSHOT}, newest_first=newest_first):
                for event in commit.events:
                    yield _members(event)
        except (NotFound, Deleted):
            return

    async def _restored(self, run_id: str, found: list[dict[str, Any]]) -> list[ContinuableSnapshot]:
        """Snapshots from their events; of each conversation the log is read once. One is left out whose messages are all gone."""
        messages: dict[str, dict[int, ModelMessage]] = {}
        for session in {self._messages_session(run_id, unescape(data.get("conversation_id"))) for data in found}:
            mine = [_numbers(data) for data in found if self._messages_session(run_id, unescape(data.get("conversation_id"))) == session]
            messages[session] = await self._conversations.load(session, [run for numbers in mine for run in numbers])
        held = [messages[self._messages_session(run_id, unescape(data.get("conversation_id")))] for data in found]
        return [
            _snapshot(run_id, data, mine)
            for data, mine in zip(found, held, strict=True)
            if not data["messages"] or any(number in mine for number in expand(_numbers(data)))
        ]

    def _messages_session(self, run_id: str, conversation_id: str | None) -> str:
        """The session that holds the messages: the conversation's, or the run's own if it is part of none."""
        return names.run(run_id) if conversation_id is None else names.conversation(conversation_id)


def _is_own(state: Any) -> bool:
    shapes = {"run": dict, "effects": dict, "children": list, "runs": list}
    return isinstance(state, dict) and all(isinstance(state[name], shapes[name]) for name in state.keys() & shapes.keys())


def _dumped(adapter: TypeAdapter[Any], value: Any) -> dict[str, Any]:
    """A record without its run id, which the session's id says, and without fields at their defaults."""
    dumped: dict[str, Any] = adapter_json(adapter, value, "A record", exclude_defaults=True, exclude={"run_id"})
    return dumped


def _snapshot_data(snapshot: ContinuableSnapshot) -> dict[str, Any]:
    """A snapshot without its run id and messages. Raises `Invalid`."""
    data: dict[str, Any] = escape({name: value for name in _PLAIN if (value := getattr(snapshot, name)) is not None})
    try:
        data["timestamp"] = snapshot.timestamp.isoformat()
    except FAILURES as error:
        raise Invalid(f"A snapshot's timestamp is a datetime: {error}.") from error
    check(data, what="the snapshot")
    return data


def _loaded(adapter: TypeAdapter[Any], data: dict[str, Any], run_id: str) -> Any:
    try:
        return adapter.validate_python({**unescape(data), "run_id": run_id})
    except ValidationError as error:
        raise Unsupported(f"This is not a record that this pydantic-ai-harness understands: {error}.") from error


def _is_step(event: Event) -> bool:
    """Whether this is one of the harness's steps, of a newer harness too; not an event that something else appended."""
    return isinstance(event.data, dict) and event.type != SNAPSHOT and {"step_index", "timestamp"} <= event.data.keys()


def _members(event: Event) -> dict[str, Any]:
    if not isinstance(event.data, dict):
        raise Invalid(f"An event of type {event.type!r} is not Pydantic AI's: something else wrote it.")
    return event.data


def _numbers(data: dict[str, Any]) -> Numbers:
    try:
        return [(int(first), int(count)) for first, count in data["messages"]]
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid("A snapshot does not say which messages it holds: something else wrote it.") from error


def _snapshot(run_id: str, data: dict[str, Any], messages: dict[int, ModelMessage]) -> ContinuableSnapshot:
    held = [messages[number] for number in expand(_numbers(data)) if number in messages]
    plain = {name: unescape(data[name]) for name in _PLAIN if name in data}
    try:
        return ContinuableSnapshot(run_id=run_id, messages=held, timestamp=datetime.fromisoformat(data["timestamp"]), **plain)
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"A snapshot of run {run_id!r} is not the harness's: something else wrote it ({error}).") from error
