"""What a sweeper does to one session that is due. Each step is one conditional commit, or one change of the index row on the row that was
seen: so two sweepers that meet do it once, and what one leaves undone the next look finds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from perdure.backends.spi import NEVER, Row
from perdure.engine.branch.fork import purge_deleted
from perdure.engine.leasing.rules import Claim
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.errors import Deleted, Fenced, Invalid, Moved, NotFound
from perdure.model.commit import Kind, Status
from perdure.model.control import CONTROL, DELETED, decode_control
from perdure.model.epoch import raised
from perdure.model.events import Event
from perdure.model.ids import uuid_text
from perdure.model.lifecycle import (
    GRACE_PERIOD,
    LOOK,
    SECOND,
    Look,
    Policy,
    Wake,
    is_idle_for,
    look_of,
    looked,
    next_due,
    policy_of,
    policy_sections,
    woken,
)
from perdure.model.timestamps import rfc3339
from perdure.ops.retention_steps import archive, is_unfinished, resting, trim
from perdure.ops.rows import (
    ACTOR,
    FAILED_DELAY,
    FORKED_DELAY,
    HELD_DELAY,
    LEASE_TTL,
    UNFINISHED_DELAY,
    Sweep,
    action,
    basis_of,
    lease_forbids,
    move_on,
)
from perdure.ops.swept import Action


async def look_at(sweep: Sweep, row: Row) -> Action:
    """Look at a live session that is due, and do what there is to do."""
    control = decode_control(row.control)
    policy, last = policy_of(control), look_of(control)
    if policy is None:
        return await move_on(sweep, row, NEVER)
    look = looked(last, row.head, sweep.now)
    idle = is_idle_for(policy.expire_after, last, row.head, sweep.now)
    alarm = woken(policy, sweep.now)
    forbidden = lease_forbids(row.head.epoch, ending=False)
    if alarm is not None and policy.wake == "sweep" and not forbidden and not (idle and _expired_before(policy, last, alarm)):
        return await _wake(sweep, row, look, alarm)
    ending = lease_forbids(row.head.epoch, ending=True)
    if idle and not ending:
        return await _expire(sweep, row, policy, look)
    if archived := row.head.status == Status.archived:
        policy = resting(policy)
    due_at = next_due(policy, last, look)
    if archived:
        unused = await is_unfinished(sweep.core, row)
    else:
        unused = is_idle_for(policy.archive_after, last, row.head, sweep.now)
    if idle or forbidden or (unused and ending):
        return await _ask_holder(sweep, row)
    if alarm is not None and not _needs_look(policy, last, sweep.now):
        return action(row, "waiting", "for a worker that claims it")
    if unused:
        return await archive(sweep, row, policy, last, look)
    if policy.keeps:
        return await trim(sweep, row, policy, last, look, NEVER if due_at is None else due_at)
    return await move_on(sweep, row, NEVER if due_at is None else due_at, look=look, control=control)


async def _ask_holder(sweep: Sweep, row: Row) -> Action:
    """A lease is in the way: leave the session alone for a while, and ask the holder whether it is alive. One that has not answered for its
    whole ttl, as this store object has seen it, loses the lease, so that a dead worker does not keep a session for ever."""
    held = await move_on(sweep, row, sweep.now + HELD_DELAY, what="held", detail="a lease is held")
    if sweep.dry_run or held.action == "overtaken":
        return held
    leases, claim = sweep.core.leases, Claim(uuid_text(sweep.core.committer.new_id()), ACTOR, LEASE_TTL)
    try:
        attempt = await leases.attempt(row.session, claim, ask=True)
        if attempt.fence is None:
            return held
        await leases.hold(attempt.fence, claim, None).release()
    except (Deleted, Moved, NotFound, Fenced):
        return action(row, "overtaken")
    except BaseException:  # The lease may have been taken, or may be soon.
        leases.abandon(row.session, claim)
        raise
    return action(row, "held", "its holder did not answer, and has lost the lease")


def _expired_before(policy: Policy, last: Look | None, alarm: Wake) -> bool:
    """Whether the session should have expired before its alarm went off."""
    return last is not None and policy.expire_after is not None and last.since + policy.expire_after <= alarm.due


def _needs_look(policy: Policy, last: Look | None, now: int) -> bool:
    """Whether something besides the alarm may be due."""
    rest = msgspec.structs.replace(policy, wake_at=None)
    due_at = None if last is None else next_due(rest, last, last)
    return rest.needs_looks and (due_at is None or due_at <= now)


async def _wake(sweep: Sweep, row: Row, look: Look, alarm: Wake) -> Action:
    """Let the alarm go off, once, and set the next one in the same commit."""
    detail = f"due at {rfc3339(alarm.due)}" + (f", and {alarm.missed} times since" if alarm.missed else "")
    if sweep.dry_run:
        return action(row, "woken", detail)

    def decide(basis: Basis) -> ControlChange | None:
        policy = policy_of(basis.control)
        now = None if policy is None else woken(policy, sweep.now)
        if policy is None or policy.wake != "sweep" or now is None or lease_forbids(basis.head.epoch, ending=False):
            return None
        sections = policy_sections(now.policy)
        if now.policy.needs_looks:
            sections[LOOK] = msgspec.to_builtins(look)
        data = {"due": rfc3339(now.due), "missed": now.missed, CONTROL: sections}
        due_at = None if now.policy.says_nothing else next_due(now.policy, None, look)
        return ControlChange((ControlCommit(kind=Kind.configure, event=Event("woken", data)),), NEVER if due_at is None else due_at)

    return action(row, "woken", detail) if await _commit(sweep, row, decide) else action(row, "overtaken")


async def _expire(sweep: Sweep, row: Row, policy: Policy, look: Look) -> Action:
    """Delete a session that was idle for too long, unless it was used, configured or leased since it was seen."""
    detail = f"idle since {rfc3339(look.since)}"
    if sweep.dry_run:
        return action(row, "expired", detail)
    step = sweep.core.controls.grant_step()
    grace = GRACE_PERIOD if policy.grace is None else policy.grace
    data = {"expired": {"idle_since": rfc3339(look.since), "expire_after": (policy.expire_after or 0) / SECOND, "grace": grace / SECOND}}

    def decide(basis: Basis) -> ControlChange | None:
        changed = basis.head.data != row.head.data or policy_of(basis.control) != policy
        if changed or lease_forbids(basis.head.epoch, ending=True):
            return None
        tombstone = ControlCommit(
            kind=Kind.tombstone, event=Event(DELETED, data), status=Status.deleted, epoch=lambda epoch: raised(epoch, step)
        )
        return ControlChange((tombstone,), sweep.now + grace, tags={})

    return action(row, "expired", detail) if await _commit(sweep, row, decide) else action(row, "overtaken")


async def _commit(sweep: Sweep, row: Row, decide: Callable[[Basis], ControlChange | None]) -> bool:
    """Write what `decide` makes of the row, and again of each head that came first; whether anything was written."""
    core = sweep.core
    try:
        basis = basis_of(row)
        return await core.controls.change(row.session, decide, actor=ACTOR, durability=core.durability, basis=basis) is not None
    except (NotFound, Deleted, Moved, Fenced):
        return False


async def purge(sweep: Sweep, row: Row) -> Action:
    """Remove the bytes of a session whose grace is over. That it still is the one that was seen is made sure first."""
    if sweep.dry_run:
        return action(row, "purged")
    moved = await move_on(sweep, row, sweep.now + UNFINISHED_DELAY)
    if moved.action == "overtaken":
        return moved
    try:
        await purge_deleted(sweep.core, row.session)
    except Invalid as error:
        if "forks" not in error.facts:  # It was created again since.
            return action(row, "overtaken")
        seen = msgspec.structs.replace(row, due_at=sweep.now + UNFINISHED_DELAY)
        detail = f"{', '.join(map(repr, error.forks))} read their past from it"
        return await move_on(sweep, seen, sweep.now + FORKED_DELAY, what="forked", detail=detail)
    return action(row, "purged")


async def postpone(sweep: Sweep, row: Row, why: str) -> Action:
    """Leave a session alone for a while with which something is wrong."""
    await move_on(sweep, row, sweep.now + FAILED_DELAY)  # Where the row has changed since, that says when it is due.
    return action(row, "failed", why)
