"""What an attempt makes of a session, where it fits: its state, tags and control sections, its index row, and the records. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perdure.backends import spi
from perdure.backends.spi import NEVER, Durability, Index
from perdure.codec.envelope import payload_bytes
from perdure.codec.records import Base
from perdure.engine.read.cache import CachedState
from perdure.engine.read.folding import configured
from perdure.engine.write.request import has_ops
from perdure.errors import Invalid
from perdure.model.commit import Commit, Kind, Status
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import POLICY, first_due, look_of, next_due, policy_of
from perdure.model.record import Head, Record
from perdure.model.state import TestFailed, apply
from perdure.service.records.rules import sections_of
from perdure.service.records.verify import Checked, finished


class Plan(msgspec.Struct, frozen=True):
    """An attempt that fits what the node knows, and what it makes."""

    checked: Checked
    records: Sequence[Record]
    """As they are stored: large bodies lie elsewhere."""
    after: CachedState | None = None
    """What the session is after it, but for its head; `None` where only the head was needed."""
    index: Index | None = None
    base: Base | None = None
    """For a fork, the commit that it goes on from."""


def after(checked: Checked, known: CachedState) -> CachedState:
    """What the commits make of the session: its state, tags and control sections. Raises `Invalid`."""
    state, tags, control = known.state, known.tags, known.control
    log_bytes, state_bytes = known.log_bytes, known.state_bytes
    if known.head.status == Status.deleted:
        state, tags, state_bytes = {}, {}, 0
    for record, commit in zip(checked.attempt.records, checked.commits, strict=True):
        log_bytes += record.stored_bytes
        if commit.kind is Kind.data:
            state = _applied(checked.session, state, commit)
            state_bytes += payload_bytes(record.body) if has_ops(commit.events) else 0
            continue
        control = control.after_commit(commit)
        if commit.kind is Kind.tombstone:
            state, tags, state_bytes = {}, {}, 0
        elif commit.kind is Kind.configure:
            tags = configured(commit.events).get("tags", tags)
    return msgspec.structs.replace(known, state=state, tags=tags or {}, control=control, log_bytes=log_bytes, state_bytes=state_bytes)


def _applied(session: SessionKey, state: Any, commit: Commit) -> Any:
    ops = [op for event in commit.events for op in event.ops]
    if not ops:
        return state
    try:
        return apply(state, ops)
    except TestFailed as error:
        raise Invalid(f"Version {commit.version} of session {session.id!r} does not fit the state before it. {error}") from error


def index_of(before: CachedState, after: CachedState, checked: Checked, now: int) -> Index | None:
    """What the index row becomes: by what configure commits and others say, never by what a client says of it. `now`: the node's time."""
    if checked.commits[-1].kind is Kind.tombstone:
        return Index({}, due_at=NEVER, control=b"")
    tags = after.tags if any("tags" in configured(c.events) for c in checked.commits if c.kind is Kind.configure) else None
    control = after.control.encode() if after.control != before.control else None
    said = any(POLICY in sections_of(c.events[0]) for c in checked.commits if c.kind is Kind.configure)
    due_at = None
    if said or any(c.kind is Kind.anchor for c in checked.commits):
        policy, look = policy_of(after.control), look_of(after.control)
        if policy is not None and look is not None and said:
            due = next_due(policy, look, look)
        else:
            due = first_due(policy, now)
        due_at = due if due is not None else NEVER if said else None
    return None if tags is None and control is None and due_at is None else Index(tags, due_at, control)


def append_of(plan: Plan) -> spi.Append:
    """The append, for the engine."""
    attempt = plan.checked.attempt
    return spi.Append(attempt.session, _finisher(plan), attempt.key, plan.index, Durability(attempt.durability))


def _finisher(plan: Plan) -> Callable[[Head | None], Sequence[Record] | None]:
    attempt = plan.checked.attempt

    def finish(head: Head | None) -> Sequence[Record] | None:
        if attempt.expected != (None if head is None else (head.version, head.hash)):
            return None
        made = finished(plan.checked, head, plan.base)
        if plan.records is attempt.records:
            return made
        return [msgspec.structs.replace(each, body=stored.body) for each, stored in zip(made, plan.records, strict=True)]

    return finish
