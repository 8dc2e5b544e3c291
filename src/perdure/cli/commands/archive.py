"""`perdure archive` and `perdure restore`: sessions go to the archive, and come back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import msgspec

from perdure.cli.common import COMMON, Common, counts
from perdure.cli.exits import OK, UsageError, status_of
from perdure.cli.output.terminal import Column, Terminal
from perdure.errors import Error, Invalid

R = TypeVar("R", bound=msgspec.Struct)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class ArchivedRow(msgspec.Struct, frozen=True):
    """What became of a session."""

    session: str
    """Its id."""
    ok: bool
    """Whether it was done."""
    version: int | None = None
    """The version of its newest commit; null if it was not done."""
    commits: int | None = None
    """How many commits left the engine; null if it was not done."""
    segment_bytes: int | None = None
    """How many bytes they take in the archive: 0 where none went there, null if it was not done."""
    code: str | None = None
    """What is wrong: the error's code."""
    problem: str | None = None
    """What is wrong, in words."""


class RestoredRow(msgspec.Struct, frozen=True):
    """What became of a session."""

    session: str
    """Its id."""
    ok: bool
    """Whether it is live now."""
    restored: bool = False
    """Whether it was archived before."""
    code: str | None = None
    """What is wrong: the error's code."""
    problem: str | None = None
    """What is wrong, in words."""


_ARCHIVED: tuple[Column[ArchivedRow], ...] = (
    Column("", lambda row: "ok" if row.ok else "BAD"),
    Column("session", lambda row: row.session, style="cyan", share="wrap"),
    Column("version", lambda row: "" if row.version is None else row.version, justify="right"),
    Column("commits moved", lambda row: "" if row.commits is None else row.commits, justify="right"),
    Column("bytes", lambda row: row.segment_bytes or "", justify="right"),
    Column("what is wrong", lambda row: row.problem or "", share="wrap", spare=True),
)
_RESTORED: tuple[Column[RestoredRow], ...] = (
    Column("", lambda row: "ok" if row.ok else "BAD"),
    Column("session", lambda row: row.session, style="cyan", share="wrap"),
    Column("", lambda row: row.problem or ("restored" if row.restored else "was not archived"), share="wrap"),
)


def archive(
    *sessions: str,
    prefix: str | None = None,
    keep: str | None = None,
    drop: bool = False,
    actor: str | None = None,
    common: Common = COMMON,
) -> int:
    """Move sessions to the archive: their reads go through to it, and the first write brings a session back.

    The archive is a folder or a bucket, named by --archive or PERDURE_ARCHIVE.

    Parameters
    ----------
    sessions
        Their ids.
    prefix
        Every session whose id begins so.
    keep
        Leave the newest commits in the store: so many, or those of the last hours, days or weeks (12h, 30d, 8w).
    drop
        With --keep: older commits go for good, not to the archive.
    actor
        Who did it.
    """
    if (prefix is None) == (not sessions):
        raise UsageError("Name the sessions, or give a --prefix; '' is all of them.")
    if drop and keep is None:
        raise UsageError("--drop needs --keep, which says what stays.")
    kept = None if keep is None else parse_keep(keep)
    terminal = common.terminal()
    with common.open_archive(write=not drop) as store:

        def work(name: str) -> ArchivedRow:
            done = store.archive(name, actor=actor) if kept is None else store.compact(name, keep=kept, drop=drop, actor=actor)
            return ArchivedRow(name, True, done.version, done.commits, done.segment_bytes)

        names = list(sessions) if prefix is None else [info.session for info in store.list(prefix=prefix)]
        rows = list(_each(terminal, "archiving", names, work, lambda name, code, why: ArchivedRow(name, False, code=code, problem=why)))
    if not terminal.json:
        terminal.rows([row for row in rows if not (terminal.quiet and row.ok)], *_ARCHIVED)
    return max((status_of(row.code or "") for row in rows if not row.ok), default=OK)


def restore(*sessions: str, actor: str | None = None, common: Common = COMMON) -> int:
    """Make archived sessions live again, as their first write does. Their older commits stay in the archive.

    Parameters
    ----------
    sessions
        Their ids.
    actor
        Who did it.
    """
    if not sessions:
        raise UsageError("Name the sessions; `perdure ls --status archived` shows them.")
    terminal = common.terminal()
    with common.open() as store:

        def work(name: str) -> RestoredRow:
            return RestoredRow(name, True, store.restore(name, actor=actor))

        rows = list(_each(terminal, "restoring", sessions, work, lambda name, code, why: RestoredRow(name, False, code=code, problem=why)))
    if not terminal.json:
        terminal.rows([row for row in rows if not (terminal.quiet and row.ok)], *_RESTORED)
    return max((status_of(row.code or "") for row in rows if not row.ok), default=OK)


def _each(
    terminal: Terminal, title: str, names: Sequence[str], work: Callable[[str], R], failed: Callable[[str, str, str], R]
) -> Iterator[R]:
    """What became of each session, one after the other. As JSON each is printed when it is done."""
    with terminal.progress(title, len(names)) as advance:
        for name in names:
            try:
                row = work(name)
            except Error as error:
                row = failed(name, error.code, str(error))
            advance(1)
            if terminal.json:
                terminal.object(row)
            yield row


def parse_keep(text: str) -> int | timedelta:
    """A number of commits, or a time such as 30d. Raises `Invalid`."""
    found = re.fullmatch(r"(\d{1,9})([hdw]?)", text, re.ASCII)
    if found is None:
        raise Invalid(f"--keep takes a number of commits, or hours, days or weeks such as 12h, 30d or 8w: not {text!r}.")
    number, unit = int(found[1]), found[2]
    counts(keep=number)
    return number * _UNITS[unit] if unit else number
