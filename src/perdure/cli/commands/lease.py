"""`perdure leases` and `perdure lease`: who works on which session, and taking it from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from perdure.cli.common import COMMON, Common
from perdure.cli.output.terminal import Column, Terminal
from perdure.engine.views import LeaseInfo
from perdure.errors import NotFound


class LeaseRow(msgspec.Struct, frozen=True):
    """A session that somebody holds."""

    session: str
    """Its id."""
    owner: str | None
    """Who holds it; null where the index row does not say it."""
    token: int
    """The fencing token."""
    since: str | None
    """When it was taken, by the holder's clock, RFC 3339 in UTC."""
    ttl: float | None
    """Seconds for which its holder may be silent before one that waits takes over."""
    exclusive: bool
    """Whether only the holder may write."""
    challenged: bool
    """Whether somebody waits for it, and the holder has not answered yet."""

    @classmethod
    def of(cls, info: LeaseInfo) -> LeaseRow:
        return cls(**info.to_dict())


def leases(prefix: str = "", /, *, common: Common = COMMON) -> None:
    """List the sessions that somebody holds, and who does. Reads the index rows of all sessions with this prefix.

    Parameters
    ----------
    prefix
        Only ids that begin so.
    """
    terminal = common.terminal()
    with common.open() as store:
        if not _table(terminal, map(LeaseRow.of, store.leases(prefix=prefix))):
            terminal.note("Nobody holds a session.")


def lease(action: Literal["show", "break"], session: str, /, *, actor: str | None = None, common: Common = COMMON) -> None:
    """Show who holds a session, or take it from them by force.

    `break` is for a holder that is known to be dead, or must be stopped: what it still writes is refused.

    A commit records it. To wait for a holder use `store.lease(…, wait=)`, which takes over from one that is silent.

    Parameters
    ----------
    action
        show or break.
    session
        Its id.
    actor
        Who breaks it, for the audit.
    """
    terminal = common.terminal()
    with common.open() as store:
        if action == "break":
            found = store.break_lease(session, actor=actor)
        else:
            store.read(session)
            found = next((info for info in store.leases(prefix=session) if info.session == session), None)
    if found is None:
        raise NotFound(f"Nobody holds session {session!r}.", advice="")
    row = LeaseRow.of(found)
    if terminal.json:
        terminal.object(row)
    elif action == "break":
        if not terminal.quiet:
            terminal.print(f"{session} was taken from {row.owner or 'its holder'}, whose token {row.token} is worth nothing now")
    else:
        _table(terminal, [row])


def _table(terminal: Terminal, rows: Iterable[LeaseRow]) -> int:
    return terminal.rows(
        rows,
        Column("session", lambda row: row.session, style="cyan"),
        Column("owner", lambda row: row.owner or "", share="cut"),
        Column("token", lambda row: row.token, justify="right"),
        Column("since (UTC)", lambda row: "" if row.since is None else terminal.when(row.since)),
        Column("ttl", lambda row: "" if row.ttl is None else f"{row.ttl:g} s", justify="right"),
        Column("", lambda row: ", ".join(["exclusive"] * row.exclusive + ["challenged"] * row.challenged), spare=True),
    )
