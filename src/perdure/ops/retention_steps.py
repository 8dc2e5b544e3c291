"""What a sweeper does to a session that keeps some of its commits, or goes to the archive when it is not used. What is to move is claimed
first, by a change of the index row: so two sweepers that meet do it once, and what one leaves undone another does ten minutes later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec

from perdure.backends.spi import NEVER, Row
from perdure.engine.core import Core
from perdure.engine.read.bodies import nothing
from perdure.engine.read.cache import CachedState
from perdure.engine.views import Archived
from perdure.errors import Busy, Invalid
from perdure.model.anchor import anchor_of
from perdure.model.commit import Kind, Status
from perdure.model.control import Control, decode_control
from perdure.model.epoch import is_exclusive, is_held
from perdure.model.lifecycle import Look, Policy, next_due, policy_of
from perdure.ops.rows import ACTOR, FAILED_DELAY, HELD_DELAY, UNFINISHED_DELAY, Sweep, action, move_on
from perdure.ops.swept import Action, What

SLACK_PARTS = 10
"""Where a number of commits is kept: a tenth of them more, and at least as many as a move writes, may be there before the older ones go, so
that few anchors are written, and none because of the one before."""
ANCHORS_ONLY = 8
"""So few commits are read before they go: where they are anchors alone, they stay until more has come."""
NO_PLACE = "its commits go to an archive, and the sweeper's store was opened without archive="


def resting(policy: Policy) -> Policy:
    """What is to become of a session that is archived: the commit that restores it says that a sweeper has to look again."""
    return msgspec.structs.replace(policy, archive_after=None, keep_for=None, keep_commits=None)


async def trim(sweep: Sweep, row: Row, policy: Policy, last: Look | None, look: Look, due_at: int) -> Action:
    """Drop the commits that the session does not keep, or move them to the archive."""
    version = await last_to_go(sweep.core, row, policy, sweep.now)
    if not version:
        return await move_on(sweep, row, due_at, look=look, control=decode_control(row.control))
    if sweep.dry_run:
        return action(row, "trimmed", f"up to version {version}")
    keep = policy.keep_commits if policy.keep_for is None else timedelta(microseconds=policy.keep_for // 1000)
    settled = 0 if last is None else last.version

    def is_wanted(control: Control) -> bool:
        return policy_of(control) == policy

    async def compact() -> Archived:
        retention = sweep.core.retention
        return await retention.compact(row.session, keep or 0, ACTOR, drop=policy.drop, is_wanted=is_wanted, upto=version, settled=settled)

    return await _go(sweep, row, look, compact, "trimmed", due_at, needs_place=not policy.drop)


async def archive(sweep: Sweep, row: Row, policy: Policy, last: Look | None, look: Look) -> Action:
    """Move all of a session to the archive."""
    if sweep.dry_run:
        return action(row, "archived")
    due_at = next_due(resting(policy), last, look)

    def is_wanted(state: CachedState) -> bool:
        return state.head.data == row.head.data and policy_of(state.control) == policy

    async def all_of_it() -> Archived:
        return await sweep.core.archiver.archive(row.session, ACTOR, is_wanted)

    return await _go(sweep, row, look, all_of_it, "archived", NEVER if due_at is None else due_at, needs_place=True)


async def _go(
    sweep: Sweep, row: Row, look: Look, work: Callable[[], Awaitable[Archived]], what: What, due_at: int, *, needs_place: bool
) -> Action:
    """Claim the session, do the work, and say when the session is due again."""
    control = decode_control(row.control)
    if needs_place and not sweep.core.segments.has_place:
        return await move_on(sweep, row, sweep.now + FAILED_DELAY, look=look, control=control, what="failed", detail=NO_PLACE)
    soon = sweep.now + UNFINISHED_DELAY
    claimed = await move_on(sweep, row, soon if due_at == NEVER else min(due_at, soon), look=look, control=control)
    if claimed.action == "overtaken":
        return claimed
    detail, went = "", what
    try:
        moved = await work()
        detail = f"{moved.commits} commits"
    except Busy as error:
        if "consumers" in error.facts:
            await _move_newer(sweep, row, look, sweep.now + HELD_DELAY)
            return action(row, "unread", f"consumers have not read it: {', '.join(map(repr, error.consumers))}")
        newer = await sweep.core.backend.load(row.session)
        leased = newer is not None and (is_held if what == "archived" else is_exclusive)(newer.row.head.epoch)
        went, detail, due_at = ("held" if leased else "overtaken"), str(error), sweep.now + HELD_DELAY
    except Invalid as error:
        if "forks" not in error.facts:
            raise
        went, detail = "forked", f"{', '.join(map(repr, error.forks))} read their past from it"
    await _move_newer(sweep, row, look, due_at)
    return action(row, went, detail)


async def _move_newer(sweep: Sweep, row: Row, look: Look, due_at: int) -> None:
    """Say in the row as it is after the work when the session is due, and what was seen before, unless somebody gave it another policy."""
    loaded = await sweep.core.backend.load(row.session)
    if loaded is None or loaded.row.head.status == Status.deleted:
        return
    control = decode_control(loaded.row.control)
    if policy_of(control) == policy_of(decode_control(row.control)):
        await move_on(sweep, loaded.row, due_at, look=look, control=control)


async def is_unfinished(core: Core, row: Row) -> bool:
    """Whether an anchor was written, and the engine still holds what it covers."""
    anchor = anchor_of(decode_control(row.control))
    if anchor is None:
        return False
    records = await core.backend.read(row.session, limit=1)
    return bool(records) and records[0].head.version <= anchor.version


async def last_to_go(core: Core, row: Row, policy: Policy, now: int) -> int:
    """The newest version that the policy does not keep, at this time in nanoseconds; 0 where it keeps all, or hardly more would go."""
    session, head = row.session, row.head
    records = await core.backend.read(session, limit=1)
    if not records:
        return 0
    first, anchor = records[0].head, anchor_of(decode_control(row.control))
    if anchor is not None and first.version <= anchor.version:
        return anchor.version  # Its anchor was written, and its records are still there.
    if policy.keep_commits is not None:
        version = head.version - policy.keep_commits
        written = 1 if policy.drop else 2  # A segment is said before it is made.
        return version if version - first.version + 1 > max(written, policy.keep_commits // SLACK_PARTS) else 0
    version = 0
    if policy.keep_for is not None and first.at <= now - policy.keep_for:
        version = await core.reader.at_time(session, head, now - policy.keep_for, first.version - 1)
    if version < first.version + ANCHORS_ONLY:
        commits = [commit async for commit in core.reader.commits(session, after=first.version - 1, before=version + 1, need=nothing)]
        return 0 if all(commit.kind is Kind.anchor for commit in commits) else version
    return version
