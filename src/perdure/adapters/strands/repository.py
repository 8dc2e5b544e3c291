"""Strands' session repository: a session is one Perdure session, messages are events of its log, agents are its state.

    {"session": {…}, "agents": {"<agent id>": {"agent": {…}, "messages": 12, "updated": {"3": {…}}}}, "multi_agents": {"<id>": {…}}}

`messages` counts an agent's messages, `updated` holds those that were changed after they were created (redacted, for instance),
`gaps` is there when ids are not 0, 1, 2, … in this order.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from strands.session.session_repository import SessionRepository
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.incarnation import start_incarnation
from perdure.adapters.common.json_diff import diff_json
from perdure.adapters.common.kept import kept
from perdure.adapters.common.models import FAILURES
from perdure.adapters.common.run_lease import OwnLease, RunLease
from perdure.adapters.common.session_ids import actor_name, compose
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous, wait
from perdure.adapters.common.transactions import commit_at, lost_race, read_own, transact
from perdure.engine.leasing.lease import Lease
from perdure.engine.views import View
from perdure.errors import AlreadyExists, Busy, Conflict, Deleted, Invalid, KeyReused, NotFound
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.pointer import join
from perdure.model.values import check

if TYPE_CHECKING:
    from strands.multiagent import MultiAgentBase

CREATED, MESSAGE = "session_created", "message"
NUMBER_END = 1 << 63
"""The least number that is too large for a message's id."""


class PerdureSessionRepository(SessionRepository):
    """Keeps Strands sessions, agents, multi-agents and messages in an open store, which stays the caller's to close.

    Each call is one commit. A message's id is its idempotency key: the same message created again is there once, and of two
    writers that computed the same next id the later one is refused with `SessionException`, so no message replaces another.
    The last sync of an agent sets its state. Only what changed is written, and what was there stays in the history.

    `expire_after`, `keep` and `drop` are the policy that sessions begin with, as in `Store.configure`: one that was not written to for so
    long (a `timedelta` or seconds) is deleted by a sweeper, is `None` to `read_session`, and may be created again. Of the others only so
    many commits, or those of a time, are kept; a message is one or two. Older messages go to the store's archive and are read as before,
    or with `drop` for good: then an agent has the messages that are left, and all of its state. One that is there keeps the policy that
    it has. A `PerdureSessionManager` holds a session for each run.
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
        self._own: dict[str, OwnLease] = {}
        """By session, the lease that its runs take."""

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        """Start a session. Raises `SessionException` if it exists."""
        return wait(self._create_session(session))

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        """The session, or `None`."""
        return wait(self._read_session(session_id))

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        """Close the session with a tombstone, which refuses late writers. Raises `SessionException` if there is none."""
        wait(self._delete_session(session_id))

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Add an agent. Raises `SessionException` if there is no such session, or the agent exists."""
        wait(self._set_agent(session_id, session_agent, new=True))

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        """The agent, or `None`."""
        return wait(self._read_agent(session_id, agent_id))

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Set the agent; what differs is written. Raises `SessionException` if there is no such session or agent."""
        wait(self._set_agent(session_id, session_agent, new=False))

    def create_message(self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any) -> None:
        """Append a message. Raises `SessionException` if there is no such session or agent, or its id names another message."""
        wait(self._create_message(session_id, agent_id, session_message))

    def read_message(self, session_id: str, agent_id: str, message_id: int, **kwargs: Any) -> SessionMessage | None:
        """The message, or `None`."""
        found = wait(self._read_message(session_id, agent_id, message_id))
        return None if found is None else SessionMessage.from_dict(unescape(found))

    def update_message(self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any) -> None:
        """Replace a message, as a redaction does. Raises `SessionException` if there is none. What it replaces stays in the history."""
        wait(self._update_message(session_id, agent_id, session_message))

    def list_messages(
        self, session_id: str, agent_id: str, limit: int | None = None, offset: int = 0, **kwargs: Any
    ) -> list[SessionMessage]:
        """The agent's messages by id, from the position `offset` on. With an offset only the end of the log is read."""
        return wait(self._list_messages(session_id, agent_id, limit, offset))

    def create_multi_agent(self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any) -> None:
        """Set a multi-agent's state. Raises `SessionException` if there is no such session."""
        wait(self._set_multi_agent(session_id, multi_agent, new=True))

    def read_multi_agent(self, session_id: str, multi_agent_id: str, **kwargs: Any) -> dict[str, Any] | None:
        """A multi-agent's state, or `None`."""
        return wait(self._read_multi_agent(session_id, multi_agent_id))

    def update_multi_agent(self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any) -> None:
        """Set a multi-agent's state; what differs is written. Raises `SessionException` if there is none."""
        wait(self._set_multi_agent(session_id, multi_agent, new=False))

    def state(self, session_id: str) -> Any:
        """The whole document of a session, to be read only, or `None`. Not part of Strands' interface."""
        view = wait(self._view(session_id))
        return None if view is None else view.frozen_state

    async def _create_session(self, session: Session) -> Session:
        state = {"session": _dumped(session, Session), "agents": {}, "multi_agents": {}}
        try:
            await start_incarnation(self._store, _name(session.session_id), CREATED, None, state)
        except AlreadyExists as error:
            raise SessionException(f"Session {session.session_id} already exists. {error}") from error
        return session

    async def _read_session(self, session_id: str) -> Session | None:
        view = await self._view(session_id)
        return None if view is None else Session.from_dict(unescape(view.state["session"]))

    async def _delete_session(self, session_id: str) -> None:
        try:
            await self._store.delete(_name(session_id))
        except (NotFound, Deleted) as error:
            raise SessionException(f"Session {session_id} does not exist. {error}") from error

    async def _read_agent(self, session_id: str, agent_id: str) -> SessionAgent | None:
        view = await self._view(session_id)
        entry = None if view is None else view.state["agents"].get(escape(agent_id))
        return None if entry is None else SessionAgent.from_dict(unescape(entry["agent"]))

    async def _set_agent(self, session_id: str, session_agent: SessionAgent, *, new: bool) -> None:
        value = _dumped(session_agent, SessionAgent)
        id = _id(session_agent.agent_id)

        def make(state: Mapping[str, Any]) -> list[Op]:
            entry = state["agents"].get(id)
            if new and entry is None:
                return [op.set(join(["agents", id]), {"agent": value, "messages": 0})]
            if new or entry is None:
                raise SessionException(f"Agent {id} {'already exists' if new else 'does not exist'} in session {session_id}.")
            value["created_at"] = entry["agent"]["created_at"]
            return diff_json(entry["agent"], value, join(["agents", id, "agent"]))

        await self._change(session_id, "agent_created" if new else "agent_updated", {"agent": id}, make)

    async def _create_message(self, session_id: str, agent_id: str, session_message: SessionMessage) -> None:
        message = _dumped(session_message, SessionMessage)
        number = _number(session_message.message_id)
        agent_id = _id(agent_id)
        data = {"agent": agent_id, **message}
        count = join(["agents", agent_id, "messages"])

        async def attempt(again: bool) -> None:
            view = await self._existing(session_id, agent_id, strong=again)
            held = view.frozen_state["agents"][agent_id]["messages"]
            ops = [op.test(count, held), op.set(count, held + 1)]
            if number != held:  # Ids from elsewhere may have gaps: lists then read the whole log.
                ops.append(op.set(join(["agents", agent_id, "gaps"]), True))
            key = _key(view, agent_id, number)
            event = Event(MESSAGE, data, tuple(ops))
            try:
                with lost_race(Conflict, NotFound, Deleted):
                    await self._store.append(
                        _name(session_id),
                        event,
                        expect=view.version,
                        key=key,
                        actor=actor_name(agent_id),
                        lease=self._lease(session_id),
                    )
            except KeyReused as error:
                first = await self._first(session_id, error.version)
                if first is None and number == 0 and not await self._list_messages(session_id, agent_id, None, 0):
                    # All were dropped, so the manager counts from 0 again. It goes on from this message's id.
                    session_message.message_id = held
                    return await self._create_message(session_id, agent_id, session_message)
                if first != data:
                    raise SessionException(
                        f"Message {number} of agent {agent_id} in session {session_id} was written by another writer: "
                        f"load the session again before you continue. {error}"
                    ) from error

        await self._transact(session_id, attempt)

    async def _first(self, session_id: str, version: int) -> Any:
        """The data of the first event at a version."""
        commit = await commit_at(self._store, _name(session_id), version)
        return None if commit is None else commit.events[0].data

    async def _read_message(self, session_id: str, agent_id: str, message_id: int) -> dict[str, Any] | None:
        view = await self._view(session_id)
        agent_id = _id(agent_id)
        if view is None or agent_id not in view.frozen_state["agents"]:
            return None
        number = str(_number(message_id))
        if number in view.frozen_state["agents"][agent_id].get("updated", {}):
            return dict(view.state["agents"][agent_id]["updated"][number])
        receipt = await self._store.find(_name(session_id), _key(view, agent_id, message_id))
        return None if receipt is None else dict(await self._first(session_id, receipt.version))

    async def _update_message(self, session_id: str, agent_id: str, session_message: SessionMessage) -> None:
        value = _dumped(session_message, SessionMessage)
        await self._existing(session_id, _id(agent_id))
        before = await self._read_message(session_id, agent_id, session_message.message_id)
        if before is None:
            raise SessionException(f"Message {session_message.message_id} does not exist in agent {agent_id} of session {session_id}.")
        value |= {"created_at": before["created_at"]}
        agent_id = _id(agent_id)
        updated = join(["agents", agent_id, "updated"])

        def make(_state: Mapping[str, Any]) -> list[Op]:
            return [op.init(updated, {}), op.set(f"{updated}/{session_message.message_id}", value)]

        await self._change(session_id, "message_updated", {"agent": agent_id, "message_id": session_message.message_id}, make)

    async def _list_messages(self, session_id: str, agent_id: str, limit: int | None, offset: int) -> list[SessionMessage]:
        view = await self._view(session_id)
        agent_id = _id(agent_id)
        entry = None if view is None else view.state["agents"].get(agent_id)
        if view is None or entry is None:
            return []
        gaps, count = "gaps" in entry, entry["messages"]
        found: dict[int, dict[str, Any]] = {}
        async for commit in kept(self._store, _name(session_id), before=view.version + 1, newest_first=True):
            # Without gaps a message's id is its position, and the log has them in order.
            if len(found) == count or (not gaps and (offset >= count or offset in found)):
                break
            for event in commit.events:
                if event.type == MESSAGE and isinstance(event.data, dict) and event.data.get("agent") == agent_id:
                    found[event.data["message_id"]] = event.data
        found |= {int(number): data for number, data in entry.get("updated", {}).items()}
        numbers = sorted(found)[offset:] if gaps else sorted(number for number in found if number >= offset)
        return [SessionMessage.from_dict(unescape(found[number])) for number in numbers[:limit]]

    async def _set_multi_agent(self, session_id: str, multi_agent: MultiAgentBase, *, new: bool) -> None:
        try:
            id, value = _id(multi_agent.id), _json(multi_agent.serialize_state())
        except FAILURES as error:
            raise SessionException(f"This is no multi-agent whose state can be stored: {error}") from error

        def make(state: Mapping[str, Any]) -> list[Op]:
            held = state["multi_agents"].get(id)
            if held is None and not new:
                raise SessionException(f"Multi-agent {id} does not exist in session {session_id}.")
            path = join(["multi_agents", id])
            return [op.set(path, value)] if held is None else diff_json(held, value, path)

        await self._change(session_id, "multi_agent_created" if new else "multi_agent_updated", {"multi_agent": id}, make)

    async def _read_multi_agent(self, session_id: str, multi_agent_id: str) -> dict[str, Any] | None:
        view = await self._view(session_id)
        found: dict[str, Any] | None = None if view is None else view.state["multi_agents"].get(_id(multi_agent_id))
        return unescape(found)

    def hold_runs(self, session_id: str, options: RunLease) -> OwnLease:
        """The lease that the runs of a session take, and this object writes to it under. See `PerdureSessionManager`."""
        return self._own.setdefault(session_id, OwnLease(self._store, _name(session_id), options))

    def _lease(self, session_id: str) -> Lease | None:
        own = self._own.get(session_id)
        return None if own is None else own.lease

    async def _view(self, session_id: str, *, strong: bool = True) -> View | None:
        """The session as it is now, or else as this process knows it; or `None`. Raises `Invalid` for what something else made."""
        return await read_own(self._store, _name(session_id), "is no Strands session", _is_session, strong=strong)

    async def _existing(self, session_id: str, agent_id: str, *, strong: bool = True) -> View:
        view = await self._view(session_id, strong=strong)
        if not strong and (view is None or agent_id not in view.frozen_state["agents"]):
            return await self._existing(session_id, agent_id)
        if view is None:
            raise SessionException(f"Session {session_id} does not exist.")
        if agent_id not in view.frozen_state["agents"]:
            raise SessionException(f"Agent {agent_id} does not exist in session {session_id}.")
        return view

    async def _change(self, session_id: str, type: str, data: Any, make: Callable[[Mapping[str, Any]], list[Op]]) -> None:
        """Commit what `make` derives from the newest state. It is made again if another writer changed the same place."""

        async def attempt(again: bool) -> None:
            # What this process remembers is mostly current, and the append finds out. What appends nothing asks the store.
            view = await self._view(session_id, strong=again) or await self._view(session_id)
            if view is None:
                raise SessionException(f"Session {session_id} does not exist.")
            try:
                ops = make(view.frozen_state)
            except SessionException:
                if again:
                    raise
                ops = []
            if ops:
                with lost_race(Conflict, NotFound, Deleted):
                    event = Event(type, data, tuple(ops))
                    await self._store.append(_name(session_id), event, expect=view.version, lease=self._lease(session_id))
            elif not again:
                await attempt(again=True)

        await self._transact(session_id, attempt)

    async def _transact(self, session_id: str, attempt: Callable[[bool], Awaitable[None]]) -> None:
        try:
            await transact(_name(session_id), attempt)
        except Busy as error:
            raise SessionException(f"Session {session_id} was not changed. {error}") from error


def _is_session(state: Any) -> bool:
    return isinstance(state, dict) and state.keys() >= {"session", "agents", "multi_agents"}


def _name(session_id: str) -> str:
    return compose("A Strands session", "strands", "sessions", session_id)


def _key(view: View, agent_id: str, number: int) -> str:
    """A message's idempotency key. Keys outlive a deletion, so messages of a later incarnation have other keys."""
    return compose("A Strands agent", "message", agent_id, str(number), *view.frozen_state.get("life", ()))


def _number(message_id: object) -> int:
    if type(message_id) is not int or not 0 <= message_id < NUMBER_END:
        raise ValueError(f"A message id must be an integer from 0, not {message_id!r:.80}.")
    return message_id


def _id(id: object) -> str:
    """An agent's id as it is stored. Raises `SessionException` for what is no string."""
    if not isinstance(id, str):
        raise SessionException(f"An agent's id is a string, not {type(id).__name__}.")
    return escape(id)


def _dumped(value: Any, kind: Any) -> dict[str, Any]:
    """What Strands makes of a session, an agent or a message to be stored. Raises `SessionException`."""
    if not isinstance(value, kind):
        raise SessionException(f"This is {type(value).__name__}, and not Strands' {kind.__name__}.")
    try:
        data = value.to_dict()
    except FAILURES as error:
        raise SessionException(f"This cannot be stored as JSON: {error}") from error
    found: dict[str, Any] = _json(data)
    return found


def _json(value: Any) -> Any:
    """The value as JSON carries it, as in Strands' own repositories, escaped. Raises `SessionException` naming what JSON lacks."""
    try:
        found = json.loads(json.dumps(escape(value), allow_nan=False))
        check(found, what="this")
    except (TypeError, ValueError, RecursionError, Invalid) as error:
        raise SessionException(f"This cannot be stored as JSON: {error}") from error
    return found
