"""`perdure diff`: what changed between two versions of a session."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.text import Text

import perdure.sync
from perdure.cli.common import COMMON, Common, counts
from perdure.cli.output.rows import OpRow
from perdure.cli.output.shapes import change
from perdure.cli.output.terminal import Column
from perdure.cli.output.text import one_line
from perdure.errors import Invalid
from perdure.model.diff import diff as difference

STYLES = {"remove": "red", "set": "yellow", "splice": "yellow", "append": "green"}


class DiffRow(msgspec.Struct, frozen=True):
    """An operation on the way from one version to another."""

    op: str
    """Its kind; without --commits: set, remove, append or splice."""
    path: str
    """JSON Pointer of what it changes, in the state that the rows before it made."""
    value: Any
    """What the kind needs; null for remove."""
    version: int | None = None
    """With --commits: the commit that it is in."""
    actor: str | None = None
    """With --commits: who did it."""


def _line(row: DiffRow) -> Text:
    return Text(one_line(change(OpRow(row.op, row.path, row.value)), 400), style=STYLES.get(row.op, "yellow"))


VERSION: Column[DiffRow] = Column("version", lambda row: row.version, style="cyan", justify="right")
ACTOR: Column[DiffRow] = Column("actor", lambda row: row.actor or "")
WHAT: Column[DiffRow] = Column("", _line, share="wrap")


def diff(
    session: str,
    first: Annotated[int, Parameter(allow_leading_hyphen=True)],
    second: Annotated[int | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    commits: bool = False,
    common: Common = COMMON,
) -> None:
    """Show the operations that lead from one version's state to another's.

    Parameters
    ----------
    session
        Its id.
    first
        The version to start from; 0 is the empty state.
    second
        The version to end at, earlier or later; without it, the newest.
    commits
        The operations as they were committed, with version and actor, in place of the shortest way between the two states.
    """
    terminal = common.terminal()
    counts(FIRST=first, SECOND=second)
    with common.open() as store:
        newest = store.read(session)
        last = newest.version if second is None else second
        rows = _committed(store, session, first, last) if commits else _between(store, session, first, last)
        columns = (VERSION, ACTOR, WHAT) if commits else (WHAT,)
        if not terminal.rows(rows, *columns):
            terminal.note(f"Versions {first} and {last} have the same state.")


def _between(store: perdure.sync.Store, session: str, first: int, last: int) -> list[DiffRow]:
    old, new = ({} if version == 0 else store.read(session, at=version).state for version in (first, last))
    return [DiffRow(op.kind, op.path, op.value) for op in difference(old, new)]


def _committed(store: perdure.sync.Store, session: str, first: int, last: int) -> list[DiffRow]:
    if last < first:
        raise Invalid(f"--commits goes forward: from {last} to {first}, not from {first} to {last}.")
    if last:
        store.read(session, at=last)  # a version that is not there yet is an error, not an empty answer
    return [
        DiffRow(op.kind, op.path, op.value, commit.version, commit.actor)
        for commit in store.history(session, after=first, before=last + 1)
        for event in commit.events
        for op in event.ops
    ]
