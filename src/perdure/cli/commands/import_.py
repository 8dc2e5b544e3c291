"""`perdure import`: threads and sessions that a framework stored elsewhere, brought over and compared."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from perdure.adapters.common.migration_sources import ImportResult, Source, open_source
from perdure.adapters.common.sync_async import wait
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import OK, status_of
from perdure.cli.output.terminal import Column
from perdure.engine.store import Store
from perdure.errors import Error


class ImportRow(msgspec.Struct, frozen=True):
    """What became of one thread or session."""

    source: str
    """Its id in the source."""
    ok: bool
    """Whether it is here whole, and what is read back equals what the source says."""
    session: str | None
    """The session's id here; null if it could not be brought over."""
    written: int | None
    """How many items (checkpoints, messages, events) were written now."""
    skipped: int | None
    """How many were here already."""
    code: str | None = None
    """What went wrong: the error's code."""
    problem: str | None = None
    """What went wrong, in words."""


COLUMNS: tuple[Column[ImportRow], ...] = (
    Column("", lambda row: "ok" if row.ok else "BAD"),
    Column("source", lambda row: row.source, share="wrap"),
    Column("session", lambda row: row.session or "", style="cyan", share="wrap"),
    Column("written", lambda row: "" if row.written is None else row.written, justify="right"),
    Column("skipped", lambda row: "" if row.skipped is None else row.skipped, justify="right"),
    Column("problem", lambda row: row.problem or "", share="wrap", spare=True),
)


def import_(
    framework: str, source: str, /, *, only: Annotated[list[str] | None, Parameter(negative=())] = None, common: Common = COMMON
) -> int:
    """Bring over what a framework stored in a database of its own, and compare what is read back. The source is only read.

    It can be stopped and run again: what is here already is skipped. Starts the store if there is none.

    Parameters
    ----------
    framework
        Whose database it is, such as langgraph.
    source
        Its path, or its URL.
    only
        The ids to bring over, as the source names them; without it all.
    """
    terminal = common.terminal()
    worst, rows = OK, []
    opened = open_source(framework, source)
    try:
        with common.open_or_make() as store:
            ids = only or wait(opened.ids())
            with terminal.progress("importing", len(ids)) as advance:
                for id in ids:
                    row = _bring(opened, id, store.asynchronous)
                    advance(1)
                    if not row.ok:
                        worst = max(worst, status_of(row.code or ""))
                    if terminal.json:
                        terminal.object(row)
                    elif not terminal.quiet or not row.ok:
                        rows.append(row)
    finally:
        wait(opened.close())
    if not terminal.json:
        terminal.rows(rows, *COLUMNS)
    terminal.note(f"{len(ids)} brought over and compared." if worst == OK else "Not everything could be brought over.")
    return worst


def _bring(source: Source, id: str, store: Store) -> ImportRow:
    try:
        done: ImportResult = wait(source.copy_session(id, store))
    except Error as error:
        return ImportRow(id, False, None, None, None, error.code, str(error))
    return ImportRow(id, True, done.session, done.written, done.skipped)
