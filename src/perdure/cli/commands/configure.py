"""`perdure configure`: what is to become of a session by itself, shown and changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import msgspec

from perdure.cli.common import COMMON, Common, parse_time
from perdure.cli.exits import UsageError
from perdure.cli.output import durations
from perdure.engine.views import Policy

NONE = "none"
"""The word that removes."""


class Keep(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept: one of the two."""

    seconds: float | None = None
    """Commits that are not older."""
    commits: int | None = None
    """So many of the newest."""


class PolicyRow(msgspec.Struct, frozen=True):
    """What is to become of a session by itself, or of those that begin with a prefix. Durations in seconds; null: it is not to happen."""

    session: str | None
    """Its id; null for a prefix."""
    for_prefix: str | None
    """The prefix that was asked for; null for a session."""
    version: int | None
    """The version of the commit that set it now; null where nothing was changed."""
    expire_after: float | None
    """After how long without a data commit it is deleted."""
    grace: float | None
    """After how long it is purged then; null: 7 days."""
    archive_after: float | None
    """After how long without a data commit it goes to the archive."""
    wake_at: str | None
    """When it is woken next, RFC 3339 in UTC."""
    wake_every: float | None
    """How long after that again."""
    wake: str
    """Who wakes it: sweep or claim."""
    keep: Keep | None
    """What it keeps; null: all commits."""
    drop: bool
    """Whether what is not kept is removed; else it goes to the archive."""
    prefix: str | None
    """The prefix whose policy it has; null: it was set for this session."""


def configure(
    session: str | None = None,
    /,
    *,
    prefix: str | None = None,
    expire_after: str | None = None,
    grace: str | None = None,
    archive_after: str | None = None,
    wake_at: str | None = None,
    wake_every: str | None = None,
    wake: Literal["sweep", "claim"] | None = None,
    keep: str | None = None,
    drop: bool | None = None,
    actor: str | None = None,
    common: Common = COMMON,
) -> None:
    """Show what is to become of a session by itself, or change it: `perdure configure trip-42 --expire-after 30d`.

    `perdure sweep` does it. A duration is 30d, 12h, 1h30m or seconds; none takes a setting away. Tags: see `perdure tag`.

    Parameters
    ----------
    session
        Its id.
    prefix
        In place of a session: what sessions begin with whose ids begin so.
    expire_after
        Delete it so long after its last data commit.
    grace
        Purge it so long after that; 7 days where nothing else is said.
    archive_after
        Move it to the archive so long after its last data commit: see --archive.
    wake_at
        Wake it at this time, such as 2026-11-23T14:02:10Z.
    wake_every
        Wake it again and again, so long after the time before.
    wake
        sweep: the sweeper wakes it; claim: a worker that claims it.
    keep
        Keep commits that are not older than a duration (30d), or so many of the newest (100).
    drop
        What is not kept is removed for good; without it, it goes to the archive: see --archive.
    actor
        Who did it.
    """
    terminal = common.terminal()
    if (session is None) == (prefix is None):
        raise UsageError("Name a session, or a --prefix.")
    asked: dict[str, tuple[Any, Any]] = {
        "expire_after": (expire_after, _duration("--expire-after", expire_after)),
        "grace": (grace, _duration("--grace", grace)),
        "archive_after": (archive_after, _duration("--archive-after", archive_after)),
        "wake_at": (wake_at, None if wake_at == NONE else parse_time(wake_at)),
        "wake_every": (wake_every, _duration("--wake-every", wake_every)),
        "wake": (wake, wake),
        "keep": (keep, _keep(keep)),
        "drop": (drop, drop),
    }
    changes = {name: value for name, (given, value) in asked.items() if given is not None}
    with common.open() as store:
        version = store.configure(session, prefix=prefix, actor=actor, **changes).version if changes else None
        policy = store.policy(session, prefix=prefix)
    row = msgspec.convert({"session": session, "for_prefix": prefix, "version": version, **policy.to_dict()}, PolicyRow)
    if terminal.json:
        terminal.object(row)
        return
    lines = list(describe(policy))
    if lines:
        terminal.print("\n".join(lines))
    else:
        what = f"Session {session}" if session is not None else f"Sessions that begin with {prefix!r}"
        terminal.note(f"{what}: nothing is to happen by itself.")


def _duration(option: str, text: str | None) -> timedelta | None:
    if text is None or text == NONE:
        return None
    found = durations.parse(text)
    if found is None:
        raise UsageError(f"{option} takes a duration such as 30d, 12h or 1h30m, or none, not {text!r}.")
    return found


def _keep(text: str | None) -> timedelta | int | None:
    if text is not None and text.isascii() and text.isdecimal():
        return int(text[:20])
    return _duration("--keep", text)


def describe(policy: Policy) -> list[str]:
    """The policy in sentences, for people."""
    lines = []
    if policy.expire_after is not None:
        grace = "7d" if policy.grace is None else durations.show(policy.grace)
        lines.append(f"expires {durations.show(policy.expire_after)} after its last data commit, and is purged {grace} later")
    if policy.archive_after is not None:
        lines.append(f"goes to the archive {durations.show(policy.archive_after)} after its last data commit")
    if policy.wake_at is not None or policy.wake_every is not None:
        at = "" if policy.wake_at is None else f" at {policy.wake_at:%Y-%m-%d %H:%M:%S}Z"
        every = "" if policy.wake_every is None else f" every {durations.show(policy.wake_every)},"
        next_ = f"{every} next{at}" if every and at else every.rstrip(",") or at
        lines.append(f"is woken{next_}" + (" by a worker that claims it" if policy.wake == "claim" else ""))
    if policy.keep is not None:
        kept = (
            f"its newest {policy.keep} commits"
            if isinstance(policy.keep, int)
            else f"the commits of the last {durations.show(policy.keep)}"
        )
        lines.append(f"keeps {kept}; older ones " + ("are removed" if policy.drop else "go to the archive"))
    if lines and policy.prefix is not None:
        lines.append(f"by the policy of the prefix {policy.prefix!r}")
    return lines
