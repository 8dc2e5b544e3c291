"""What is to become of a session by itself, and when: its policy, what the last look at it saw, and what follows from the two. Pure.

policy  the section of the control cell that `configure` sets
look    what a sweeper saw when it last looked. It goes by its own clock: what writers' clocks say is believed between two looks only
due     when somebody has to look again. Appends never touch it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from perdure.model.control import Control
from perdure.model.record import Head

SECOND = 10**9
"""Nanoseconds."""
DAY = 86_400 * SECOND
YEAR = 365 * DAY
DURATION_MIN, DURATION_MAX = SECOND, 100 * YEAR
"""Shortest and longest duration of a policy: a second, and a hundred years of 365 days."""
COMMITS_KEPT_MAX = 1_000_000_000
"""Most commits that `keep` may name."""
GRACE_PERIOD = 7 * DAY
"""How long an expired session can be read for audit before it is purged, where `grace` says nothing else."""
KEEP_LOOK_MIN, KEEP_LOOK_MAX = 60 * SECOND, DAY
"""How often a session is looked at for old commits: a tenth of an age that is kept, within these bounds."""
KEEP_LOOK_BUSY = 3_600 * SECOND
"""How often, where a number of commits is kept, and the last look saw new ones."""
CONFIRM = DAY
"""A session that was written to since the last look is not expired at this one, whatever its commits' times say, but after so long at the
earliest (or after `expire_after`, where that is shorter)."""
SYSTEM_COMMITS_KEPT = 100
"""How many commits Perdure's own sessions keep."""
POLICY, LOOK = "policy", "look"
"""The sections of the control cell."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to become of a session by itself. Times and durations in nanoseconds; `None`: it is not to happen."""

    expire_after: int | None = None
    grace: int | None = None
    archive_after: int | None = None
    wake_at: int | None = None
    """When it is woken next."""
    wake_every: int | None = None
    wake: str = "sweep"
    """Who wakes it: the sweeper, or "claim", a worker that claims it."""
    keep_for: int | None = None
    keep_commits: int | None = None
    drop: bool = False
    """Whether what is not kept goes."""
    prefix: str | None = None
    """The prefix whose policy this is; `None`: it was set for this session."""

    @property
    def keeps(self) -> bool:
        """Whether old commits are to go."""
        return self.keep_for is not None or self.keep_commits is not None

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is to happen."""
        return not self.needs_looks and self.wake_at is None

    @property
    def needs_looks(self) -> bool:
        """Whether a sweeper has to see how the session stands before it is known when something is due."""
        return self.expire_after is not None or self.archive_after is not None or self.keeps


Begin = Callable[[Policy | None, int], Policy]
"""The policy that a session begins with at a time (ns), from that of its prefix: for writers whose sessions have one of their own."""
SYSTEM_POLICY = Policy(keep_commits=SYSTEM_COMMITS_KEPT, drop=True)
"""The policy of Perdure's own sessions."""


class Look(msgspec.Struct, frozen=True, array_like=True):
    """What a sweeper saw: the newest data version and the head's version, since when it is idle, and when the sweeper looked."""

    data: int
    version: int
    since: int
    at: int


def policy_of(control: Control) -> Policy | None:
    """The session's policy. Raises `Corrupt`."""
    return control.section(POLICY, Policy)


def look_of(control: Control) -> Look | None:
    """What the last look saw; `None` where nobody has looked since the policy was set. Raises `Corrupt`."""
    return control.section(LOOK, Look)


def policy_sections(policy: Policy | None) -> dict[str, Any]:
    """What a commit that sets this policy says under `control`. Looks begin again."""
    return {POLICY: None if policy is None or policy.says_nothing else msgspec.to_builtins(policy), LOOK: None}


def with_look(control: Control, look: Look) -> Control:
    """The cell after a look. It is written without a commit."""
    return Control({**control.sections, LOOK: msgspec.to_builtins(look)})


def with_look_of(row: Control, folded: Control) -> Control:
    """What commits say, with the look that the index row says and no commit: it counts as long as the policy is the same."""
    if LOOK not in row.sections or row.sections.get(POLICY) != folded.sections.get(POLICY):
        return folded
    return Control({**folded.sections, LOOK: row.sections[LOOK]})


def first_due(policy: Policy | None, now: int) -> int | None:
    """When a session is due whose policy was set at `now`, by the clock of the one who set it; `None`: never.

    Where a sweeper has to look, it does so at once, whatever that clock says: the time is put into the year 1970.
    """
    if policy is None or policy.says_nothing:
        return None
    return now % YEAR if policy.needs_looks else policy.wake_at


def looked(last: Look | None, head: Head, now: int) -> Look:
    """What a look at `now`, by the sweeper's clock, sees of this head.

    A session whose data version is the same is idle as long as before. Otherwise the time of its newest commit is when it was used, if that
    lies between the two looks; if not, some clock was wrong, and it counts as used now. At the first look it counts as used now too.
    """
    if last is not None and last.data == head.data:
        since = min(last.since, now)
    else:
        since = head.at if last is not None and last.at < head.at <= now else now
    return Look(head.data, head.version, since, now)


def is_idle_for(duration: int | None, last: Look | None, head: Head, now: int) -> bool:
    """Whether two looks, so far apart or more, saw the same data version."""
    return duration is not None and last is not None and last.data == head.data and last.since + duration <= now


def next_due(policy: Policy, last: Look | None, look: Look) -> int | None:
    """When to look again after `look`, which followed `last`; `None`: never. It may lie in the past, for what is due now."""
    return min(_times(policy, last, look), default=None)


def _times(policy: Policy, last: Look | None, look: Look) -> Iterator[int]:
    if policy.wake_at is not None:
        yield policy.wake_at
    moved = last is None or last.data != look.data
    for duration in (policy.expire_after, policy.archive_after):
        if duration is not None:
            yield max(look.since + duration, look.at + min(duration, CONFIRM) if moved else 0)
    if policy.keep_for is not None:
        yield look.at + min(max(policy.keep_for // 10, KEEP_LOOK_MIN), KEEP_LOOK_MAX)
    if policy.keep_commits is not None:
        yield look.at + (KEEP_LOOK_BUSY if last is None or last.version != look.version else KEEP_LOOK_MAX)


class Wake(msgspec.Struct, frozen=True):
    """An alarm that went off: when it was due, how many later ones were missed, and the policy after it."""

    due: int
    missed: int
    policy: Policy


def woken(policy: Policy, now: int) -> Wake | None:
    """The alarm that is due at `now`, if one is. However many times of `wake_every` were missed, it goes off once."""
    due, every = policy.wake_at, policy.wake_every
    if due is None or due > now:
        return None
    if every is None:
        return Wake(due, 0, msgspec.structs.replace(policy, wake_at=None))
    missed = (now - due) // every
    return Wake(due, missed, msgspec.structs.replace(policy, wake_at=due + (missed + 1) * every))


def reasons(policy: Policy | None, look: Look | None) -> Iterator[tuple[int, str]]:
    """What is due when, and the word for it, as far as the last look knows: `expire`, `archive`, `wake`, `claim`."""
    if policy is None:
        return
    if policy.wake_at is not None:
        yield policy.wake_at, "claim" if policy.wake == "claim" else "wake"
    if look is not None:
        for duration, word in ((policy.expire_after, "expire"), (policy.archive_after, "archive")):
            if duration is not None:
                yield look.since + duration, word
