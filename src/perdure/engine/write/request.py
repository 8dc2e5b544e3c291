"""One write: what a caller wants, and what a head forbids. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any

import msgspec

from perdure.backends.spi import Durability, Head
from perdure.engine.options import Options
from perdure.engine.read.cache import CachedState
from perdure.errors import AlreadyExists, Conflict, Deleted, Error, Invalid, Moved, NotFound, Rewound
from perdure.model.commit import GENESIS, Status
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.ops import Op
from perdure.model.state import MISSING

_ACTIVE = int(Status.active)
NOTHING = CachedState(Head(0, GENESIS, 0, 0, int(Status.active), 0), {}, 0, 0, {}, 0)
"""The state of a session that does not exist yet."""


class Mode(Enum):
    """What a write needs of the head that it follows."""

    events = "events"
    """It changes no state. It follows any head, or any that has no data commit after `expected_version`."""
    any_state = "any state"
    """Its operations are meant for whatever state there is: they are applied to the newest one."""
    rebase = "rebase"
    """Its operations were made on a state: they are carried over what others have committed since."""
    exact = "exact"
    """It follows the very state that was seen, or nothing is written."""


EVENTS = Mode.events
"""Every append asks for this member several times, and Python 3.11 takes twenty times as long to find it by its type as by a name."""


class WriteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants written. It never changes: what changes from try to try is the committer's."""

    session: SessionKey
    events: tuple[Event, ...]
    mode: Mode
    options: Options
    durability: Durability
    expected_version: int | None = None
    """The version on which the caller decided; `None`: none."""
    base: CachedState | None = None
    """The state that the operations were made on."""
    after: Any = MISSING
    """What the operations make of the state of `base`, where that is known: then they are not applied to it again."""
    requires: Sequence[str] = ()
    """Paths whose values must not have changed since."""
    operation: str = "append"
    """The name of the call, for telemetry."""
    compare_request: bool = False
    """Whether a call that repeats the key must ask for the same."""
    asked: Sequence[Event] | None = None
    """What a call that repeats the key must ask for, where that is not `events`."""
    trace: str | None = None
    """The W3C traceparent of the caller, where the write is made outside of the call."""
    grant: int | None = None
    """The fencing token of the life that it is meant for: on a head with another one it is a conflict."""
    decide: Callable[[CachedState], Awaitable[tuple[Event, ...]]] | None = None
    """Makes the events for the state that they are committed on. It is called again for each head that is tried."""

    @property
    def ops(self) -> list[Op]:
        """The operations of all events."""
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
        raise beyond(session, options, head.version)


def beyond(session: SessionKey, options: Options, version: int) -> Error:
    """The error for one who decided on a version above the head: none that the session ever had, or one that the store has lost."""
    text = f"There is no version {options.expect} of session {session.id!r}, which is at version {version}: read it first."
    kind = Invalid if options.expect_hash is None else Rewound
    return kind(text, session=session.id, expected=options.expect, actual=version)


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
