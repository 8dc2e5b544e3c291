"""The history provider: a session's messages, one event of the log each.

agent-framework/history/<session>               messages that a provider with the usual source id keeps
agent-framework/history/<session>/<source id>   those of another provider, an audit for instance
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, ClassVar

from agent_framework import HistoryProvider, Message, SessionContext
from agent_framework._sessions import filter_new_messages
from msgspec.structs import asdict

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.expired import append_or_begin, expired_at
from perdure.adapters.common.kept import kept
from perdure.adapters.common.models import FAILURES
from perdure.adapters.common.run_lease import RunLease, RunLeases, run_lease
from perdure.adapters.common.session_ids import compose
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import lost_race, read_or_none, transact
from perdure.engine.leasing.lease import Lease
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, NotFound, TooLarge, Unsupported
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.model.values import check

MESSAGE = "message"
NAMELESS = "default"
"""The session of calls that name none, as in the framework's own providers."""
_saving: ContextVar[Lease | None] = ContextVar("perdure_agent_framework_saving", default=None)
"""The lease that a run's messages are stored under."""
COMMIT_MAX = 1000
"""Most messages of one commit."""


class PerdureHistoryProvider(HistoryProvider):
    """Keeps the messages of Agent Framework sessions in an open store, which stays the caller's to close.

    One run is one commit, or a few if it is larger than one can be. Messages that the end of the history holds already are not written
    again, by the framework's own rule, so a run that is stored twice is there once. Runs that end at the same time are both kept, one
    after the other. Only what is asked for is read: saving looks at the end of the log, however long it is.

    `expire_after`, `keep` and `drop` are the policy that histories begin with, as in `Store.configure`: one that was not written to for so
    long (a `timedelta` or seconds) is deleted by a sweeper, and is then empty; the next run begins it again. Of the others only so many
    commits, or those of a time, are kept; a run is one. Older messages go to the store's archive and are read as before, or with `drop` for
    good: then the history begins with the oldest message that is left. A history that is there keeps the policy that it has.

    `lease`: with `True`, or a `RunLease` with other options, each run holds the history from before its messages are loaded until they are
    stored: a second worker waits (60 s), or is refused with `Held`, before its model is called. It needs `load_messages`.
    """

    DEFAULT_SOURCE_ID: ClassVar[str] = "perdure"

    def __init__(
        self,
        store: AnyStore,
        source_id: str = DEFAULT_SOURCE_ID,
        *,
        load_messages: bool = True,
        store_inputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
        store_outputs: bool = True,
        skip_excluded: bool = False,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
        lease: bool | RunLease = False,
    ) -> None:
        """The options are the framework's; `skip_excluded` leaves out messages that compaction marked as excluded."""
        super().__init__(
            source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            store_outputs=store_outputs,
        )
        self.skip_excluded = skip_excluded
        self._store = with_policy(asynchronous(store), expire_after=expire_after, keep=keep, drop=drop)
        self._lease, self._runs = run_lease(lease), RunLeases(self._store)
        if self._lease is not None:
            if not load_messages:
                raise Invalid("lease= holds a history from the time that its messages are loaded: it needs load_messages=True.")
            self._store.lease(self._session(None), **asdict(self._lease))

    async def before_run(self, *, context: SessionContext, **kwargs: Any) -> None:
        """Load the messages, under the lease where there is to be one."""
        if self._lease is not None:
            await self._runs.take(context, self._session(context.session_id), self._lease)
        await super().before_run(context=context, **kwargs)

    async def after_run(self, *, context: SessionContext, **kwargs: Any) -> None:
        """Store the messages, and release the lease."""
        token = _saving.set(self._runs.lease_of(context))
        try:
            await super().after_run(context=context, **kwargs)
        finally:
            _saving.reset(token)
            await self._runs.release(context)

    async def get_messages(self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any) -> list[Message]:
        """The session's messages in the order in which they were stored. Raises `Deleted`, `Invalid`, `Unsupported`."""
        messages = [message async for _, message in self._messages(self._session(session_id))]
        return [message for message in messages if not (self.skip_excluded and message.additional_properties.get("_excluded"))]

    async def save_messages(
        self, session_id: str | None, messages: Sequence[Message], *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Append those messages that the end of the history does not hold yet. Raises `Deleted`, `Invalid`, `TooLarge`."""
        session, lease = self._session(session_id), _saving.get()
        left, room = _listed(messages), COMMIT_MAX
        data = {id(message): _json(message) for message in left}

        async def attempt(_again: bool) -> None:
            nonlocal left
            version, tail = await self._tail(session, len(left) + 1)
            left = filter_new_messages(tail, left)
            if left:
                with lost_race(AlreadyExists, Conflict):
                    events = [Event(MESSAGE, data[id(message)]) for message in left[:room]]
                    await append_or_begin(self._store, session, *events, expect=version, on_conflict="raise", lease=lease)
                left = left[room:]

        while left:
            try:
                await transact(session, attempt)
            except TooLarge:
                if min(room, len(left)) == 1:
                    raise
                room = min(room, len(left)) // 2

    async def _tail(self, session: str, count: int) -> tuple[int, list[Message]]:
        """The version of the newest messages, and the newest `count` of them.

        The framework's rule compares what comes in with the end of what is there. One more than comes in shows it that there is more.
        """
        version, tail = await self._newest(session, count)
        if not version and (view := await read_or_none(self._store, session)) is not None:
            # A lease has started it, or all messages were dropped; or another one has stored some since they were looked for.
            version, tail = await self._newest(session, count)
            return version or view.version, tail
        return version, tail

    async def _newest(self, session: str, count: int) -> tuple[int, list[Message]]:
        """As `_tail`; version 0 where there are no messages."""
        version, tail = 0, list[Message]()
        async for commit, message in self._messages(session, newest_first=True):
            version = version or commit.version
            tail.append(message)
            if len(tail) == count:
                break
        return version, tail[::-1]

    async def _messages(self, session: str, *, newest_first: bool = False) -> AsyncIterator[tuple[Commit, Message]]:
        try:
            async for commit in kept(self._store, session, types={MESSAGE}, newest_first=newest_first):
                for event in reversed(commit.events) if newest_first else commit.events:
                    yield commit, _message(event, session)
        except NotFound:
            return
        except Deleted:
            if await expired_at(self._store, session) is None:
                raise

    def _session(self, session_id: str | None) -> str:
        parts = [session_id or NAMELESS, *([] if self.source_id == self.DEFAULT_SOURCE_ID else [self.source_id])]
        return compose("An Agent Framework session", "agent-framework", "history", *parts)


def _listed(messages: Any) -> list[Message]:
    if isinstance(messages, (str, bytes)) or not isinstance(messages, Iterable):
        raise Invalid(f"Messages come in a list, not in {type(messages).__name__}.")
    found = list(messages)
    for message in found:
        if not isinstance(message, Message):
            raise Invalid(f"A message is Agent Framework's Message, not {type(message).__name__}.")
    return found


def _json(message: Message) -> dict[str, Any]:
    """The framework's own JSON of a message, sound and escaped. Raises `Invalid`."""
    try:
        data: dict[str, Any] = escape(message.to_dict())
    except FAILURES as error:
        raise Invalid(f"A message cannot be stored as JSON: {error}.") from error
    check(data, what="a message")
    return data


def _message(event: Event, session: str) -> Message:
    if not isinstance(event.data, dict) or "role" not in event.data:
        raise Invalid(f"Session {session!r} holds a message that is not Agent Framework's: something else wrote it.", session=session)
    try:
        return Message.from_dict(dict(unescape(event.data)))
    except (KeyError, TypeError, ValueError) as error:
        raise Unsupported(f"Session {session!r} holds a message that this agent-framework-core does not understand: {error}.") from error
