"""A draft: the state as dicts and lists whose calls become operations, the events to record, and the reads it rests on."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.backends.spi import Durability
from perdure.engine.options import Options, check_events, check_ops
from perdure.engine.read.cache import CachedState
from perdure.engine.read.reader import Reader
from perdure.engine.views import Receipt
from perdure.engine.write.committer import Committer
from perdure.engine.write.request import Mode, WriteRequest, beyond, check_expected, check_head, has_ops
from perdure.errors import Deleted, Invalid, NotFound
from perdure.model import ops as op
from perdure.model.commit import Status
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.ops import Op
from perdure.model.pointer import parse
from perdure.model.state import MISSING
from perdure.model.tracked import Tracker
from perdure.model.values import ROOM, freeze

EDITED = "edited"
"""The type of the event that carries what was done to `draft.state`."""


class Draft:
    """One commit in the making.

    `state` is the session's JSON document, as real dicts and lists: whatever you do to them becomes operations.
    `version` is the one the draft started from (0: a new session); `receipt` is there once the commit is stored.
    After its block nothing of a draft is written any more, so `state` and all that changes it raise `Invalid`.
    """

    def __init__(self, session: str, version: int, state: Any) -> None:
        self.session = session
        self.version = version
        self.receipt: Receipt | None = None
        self._base = state
        self._tracker: Tracker | None = None
        self._events: list[Event] = []
        self._requires: list[str] = []
        self._closed = False

    def __repr__(self) -> str:
        stage = "stored" if self.receipt else "closed" if self._closed else "open"
        return f"<Draft [{stage}] {self.session} from version {self.version}>"

    @property
    def state(self) -> Any:
        """The document to read and change. Assigning replaces it whole."""
        return self._tracked().root

    @state.setter
    def state(self, value: Any) -> None:
        self._tracked().replace(value)

    @property
    def base(self) -> Any:
        """The document that the draft started from, as the store holds it. Only read it: other readers share it."""
        self._tracked()
        return self._base

    def event(self, type: str, data: Any = None, ops: tuple[Op, ...] = ()) -> None:
        """Record that something happened. Raises `Invalid` at once for what cannot be stored."""
        self._check_open()
        (event,) = check_events((Event(type, data, ops),))
        for operation in event.ops:
            self._tracked().do(operation)
        self._events.append(Event(event.type, event.data))

    def do(self, *operations: Op) -> None:
        """Apply operations made with `perdure.op` to the state.

        In a draft whose `state` was not asked for, this is the cheapest way to change one member of many: see *Benchmarks*.
        """
        self._check_open()
        check_ops(operations)
        for operation in operations:
            self._tracked().do(operation)

    def add(self, path: str, number: float) -> None:
        """Add to the number at `path` (missing: 0). Additions of several writers all count."""
        self.do(op.add(path, number))

    def union(self, path: str, items: list[Any]) -> None:
        """Put those items into the list at `path` (missing: `[]`) that are not in it yet."""
        self.do(op.union(path, items))

    def require(self, path: str = "") -> None:
        """Rest this edit on the value at `path` (all of the state, by default): if others change it first, `Conflict`."""
        self._check_open()
        parse(path)
        self._requires.append(path)

    def _check_open(self) -> None:
        if self._closed:
            raise Invalid(
                f"This draft of session {self.session!r} was used after its block, so nothing of it would be written: "
                "change it inside the block, and read the stored state with store.read."
            )

    def _tracked(self) -> Tracker:
        self._check_open()
        if self._tracker is None:
            with ROOM:
                self._base = freeze(self._base)
                self._tracker = Tracker(self._base)
        return self._tracker

    def _collect(self) -> tuple[Event, ...]:
        operations: tuple[Op, ...] = ()
        if self._tracker is not None:
            with ROOM:
                operations = self._tracker.ops()
            self._tracker.close()
        if not operations:
            return tuple(self._events)
        return (*self._events, Event(EDITED, None, operations))


async def start(reader: Reader, session: SessionKey, options: Options, *, newest: bool = False) -> tuple[Draft, CachedState | None]:
    """A draft on the state at the head (or at `expect`). Raises `NotFound`, `Deleted`, `AlreadyExists` as the options say."""
    base = await (reader.read_head(session) if newest else reader.cached(session))
    if base is None and not options.create:
        raise NotFound(f"There is no session {session.id!r}.", session=session.id)
    if base is not None and base.head.status == Status.deleted and not options.recreate:
        base = await reader.read_head(session)  # The cached state may be older than a re-creation by another process.
        if base is not None and base.head.status == Status.deleted:
            raise Deleted(f"Session {session.id!r} was deleted at version {base.head.version}.", session=session.id)
    base = await base_at(reader, session, options, base)
    return Draft(session.id, 0 if base is None else base.head.version, {} if base is None else base.state), base


async def base_at(reader: Reader, session: SessionKey, options: Options, now: CachedState | None) -> CachedState | None:
    """The state that the caller expects to change: the one at version `expect`, if it names an older one of this life."""
    expect = options.expect
    if not expect or now is None or now.head.data <= expect <= now.head.version:
        return now
    if now.head.status == Status.deleted:
        now = await reader.read_head(session)  # The cached state may be older than a re-creation by another process.
        if now is None or now.head.status != Status.deleted:
            return await base_at(reader, session, options, now)
        check_head(session, now.head, options)
    check_expected(session, expect, await reader.incarnation_start(session, now.head), now.head)
    if expect > now.head.version:
        now = await reader.read_head(session)
        if now is None or expect > now.head.version:
            raise beyond(session, options, now.head.version if now else 0)
        return await base_at(reader, session, options, now)
    return (await reader.at(session, expect))[0]


async def finish(
    committer: Committer,
    draft: Draft,
    base: CachedState | None,
    session: SessionKey,
    options: Options,
    durability: Durability,
    *,
    operation: str,
    exact: bool = False,
) -> Receipt | None:
    """Commit what the draft holds; nothing, when it changed nothing."""
    events = draft._collect()
    if not events:
        return None
    if base is not None and draft._tracker is not None:
        base = msgspec.structs.replace(base, state=draft._base)
    request = WriteRequest(
        session=session,
        events=events,
        options=options,
        durability=durability,
        mode=Mode.exact if exact else Mode.rebase if draft._requires or has_ops(events) else Mode.events,
        expected_version=draft.version,
        base=base,
        after=MISSING if draft._tracker is None else draft._tracker.after,
        requires=tuple(draft._requires),
        operation=operation,
        compare_request=options.payload is not None,
        asked=options.payload,
    )
    return await committer.commit(request)
