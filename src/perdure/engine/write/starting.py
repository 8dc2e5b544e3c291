"""The first commits of a session that begins with a policy: a control commit that says so, and the one that starts it, in one append."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from perdure.backends.spi import Appended, Head, Index, Record
from perdure.codec.codec import Codec
from perdure.codec.records import Proposal
from perdure.engine.read.cache import CachedState
from perdure.model.commit import Kind, Status
from perdure.model.control import CONFIGURED, CONTROL, NOTHING_SET, Control
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import Policy, first_due, policy_sections

_DELETED = int(Status.deleted)
Finish = Callable[[Head | None], Sequence[Record] | None]
"""See `spi.Append.finish`."""


class Start(msgspec.Struct, frozen=True):
    """What a session begins with: the commit that says so, what the index row says then, and the control cell."""

    proposal: Proposal
    index: Index
    control: Control


def begin_event(policy: Policy) -> Event:
    """What the chain says of a policy that a session begins with."""
    return Event(CONFIGURED, {CONTROL: policy_sections(policy)})


def begin_index(policy: Policy, now: int) -> tuple[Index, Control]:
    """What the index row says of it, and the control cell."""
    control = NOTHING_SET.after(Kind.configure, (begin_event(policy),))
    return Index(due_at=first_due(policy, now), control=control.encode()), control


def start_with(codec: Codec, session: SessionKey, policy: Policy, id: bytes, now: int) -> Start:
    """What a session begins with that is started under a prefix policy at `now`. `id` is that of its first commit."""
    index, control = begin_index(policy, now)
    return Start(codec.propose(session, (begin_event(policy),), id=id, kind=Kind.configure), index, control)


def starts(head: Head | None, *, again: bool) -> bool:
    """Whether a write after this head starts the session with its policy. `again`: in a life after a tombstone too."""
    return head is None or (again and head.status == _DELETED)


def starting(finish: Finish, start: Start, proposal: Proposal, now: int, *, again: bool) -> Finish:
    """Start the session (see `starts`), and refuse to write to one that is there: the index row would be changed as that of a new one.

    The commit with the policy comes first. After a tombstone it comes second, for only a data commit begins a life.
    """

    def begin(head: Head | None) -> Sequence[Record] | None:
        records = finish(head)
        if records is None or not starts(head, again=again):
            return None
        if head is None:
            first = start.proposal.finish(None, now)
            return first, proposal.finish(first.head, now)
        return *records, start.proposal.finish(records[-1].head, now)

    return begin


def started_at(outcome: Appended, finish: Finish) -> Head:
    """Where the commit of the caller's stands in an append of `starting`. `finish`: see there."""
    records = None if outcome.previous is None else finish(outcome.previous)
    return outcome.head if records is None else records[-1].head


def first_state(head: Head, start: Start | None) -> CachedState:
    """The state of a session that was just started, before its first data."""
    created_at = head.at if start is None else head.at - 1  # Each commit is later than the one before, if by a nanosecond.
    return CachedState(head, {}, 0, 0, {}, created_at, control=NOTHING_SET if start is None else start.control)
