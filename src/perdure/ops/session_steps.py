"""What a sweeper does to one session that is due. Each step is one conditional commit, or one change of the index row on the row that was
seen: so two sweepers that meet do it once, and what one leaves undone the next look finds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from perdure.backends.spi import NEVER, Index, Row, indexed
from perdure.engine.branch.fork import purge_deleted
from perdure.engine.branch.retention import last_to_drop, trim
from perdure.engine.core import Core
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.errors import Deleted, Fenced, Invalid, Moved, NotFound
from perdure.model.commit import Kind, Status
from perdure.model.control import CONTROL, Control, decode_control
from perdure.model.epoch import is_exclusive, is_held, raised
from perdure.model.events import Event
from perdure.model.lifecycle import (
    DAY,
    GRACE,
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
    with_look,
    woken,
)
from perdure.model.timestamps import rfc3339
from perdure.ops.swept import Action, What

ACTOR = "perdure sweep"
"""The actor of a sweeper's commits."""
HELD_DELAY = 300 * SECOND
"""How long a session is left alone on which a lease is held, in nanoseconds."""
FORKED_DELAY = DAY
"""How long a deleted session is left alone that a fork still reads through, in nanoseconds."""
UNFINISHED_DELAY = 600 * SECOND
"""When a session is looked at again of which bytes are being removed, in nanoseconds: the sweeper that does it may die."""
FAILED_DELAY = 300 * SECOND
"""How long a session is left alone with which something was wrong, in nanoseconds."""


class Sweep(msgspec.Struct, frozen=True):
    """One round: the store's parts, the sweeper's time in nanoseconds, and whether nothing is to be changed."""

    core: Core
    now: int
    dry_run: bool = False


def action(row: Row, what: What, detail: str = "") -> Action:
    """What was done to the session of this row."""
    return Action(row.session.tenant, row.session.id, what, detail)


def basis_of(row: Row) -> Basis:
    """What the row says of its session. The sweeper's decisions ask neither in which life it is nor who holds it."""
    return Basis(row.head, decode_control(row.control), 0, None)


def lease_forbids(epoch: int, *, ending: bool) -> bool:
    """Whether a lease forbids the sweeper to write now: an exclusive one any commit, every other one to end the session's life."""
    return is_exclusive(epoch) or (ending and is_held(epoch))


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
    if idle and not lease_forbids(row.head.epoch, ending=True):
        return await _expire(sweep, row, policy, look)
    due_at = next_due(policy, last, look)
    if idle or forbidden:
        return await move_on(sweep, row, sweep.now + HELD_DELAY, what="held", detail="a lease is held")
    if alarm is not None and not _needs_look(policy, last, sweep.now):
        return action(row, "waiting", "for a worker that claims it")
    if policy.keeps:
        return await _trim(sweep, row, policy, last, look, NEVER if due_at is None else due_at)
    return await move_on(sweep, row, NEVER if due_at is None else due_at, look=look, control=control)


def _expired_before(policy: Policy, last: Look | None, alarm: Wake) -> bool:
    """Whether the session should have expired before its alarm went off."""
    return last is not None and policy.expire_after is not None and last.since + policy.expire_after <= alarm.due


def _needs_look(policy: Policy, last: Look | None, now: int) -> bool:
    """Whether something besides the alarm may be due."""
    rest = msgspec.structs.replace(policy, wake_at=None)
    due_at = None if last is None else next_due(rest, last, last)
    return rest.needs_looks and (due_at is None or due_at <= now)


async def move_on(
    sweep: Sweep,
    row: Row,
    due_at: int,
    *,
    look: Look | None = None,
    control: Control | None = None,
    what: What = "looked",
    detail: str = "",
) -> Action:
    """Change when the session is due, and with `look` what was seen, if the row is still the one that was seen."""
    if not sweep.dry_run and (backend := indexed(sweep.core.backend)) is not None:
        cell = None if look is None or control is None else with_look(control, look).encode()
        if not await backend.change_index(row, Index(due_at=due_at, control=cell)):
            return action(row, "overtaken")
    return action(row, what, detail or ("not due any more" if due_at == NEVER else f"due again at {rfc3339(due_at)}"))


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
    grace = GRACE if policy.grace is None else policy.grace
    data = {"expired": {"idle_since": rfc3339(look.since), "expire_after": (policy.expire_after or 0) / SECOND, "grace": grace / SECOND}}

    def decide(basis: Basis) -> ControlChange | None:
        changed = basis.head.data != row.head.data or policy_of(basis.control) != policy
        if changed or lease_forbids(basis.head.epoch, ending=True):
            return None
        tombstone = ControlCommit(
            kind=Kind.tombstone, event=Event("deleted", data), status=Status.deleted, epoch=lambda epoch: raised(epoch, step)
        )
        return ControlChange((tombstone,), sweep.now + grace, tags={})

    return action(row, "expired", detail) if await _commit(sweep, row, decide) else action(row, "overtaken")


async def _trim(sweep: Sweep, row: Row, policy: Policy, last: Look | None, look: Look, due_at: int) -> Action:
    """Drop the commits that the session does not keep."""
    if sweep.dry_run:
        version = await last_to_drop(sweep.core, row, policy, sweep.now)
        return action(row, "trimmed", f"up to version {version}") if version else await move_on(sweep, row, due_at)
    soon = min(due_at, sweep.now + UNFINISHED_DELAY)
    trimmed = await trim(sweep.core, row, policy, last, look, soon, ACTOR)
    if trimmed.overtaken:
        return action(row, "overtaken")
    if trimmed.anchored:
        return action(row, "trimmed", f"{trimmed.dropped} commits")
    moved = await move_on(sweep, row, due_at, look=look, control=decode_control(row.control))
    if moved.action == "overtaken":
        return moved
    if trimmed.forks:
        return action(row, "forked", f"{', '.join(map(repr, trimmed.forks))} read their past from it")
    return action(row, "trimmed", f"{trimmed.dropped} commits") if trimmed.dropped else moved


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
