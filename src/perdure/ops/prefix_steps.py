"""Prefix policies that were changed are given to the sessions that were started meanwhile without them; all others get them on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec

from perdure.backends.spi import NEVER, Query, Row
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.engine.write.prefixes import APPLY, CACHED_SECONDS, ID, PrefixPolicy, is_prefix_session, longest, started
from perdure.errors import Deleted, Fenced, Moved, NotFound
from perdure.model.commit import Kind
from perdure.model.control import CONFIGURED, CONTROL, Control, decode_control
from perdure.model.events import Event
from perdure.model.lifecycle import LOOK, SECOND, first_due, look_of, looked, next_due, policy_of, policy_sections
from perdure.ops.rows import ACTOR, Sweep, action, basis_of, move_on
from perdure.ops.swept import Action

APPLY_AFTER = int(2 * CACHED_SECONDS) * SECOND
"""How long after its first look a sweeper applies a changed prefix policy, in nanoseconds: until then writers may go by the old one."""
BATCH = 64
"""Sessions that are changed at once."""


def is_to_apply(row: Row) -> bool:
    """Whether this row is that of a prefix policy that was changed and is not applied yet."""
    return is_prefix_session(row.session) and PrefixPolicy.of(row.session, decode_control(row.control)).apply is not None


def is_ready(row: Row, now: int) -> bool:
    """Whether this row is that of a changed prefix policy that all writers know by now."""
    if row.due_at is None or row.due_at > now or not is_to_apply(row):
        return False
    last = look_of(decode_control(row.control))
    return last is not None and last.at <= now


async def apply_changed(sweep: Sweep, row: Row) -> Action:
    """Apply a changed prefix policy, once all writers know it, to the sessions that were started since the change."""
    if not is_ready(row, sweep.now):
        control = decode_control(row.control)
        look = looked(look_of(control), row.head, sweep.now)
        return await move_on(sweep, row, sweep.now + APPLY_AFTER, look=look, control=control)
    found = PrefixPolicy.of(row.session, decode_control(row.control))
    return await note_applied(sweep, row, await apply(sweep, found, None if found.apply is None else found.apply.since))


async def note_applied(sweep: Sweep, row: Row, count: int) -> Action:
    """Note that the change of a prefix policy was applied, to so many sessions, if it is still the newest one. The row is ready."""
    control = decode_control(row.control)
    found, policy, last = PrefixPolicy.of(row.session, control), policy_of(control), look_of(control)
    look = looked(last, row.head, sweep.now)

    def decide(basis: Basis) -> ControlChange | None:
        if PrefixPolicy.of(row.session, basis.control) != found:
            return None
        due_at = None if policy is None or last is None else next_due(policy, last, look)
        event = Event("applied", {CONTROL: {APPLY: None, LOOK: msgspec.to_builtins(look)}})
        return ControlChange((ControlCommit(kind=Kind.configure, event=event),), NEVER if due_at is None else due_at)

    core = sweep.core
    if not sweep.dry_run:
        made = await core.controls.change(row.session, decide, actor=ACTOR, durability=core.durability, basis=basis_of(row))
        if made is None:
            return action(row, "overtaken")
    return action(row, "applied", f"to {count} sessions")


async def apply(sweep: Sweep, found: PrefixPolicy, since: int | None) -> int:
    """Give a prefix policy to the sessions that are to have it and do not; to how many. `since`: only to those that were started since
    then, in nanoseconds by their first commit. A policy that was set for a session stays, and so does that of a longer prefix."""
    policies = [other async for other in sweep.core.prefixes.read(found.tenant)]
    cursor, total = None, 0
    while True:
        count, cursor = await apply_page(sweep, found, policies, since, cursor)
        total += count
        if cursor is None:
            return total


async def apply_page(
    sweep: Sweep, found: PrefixPolicy, policies: Sequence[PrefixPolicy], since: int | None, cursor: str | None
) -> tuple[int, str | None]:
    """A page of `apply`: to how many sessions, and the cursor of the next one. `policies`: all of the tenant."""
    page = await sweep.core.backend.scan(Query(found.tenant, found.prefix), cursor=cursor, limit=BATCH)
    young = [row for row in page.items if since is None or row.created_at >= since]
    own = [row for row in young if (longest(policies, row.session.id) or found).prefix == found.prefix]
    return sum(await asyncio.gather(*[_give(sweep, row, found) for row in own])), page.cursor


async def _give(sweep: Sweep, row: Row, found: PrefixPolicy) -> bool:
    """Give the policy to one session; whether it had another."""
    basis = basis_of(row)
    if not _lacks(basis.control, found):
        return False
    if sweep.dry_run:
        return True

    def decide(basis: Basis) -> ControlChange | None:
        if not _lacks(basis.control, found):
            return None
        policy = None if found.policy is None else started(found.policy, sweep.now)
        event = Event(CONFIGURED, {CONTROL: policy_sections(policy)})
        due_at = first_due(policy, sweep.now)
        return ControlChange((ControlCommit(kind=Kind.configure, event=event),), NEVER if due_at is None else due_at)

    core = sweep.core
    try:
        return await core.controls.change(row.session, decide, actor=ACTOR, durability=core.durability, basis=basis) is not None
    except (NotFound, Deleted, Moved, Fenced):
        return False


def _lacks(control: Control, found: PrefixPolicy) -> bool:
    """Whether a session is to have this prefix policy and has another one of a prefix, or none."""
    policy = policy_of(control)
    if policy is None:
        return found.policy is not None
    has = msgspec.structs.replace(policy, wake_at=None if policy.wake_every is not None else policy.wake_at)
    return policy.prefix is not None and has != found.policy


async def prefix_policies(sweep: Sweep, tenant: str | None) -> AsyncGenerator[PrefixPolicy, None]:
    """The prefix policies of this tenant, or of all."""
    if tenant is not None:
        async for policy in sweep.core.prefixes.read(tenant):
            yield policy
        return
    cursor = None
    while True:
        page = await sweep.core.backend.scan(Query(None, ID, order="due"), cursor=cursor, limit=BATCH)
        for row in page.items:
            if is_prefix_session(row.session):
                yield PrefixPolicy.of(row.session, decode_control(row.control))
        cursor = page.cursor
        if cursor is None:
            return
