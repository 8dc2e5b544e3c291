"""`perdure watch`: a session's commits as they come."""

from __future__ import annotations

import sys

from rich.text import Text

from perdure.cli.commands.log import what
from perdure.cli.common import COMMON, Common, counts
from perdure.cli.output.rows import CommitRow
from perdure.cli.output.terminal import Terminal
from perdure.cli.output.text import clean

LAST = 10
"""Commits shown at first, for those who do not say from where on."""


def watch(
    session: str,
    /,
    *,
    after: int | None = None,
    types: str | None = None,
    limit: int | None = None,
    control: bool = False,
    common: Common = COMMON,
) -> None:
    """Show a session's newest commits, then those to come, until it is deleted or you press Ctrl-C.

    Parameters
    ----------
    session
        Its id.
    after
        From the first version greater than this; 0 for all. Without it, the newest 10.
    types
        Event types, separated by commas: only commits that have one of them, and only those events.
    limit
        End after so many commits.
    control
        Also the commits of leases: who took, challenged and released them.
    """
    terminal = common.terminal()
    counts(limit=limit, after=after)
    names = None if types is None else {name.strip() for name in types.split(",")}
    with common.open() as store:
        if after is None:
            newest = next(iter(store.history(session, newest_first=True, limit=1)), None)
            after = 0 if newest is None else max(newest.version - LAST, 0)
        left = limit
        if left == 0:
            return
        for commit in store.watch(session, after=after, types=names, control=control):
            row = CommitRow.of(commit)
            if terminal.json:
                terminal.object(row)
            else:
                terminal.print(_line(terminal, row))
            sys.stdout.flush()
            left = None if left is None else left - 1
            if left == 0:
                return
        terminal.note(f"Session {session} was deleted.")


def _line(terminal: Terminal, row: CommitRow) -> Text:
    """One commit on one line."""
    head = Text.assemble((f"{row.version:>6}", "cyan"), f"  {terminal.when(row.at)}  {clean(row.actor or '-')}  ")
    return head + Text("  ").join(what(row).split("\n"))
