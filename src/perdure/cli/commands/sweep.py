"""`perdure sweep`: what the policies of sessions ask for is done, again and again or once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from perdure.cli.common import COMMON, Common
from perdure.cli.exits import OK, OTHER, UsageError
from perdure.cli.output.terminal import Terminal
from perdure.ops.sweeper import EVERY, sweep_blocking
from perdure.ops.swept import Action, Swept

QUIET = ("looked", "waiting", "overtaken")
"""Actions that people are not shown: nothing became of the session."""
TOTALS = ("expired", "purged", "woken", "trimmed", "archived", "applied", "held", "forked", "unread", "waiting", "failed")
"""What a round is summed up by."""


class ActionRow(msgspec.Struct, frozen=True):
    """What was done, or with --dry-run would be done, to one session."""

    tenant: str
    """Whose it is."""
    session: str
    """Its id."""
    action: str
    """looked, expired, purged, woken, trimmed, archived, applied, held, forked, unread, waiting, overtaken or failed."""
    detail: str
    """More about it, for people."""


class SweptRow(msgspec.Struct, frozen=True):
    """The end of a single round."""

    swept: Swept
    """How many sessions were due, and how many of them each action was done to."""


def sweep(
    url: str | None = None,
    /,
    *,
    every: float = EVERY,
    once: bool = False,
    dry_run: bool = False,
    existing: bool = False,
    common: Common = COMMON,
) -> int:
    """Do what the policies of sessions ask for, in all tenants: expire, archive, wake, drop old commits. Any number may run at once.

    It runs until Ctrl-C or SIGTERM. It goes by this machine's clock, so keep that right. `perdure due` shows what is to come.

    Through a service its nodes do it, for one tenant and by their clock.

    Parameters
    ----------
    url
        The store's URL, as with --url.
    every
        Seconds between two rounds.
    once
        One round, then stop. The exit code is 1 if something failed.
    dry_run
        One round in which nothing is changed, with all that would be done.
    existing
        First give each prefix policy to the sessions that were there before it, but for those with a policy of their own.
    """
    terminal = common.terminal()
    if url is not None:
        if common.url is not None:
            raise UsageError("Name the store once: as the argument, or with --url.")
        common = replace(common, url=url)
    one = once or dry_run
    with common.open() as store, terminal.progress("Sweeping", None) as advance:
        swept = sweep_blocking(store, every=every, once=once, dry_run=dry_run, existing=existing, notify=_printer(terminal, advance))
    if terminal.json:
        terminal.object(SweptRow(swept))
    elif one and not terminal.quiet:
        parts = [f"{count} {name}" for name in TOTALS if (count := getattr(swept, name))]
        said = f"{swept.due} sessions were due" + (f": {', '.join(parts)}" if parts else "")
        terminal.print(said + (". Nothing was changed." if dry_run else "."))
    return OTHER if swept.failed else OK


def _printer(terminal: Terminal, advance: Callable[[float], None]) -> Callable[[Action], None]:
    """Print each action as it is done: all of them as JSON, those that something became of for people."""

    def show(action: Action) -> None:
        advance(1)
        row = ActionRow(action.tenant, action.session, action.action, action.detail)
        if terminal.json:
            terminal.object(row)
        elif action.action not in QUIET and not terminal.quiet:
            terminal.print(
                f"{row.action} {row.tenant} {row.session}: {row.detail}" if row.detail else f"{row.action} {row.tenant} {row.session}"
            )

    return show
