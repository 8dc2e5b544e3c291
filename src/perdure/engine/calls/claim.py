"""`claim`: sessions whose alarm is due, each to one worker at a time, under a lease.

The take and what wakes the session are one append. The alarm is used up by the release, never by the take: where a worker dies, or leaves
its loop by an error, the session is due still, and the next worker that looks challenges the lease.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress

import msgspec

from perdure.backends.spi import NEVER, Query, Row
from perdure.clock import Clock
from perdure.engine.calls.lease import make_claim
from perdure.engine.calls.listing import check_id_part, check_tags
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Lease
from perdure.engine.leasing.rules import Claim
from perdure.engine.options import check_count
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.errors import Deleted, Error, Fenced, Invalid, Moved, NotFound
from perdure.model.commit import Kind, Status
from perdure.model.control import CONTROL, Control, decode_control
from perdure.model.events import Event
from perdure.model.ids import uuid_text
from perdure.model.lifecycle import LOOK, Wake, first_due, look_of, next_due, policy_of, policy_sections, woken
from perdure.model.timestamps import rfc3339

PAGE = 100
"""Rows that an engine is asked for at once."""
WOKEN, HANDLED = "woken", "handled"
"""The event of a take, and that of the release by which its alarm is used up: data {due, missed}."""


class _NotDueError(Error):
    """Another worker has handled the alarm, or it was changed. Nothing was written."""


async def claim(
    context: Context,
    prefix: str,
    tags: Mapping[str, str] | None,
    owner: str,
    ttl: float,
    limit: int | None,
    *,
    exclusive: bool,
) -> AsyncGenerator[Lease, None]:
    """See `Store.claim`."""
    core = context.opened()
    async with aclosing(take_due(context, prefix, tags, owner, ttl, limit, exclusive=exclusive)) as leases:
        async for lease in leases:
            try:
                yield lease
            except BaseException:
                lease._at_release = None  # The work was not done: the alarm stands.
                await _let_go(core, lease)
                raise
            await _let_go(core, lease)


async def take_due(
    context: Context,
    prefix: str,
    tags: Mapping[str, str] | None,
    owner: str,
    ttl: float,
    limit: int | None,
    *,
    exclusive: bool,
) -> AsyncGenerator[Lease, None]:
    """The leases of sessions that are due, at most so many. They are the caller's to release."""
    core = context.opened()
    check_id_part("prefix", prefix)
    if limit is not None:
        check_count("limit", limit)
        if not limit:
            raise Invalid("limit must be at least 1: so many sessions are handed out at most.")
    asked = make_claim(core, owner, ttl, exclusive=exclusive)
    query = Query(context.tenant, prefix, check_tags(tags or {}), order="due", due_before=core.clock.now() + 1)
    cursor: str | None = None
    given = 0
    while True:
        with core.telemetry.span("claim", context.tenant, prefix):
            page = await core.backend.scan(query, cursor=cursor, limit=PAGE)
        for row in page.items:
            lease = await _take(core, row, msgspec.structs.replace(asked, id=uuid_text(core.committer.new_id())))
            if lease is None:
                continue
            yield lease
            given += 1
            if given == limit:
                return
        cursor = page.cursor
        if cursor is None:
            return


async def _take(core: Core, row: Row, claim: Claim) -> Lease | None:
    """The lease of a session that is due; `None` where it is not any more, or somebody holds it, who is challenged then."""
    if _alarm(decode_control(row.control), core.clock.now()) is None:
        return None
    alarms: list[Wake] = []

    def wake(basis: Basis, change: ControlChange) -> ControlChange:
        alarm = _alarm(basis.control, core.clock.now())
        if alarm is None:
            raise _NotDueError
        alarms[:] = [alarm]
        event = Event(WOKEN, {"due": rfc3339(alarm.due), "missed": alarm.missed})
        return msgspec.structs.replace(change, commits=(*change.commits, ControlCommit(kind=Kind.configure, event=event)))

    try:
        if row.head.status == Status.archived:
            await core.archiver.restore(row.session, claim.owner)
        attempt = await core.leases.attempt(row.session, claim, ask=True, extend=wake)
        if attempt.fence is None:
            return None
        lease = core.leases.hold(attempt.fence, claim, None, attempt.head)
    except (_NotDueError, NotFound, Deleted, Moved):
        return None
    except BaseException:  # It may have been taken, or may be soon; then nobody wants it.
        core.leases.abandon(row.session, claim)
        raise
    lease._at_release = _using_up(alarms[0], core.clock)
    return lease


def _alarm(control: Control, now: int) -> Wake | None:
    """The alarm for workers that is due."""
    policy = policy_of(control)
    return None if policy is None or policy.wake != "claim" else woken(policy, now)


def using_up_later(due: str, clock: Clock) -> Callable[[Basis, ControlChange], ControlChange]:
    """The same for an alarm that another process has handed out; `due` is what the take's event says."""

    def finish(basis: Basis, change: ControlChange) -> ControlChange:
        alarm = _alarm(basis.control, clock.now())
        return change if alarm is None or rfc3339(alarm.due) != due else _using_up(alarm, clock)(basis, change)

    return finish


def _using_up(alarm: Wake, clock: Clock) -> Callable[[Basis, ControlChange], ControlChange]:
    """What makes the next alarm stand, in the append that releases the lease. One that was set meanwhile stays as it is."""

    def finish(basis: Basis, change: ControlChange) -> ControlChange:
        policy = policy_of(basis.control)
        if policy is None or (policy.wake, policy.wake_at) != ("claim", alarm.due):
            return change
        after, look = msgspec.structs.replace(policy, wake_at=alarm.policy.wake_at), look_of(basis.control)
        sections = policy_sections(after)
        if look is None:
            due_at = first_due(after, clock.now())
        else:
            sections[LOOK], due_at = msgspec.to_builtins(look), next_due(after, look, look)
        event = Event(HANDLED, {"due": rfc3339(alarm.due), "missed": alarm.missed, CONTROL: sections})
        commits = (*change.commits, ControlCommit(kind=Kind.configure, event=event))
        return ControlChange(commits, NEVER if due_at is None else due_at)

    return finish


async def _let_go(core: Core, lease: Lease) -> None:
    """Release it. Where that cannot be had now, the lease is released soon, and the alarm stands."""
    with suppress(Fenced, Deleted, NotFound):
        try:
            await lease.release()
        except (Fenced, Deleted, NotFound):
            raise
        except BaseException as error:
            core.leases.abandon(lease._fence.session, lease._claim)
            if not isinstance(error, Error):
                raise
