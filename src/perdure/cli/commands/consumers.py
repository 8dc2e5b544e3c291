"""`perdure consumers`: how far consumers are, and what becomes of what they have parked."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from perdure import ops
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import UsageError
from perdure.cli.output.terminal import NARROW, Column, Terminal
from perdure.cli.output.text import one_line
from perdure.ops.control import WAITING_MAX


class ParkedRow(msgspec.Struct, frozen=True):
    """What a consumer has parked of a session."""

    session: str
    """The session's id."""
    first: int
    """The version of the commit that the handler failed on."""
    last: int
    """The version of the newest commit that waits after it."""
    error: str
    """What the handler raised last."""
    since: str
    """When it was parked, RFC 3339 in UTC."""
    retry: bool
    """Whether the consumer was asked to try again."""


class ConsumerRow(msgspec.Struct, frozen=True):
    """A consumer."""

    name: str
    """Its name."""
    code: str
    """The name of what it does."""
    handled: int
    """How many commits it has handled."""
    session: str | None
    """The session of the newest commit that it has handled."""
    version: int | None
    """That commit's version."""
    at: str | None
    """That commit's time, RFC 3339 in UTC."""
    waiting: int | None
    """Its lag: how many commits wait for it, 1000 at most; null where that cannot be read."""
    waiting_since: str | None
    """The time of the first commit that waits, RFC 3339 in UTC."""
    cursor: str | None
    """What --after of `perdure changes` takes to go on where it is; null: at the start."""
    parked: list[ParkedRow]
    """What it has parked."""
    updated_at: str
    """When its checkpoint was written last, RFC 3339 in UTC."""
    problem: str | None
    """Why what waits cannot be read."""

    @classmethod
    def of(cls, info: ops.ConsumerInfo) -> ConsumerRow:
        return msgspec.convert(info.to_dict(), cls)


class ActionRow(msgspec.Struct, frozen=True):
    """What was done."""

    name: str
    """The consumer."""
    action: str
    """retry, drop or forget."""
    sessions: int
    """Of how many sessions that something was parked of."""


Name = Annotated[str | None, Parameter(show_default=False)]


def consumers(
    name: str | None = None,
    /,
    *,
    retry: Name = None,
    drop: Name = None,
    forget: Name = None,
    session: Name = None,
    common: Common = COMMON,
) -> None:
    """List consumers: how far they are, how many commits wait, what is parked. With a name, what is parked of each session.

    Parameters
    ----------
    name
        Only this consumer, and all that it has parked.
    retry
        The name of a consumer that is to try again what it has parked. It does so within seconds, or when it starts.
    drop
        The name of a consumer that gives up what it has parked. Those commits are never handled.
    forget
        The name of a consumer that is removed with its checkpoint. A new one of this name begins at the start.
    session
        With --retry and --drop: only what is parked of this session.
    """
    actions = {word: value for word, value in (("retry", retry), ("drop", drop), ("forget", forget)) if value is not None}
    if len(actions) + (name is not None) > 1:
        raise UsageError("Name one consumer, and say one of --retry, --drop and --forget.")
    if session is not None and not actions.keys() & {"retry", "drop"}:
        raise UsageError("--session goes with --retry or --drop.")
    terminal = common.terminal()
    with common.open() as store:
        for action, consumer in actions.items():
            if action == "forget":
                ops.forget(store, consumer)
                count = 0
            else:
                count = (ops.retry if action == "retry" else ops.drop)(store, consumer, session)
            _say(terminal, ActionRow(consumer, action, count))
            return
        rows = [ConsumerRow.of(info) for info in ops.consumers(store, name)]
    _list(terminal, rows)
    if not rows:
        terminal.note(f"Tenant {common.tenant!r} has no consumers.")
    for row in rows:
        if row.problem is not None:
            terminal.note(f"{row.name}: {row.problem}")
    if name is not None and not terminal.json:
        _list_parked(terminal, rows[0])


def _say(terminal: Terminal, row: ActionRow) -> None:
    if terminal.json:
        terminal.object(row)
    elif not terminal.quiet:
        sessions = f"{row.sessions} session{'' if row.sessions == 1 else 's'}"
        done = {"retry": f"will try {sessions} again", "drop": f"gave up what was parked of {sessions}", "forget": "was forgotten"}
        terminal.print(f"{row.name} {done[row.action]}")


def _list(terminal: Terminal, rows: list[ConsumerRow]) -> None:
    narrow = terminal.width < NARROW
    terminal.rows(
        rows,
        Column("name", lambda row: row.name, style="cyan", share="wrap"),
        Column("handled", lambda row: row.handled, justify="right"),
        Column("waiting", _waiting, justify="right"),
        Column("parked", lambda row: len(row.parked) or "", justify="right", spare=narrow),
        *([] if narrow else [Column[ConsumerRow]("last handled (UTC)", lambda row: terminal.when(row.at) if row.at else "")]),
        Column("position", lambda row: "" if row.session is None else f"{row.session} {row.version}", share="cut", spare=narrow),
    )


def _waiting(row: ConsumerRow) -> str:
    if row.waiting is None:
        return "?"
    return f"{WAITING_MAX}+" if row.waiting >= WAITING_MAX else str(row.waiting)


def _list_parked(terminal: Terminal, row: ConsumerRow) -> None:
    if row.parked:
        terminal.print("")
    terminal.rows(
        row.parked,
        Column("parked", lambda one: one.session, style="cyan", share="wrap"),
        Column("versions", lambda one: str(one.first) if one.first == one.last else f"{one.first}-{one.last}", justify="right"),
        Column("since (UTC)", lambda one: terminal.when(one.since)),
        Column("retry", lambda one: "asked" if one.retry else "", spare=True),
        Column("error", lambda one: one_line(one.error), share="cut"),
    )
