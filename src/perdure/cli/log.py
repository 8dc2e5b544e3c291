"""`perdure log`: a session's commits, newest first."""

from __future__ import annotations

from rich.text import Text

from perdure.cli.common import COMMON, Common, short_time
from perdure.cli.rows import CommitRow, preview
from perdure.cli.terminal import Column, clean

LIMIT = 20
"""Commits shown to people who do not say how many."""


def _events(row: CommitRow) -> str:
    return " ".join(dict.fromkeys(event.type for event in row.events))


def _preview(row: CommitRow) -> Text:
    return Text("\n".join(preview(event) for event in row.events[:3]) + ("\n…" if len(row.events) > 3 else ""))


def _key(row: CommitRow) -> str:
    return row.key or ""


def log(
    session: str,
    /,
    *,
    limit: int | None = None,
    types: str | None = None,
    after: int = 0,
    before: int | None = None,
    oldest_first: bool = False,
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
    """
    terminal = common.terminal()
    cut = limit is None and not terminal.json
    names = None if types is None else {name.strip() for name in types.split(",")}
    with common.open() as store:
        found = store.history(
            session, after=after, before=before, types=names, newest_first=not oldest_first, limit=LIMIT + 1 if cut else limit
        )
        rows = [CommitRow.of(commit) for commit in found] if cut else map(CommitRow.of, found)
        shown = rows[:LIMIT] if isinstance(rows, list) else rows
        count = terminal.rows(
            shown,
            Column("version", lambda row: row.version, style="cyan", justify="right"),
            Column("time (UTC)", lambda row: short_time(row.at)),
            Column("actor", lambda row: row.actor or ""),
            *([Column("key", _key)] if isinstance(shown, list) and any(map(_key, shown)) else []),
            Column("events", lambda row: clean(_events(row)), style="green"),
            Column("what", _preview),
        )
    if not count:
        terminal.note("There are no such commits.")
    elif isinstance(rows, list) and len(rows) > LIMIT:
        more = f"--after {rows[LIMIT - 1].version}" if oldest_first else f"--before {rows[LIMIT - 1].version}"
        terminal.note(f"There are more: {more}, or --limit.")
