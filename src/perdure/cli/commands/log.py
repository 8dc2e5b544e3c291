"""`perdure log`: a session's commits, newest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.padding import Padding
from rich.text import Text

from perdure.cli.common import COMMON, Common, counts
from perdure.cli.output.describe import describe
from perdure.cli.output.rows import CommitRow
from perdure.cli.output.shapes import Line, change
from perdure.cli.output.speech import compact
from perdure.cli.output.terminal import WIDE, Column, Terminal
from perdure.cli.output.text import clean, one_line
from perdure.errors import Truncated
from perdure.model.commit import Commit

LIMIT = 20
"""Commits shown to people who do not say how many."""
LINES = 3
"""Lines of a commit that a table shows."""


def log(
    session: str,
    /,
    *,
    limit: int | None = None,
    types: str | None = None,
    after: int = 0,
    before: int | None = None,
    oldest_first: bool = False,
    full: bool = False,
    include_deleted: bool = False,
    control: bool = False,
    common: Common = COMMON,
) -> None:
    """Show a session's commits, newest first.

    Parameters
    ----------
    session
        Its id.
    limit
        At most so many; without it all as JSON, 20 as a table.
    types
        Event types, separated by commas: only commits that have one of them, and only those events.
    after
        Only versions greater than this.
    before
        Only versions less than this.
    oldest_first
        From the first to the last.
    full
        Everything of each commit, uncut: key, trace, hash, each event's data and operations.
    include_deleted
        Also of a deleted session, and of its lives before: for audit.
    control
        Also the commits of leases: who took, challenged and released them.
    """
    terminal = common.terminal()
    counts(limit=limit, after=after, before=before)
    cut = limit is None and not terminal.json
    names = None if types is None else {name.strip() for name in types.split(",")}
    with common.open() as store:
        found = store.history(
            session,
            after=after,
            before=before,
            types=names,
            newest_first=not oldest_first,
            limit=LIMIT + 1 if cut else limit,
            include_deleted=include_deleted,
            control=control,
        )
        if cut and not oldest_first:
            found = _until_truncated(terminal, found)
        rows = [CommitRow.of(commit) for commit in found] if cut else map(CommitRow.of, found)
        shown = rows[:LIMIT] if isinstance(rows, list) else rows
        count = _full(terminal, shown) if full and not terminal.json else _table(terminal, shown)
    if not count:
        terminal.note("There are no such commits.")
    elif isinstance(rows, list) and len(rows) > LIMIT:
        more = f"--after {rows[LIMIT - 1].version}" if oldest_first else f"--before {rows[LIMIT - 1].version}"
        terminal.note(f"There are more: {more}, or --limit.")


def _until_truncated(terminal: Terminal, commits: Iterable[Commit]) -> Iterator[Commit]:
    """The commits that are left; where older ones were dropped, people are shown which is the first that is left."""
    try:
        yield from commits
    except Truncated as error:
        terminal.note(f"Commits before version {error.first} were dropped.")


def _table(terminal: Terminal, rows: Iterable[CommitRow]) -> int:
    return terminal.rows(
        rows,
        Column("version", lambda row: row.version, style="cyan", justify="right"),
        Column("time (UTC)", lambda row: terminal.when(row.at)),
        Column("actor", lambda row: row.actor or "", most=16, spare=True),
        *([Column[CommitRow]("key", lambda row: row.key or "", spare=True)] if terminal.width >= WIDE else []),
        Column("what", what, share="cut"),
    )


def what(row: CommitRow, lines: int = LINES) -> Text:
    """What a commit says, on a few lines."""
    found = describe(row)
    if len(found) == lines + 1:
        lines += 1
    text = Text("\n").join(map(labelled, found[:lines]))
    return text.append(f"\nand {len(found) - lines} more", "dim") if len(found) > lines else text


def labelled(line: Line) -> Text:
    """A line with its label in colour."""
    return Text.assemble((line.label, "green"), f": {line.text}" if line.text else "")


def _full(terminal: Terminal, rows: Iterable[CommitRow]) -> int:
    count = 0
    for row in rows:
        if count:
            terminal.print("")
        count += 1
        head = Text.assemble((f"version {row.version}", "bold cyan"), f"  {row.at}  {row.kind}")
        terminal.print(head)
        facts = {"actor": row.actor, "key": row.key, "trace": row.trace, "id": row.id, "hash": row.hash, "prev": row.prev}
        for name, value in facts.items():
            if value is not None:
                terminal.print(Text.assemble((f"{name:>7} ", "dim"), one_line(value)))
        for event in row.events:
            terminal.print(Text.assemble("  ", (one_line(event.type), "green")))
            if event.data is not None:
                terminal.console.print(Padding(Text(clean(compact(event.data, None))), (0, 0, 0, 4)))
            for op in event.ops:
                terminal.console.print(Padding(Text(clean(change(op, None)), "yellow"), (0, 0, 0, 4)))
    return count
