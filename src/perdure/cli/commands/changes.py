"""`perdure changes`: the commits of all sessions of a tenant."""

from __future__ import annotations

import sys

import msgspec
from rich.text import Text

from perdure.cli.commands.log import what
from perdure.cli.common import COMMON, Common, counts
from perdure.cli.output.rows import CommitRow
from perdure.cli.output.terminal import Terminal
from perdure.cli.output.text import clean
from perdure.engine.views import Change

LIMIT = 100
"""Commits shown to people who do not say how many, and do not follow."""
NAME_SHARE = 4
"""A session's id is cut to the width of the terminal divided by this."""


class ChangeRow(CommitRow, frozen=True, kw_only=True):
    """A commit of some session."""

    session: str
    """The session's id."""
    cursor: str
    """What --after takes to go on after this commit."""

    @classmethod
    def of_change(cls, change: Change) -> ChangeRow:
        return msgspec.convert(change.to_dict(), cls)


def changes(
    *,
    after: str | None = None,
    types: str | None = None,
    prefix: str = "",
    follow: bool = False,
    limit: int | None = None,
    common: Common = COMMON,
) -> None:
    """Show the commits of all sessions, each session's in order, from the start or after a cursor.

    With --json each row has a cursor: pass the last one as --after to go on. Commits may come again, and none is left out.

    Parameters
    ----------
    after
        A cursor, as --json shows it; without it from the start.
    types
        Event types, separated by commas: only commits that have one of them, and only those events.
    prefix
        Only sessions whose ids begin so.
    follow
        Then show those to come, until you press Ctrl-C.
    limit
        End after so many commits; without it all as JSON and with --follow, otherwise 100.
    """
    terminal = common.terminal()
    counts(limit=limit)
    names = None if types is None else {name.strip() for name in types.split(",")}
    most = LIMIT if limit is None and not terminal.json and not follow else limit
    if most == 0:
        return
    count = 0
    with common.open() as store:
        for change in store.changes(after=after, types=names, prefix=prefix, follow=follow):
            if count == most:
                if limit is None:
                    terminal.note("There are more: --limit shows them, and --json the cursors for --after.")
                return
            row = ChangeRow.of_change(change)
            if terminal.json:
                terminal.object(row)
            else:
                terminal.print(_line(terminal, row))
            sys.stdout.flush()
            count += 1
            if follow and count == most:
                return
    if not count:
        terminal.note(f"There are no such commits of tenant {common.tenant!r}.")


def _line(terminal: Terminal, row: ChangeRow) -> Text:
    """One commit on one line, cut to the terminal's width."""
    name = clean(row.session)
    most = max(12, terminal.width // NAME_SHARE)
    shown = name if len(name) <= most else name[: most - 1] + "…"
    line = Text.assemble(terminal.when(row.at), "  ", (shown, "cyan"), f"  {row.version}  {clean(row.actor or '-')}  ")
    line.append_text(Text("  ").join(what(row).split("\n")))
    line.truncate(terminal.width, overflow="ellipsis")
    return line
