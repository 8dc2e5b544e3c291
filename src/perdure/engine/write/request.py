"""One write on its way to the chain: what it would do, and what a head makes of it. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from perdure.backends.spi import Durability, Head
from perdure.engine.options import Options
from perdure.engine.read.cache import CachedState
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, Moved, NotFound
from perdure.model.commit import GENESIS, Status
from perdure.model.events import Event
from perdure.model.ids import SessionKey, life_key
from perdure.model.ops import Op
from perdure.model.state import MISSING, lookup

_ACTIVE = int(Status.active)
NOTHING = CachedState(Head(0, GENESIS, 0, 0, int(Status.active), 0), {}, 0, 0, {}, 0)
"""The state of a session that does not exist yet."""


class WriteRequest(msgspec.Struct, kw_only=True):
    """One write on its way. `base` is the state that its operations were made on; it moves on as they are rebased."""

    session: SessionKey
    events: tuple[Event, ...]
    options: Options
    durability: Durability
    base: CachedState | None = None
    blind: bool = False
    """The operations are meant for whatever state there is: they are applied again, not rebased."""
    since: int | None = None
    """For events alone: the version decided on. Data commits after it are checked before this is stored; `None`: any head will do."""
    strict: bool = False
    """Commit on the very state that was seen, or not at all."""
    requires: Sequence[str] = ()
    seen: int = 0
    """The version that the caller decided on, for the message of a conflict."""
    operation: str = "append"
    check_request: bool = False
    asked: Sequence[Event] | None = None
    """What a call that repeats the key must ask for, where that is not `events`."""
    decide: Callable[[CachedState], Awaitable[tuple[Event, ...]]] | None = None
    """Makes the events for the state that they are committed on: asked again for each head that is tried."""
    incarnation: tuple[int, int] | None = None
    """Where an earlier life has used the key: the tombstone after which the life began that this is for, and the grant of that life."""

    @property
    def key(self) -> str | None:
        """The idempotency key as it is stored."""
        return self.options.key if self.options.key is None or self.incarnation is None else life_key(self.options.key, self.incarnation[0])

    @property
    def ops(self) -> list[Op]:
        return [op for event in self.events for op in event.ops]


def has_ops(events: Sequence[Event]) -> bool:
    """Whether any of these events changes the state."""
    for event in events:  # noqa: SIM110 - a generator costs more than the loop, on the hottest path there is
        if event.ops:
            return True
    return False


def check_head(session: SessionKey, head: Head | None, options: Options, *, starting: bool = False) -> None:
    """Raise what a head forbids, whatever the policy: `AlreadyExists`, `NotFound`, `Deleted`, `Moved`, `Invalid` for a future version."""
    expect = options.expect
    if head is None:
        if (not options.create and not starting) or expect:
            raise NotFound(f"There is no session {session.id!r}.", session=session.id)
        return
    if expect is None and head.status == _ACTIVE:
        return
    if head.status == Status.moved:
        raise Moved(f"Session {session.id!r} was moved.", session=session.id, to=None)
    if head.status == Status.deleted:
        if not options.recreate:
            raise Deleted(f"Session {session.id!r} was deleted at version {head.version}.", session=session.id)
    elif expect == 0:
        raise AlreadyExists(f"Session {session.id!r} is at version {head.version}.", session=session.id, version=head.version)
    if expect is not None and expect > head.version:
        raise Invalid(f"expect={expect}, but session {session.id!r} is at version {head.version}: read it first.")


def check_incarnation(session: SessionKey, tombstone: int, version: int) -> None:
    """Raise `Deleted` for a version that does not come after the last tombstone."""
    if version <= tombstone:
        raise Deleted(
            f"Session {session.id!r} was deleted at version {tombstone}, and with it what came before; include_deleted=True reads it.",
            session=session.id,
        )


def check_expected(session: SessionKey, expect: int, tombstone: int, head: Head) -> None:
    """Raise `Conflict` if the version that the caller decided on does not come after the last tombstone."""
    if expect < tombstone:
        raise Conflict(
            f"Session {session.id!r} was deleted at version {tombstone}, after the version {expect} that you decided on.",
            session=session.id,
            expected=expect,
            actual=head.version,
            commits=(),
            paths=(),
        )


def same_state(base: CachedState | None, head: Head) -> bool:
    """Whether a head has the same state as `base`: it is that head, or only control commits follow it."""
    if base is None:
        return False
    mine = base.head
    if head.version == mine.version:
        return head.hash == mine.hash
    return head.version > mine.version and head.data <= mine.data and head.status == mine.status


def seen(state: Any, path: str) -> Any:
    """The value at a path, or `MISSING`."""
    try:
        return lookup(state, path)
    except KeyError:
        return MISSING


def with_parts(events: Sequence[Event], parts: Sequence[Sequence[Op]]) -> tuple[Event, ...]:
    """The events with their operations as rebased: each part came from one operation."""
    rebased, start = [], 0
    for event in events:
        mine = parts[start : start + len(event.ops)]
        start += len(event.ops)
        rebased.append(Event(event.type, event.data, tuple([op for part in mine for op in part])))
    return tuple(rebased)


def with_answer(events: Sequence[Event], ops: tuple[Op, ...]) -> tuple[Event, ...]:
    """The events with the policy's operations in place of the conflicting ones. They stand on the last event that had operations."""
    last = max(index for index, event in enumerate(events) if event.ops)
    return tuple(Event(event.type, event.data, ops if index == last else ()) for index, event in enumerate(events))
