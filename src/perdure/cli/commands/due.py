"""`perdure due`: which sessions somebody has to look at, when and why."""

from __future__ import annotations

from datetime import datetime

import msgspec

from perdure.cli.common import COMMON, Common, counts, parse_time
from perdure.cli.output.terminal import NARROW, Column
from perdure.concurrency.replies import run_blocking
from perdure.engine.store import Store
from perdure.ops.due import DueSession
from perdure.ops.due import due as due_sessions

LIMIT = 100
"""Sessions shown to people who do not say how many."""


class DueRow(msgspec.Struct, frozen=True):
    """A session that is due."""

    tenant: str
    """Whose it is."""
    session: str
    """Its id."""
    due_at: str | None
    """When a sweeper looks at it, RFC 3339 in UTC; null: in its next round, for the first time."""
    why: str
    """look, expire, wake, claim, keep, purge or apply."""
    at: str | None
    """When that is to happen, as far as is known: a commit moves it."""


def due(
    prefix: str = "",
    /,
    *,
    before: str | None = None,
    deleted: bool = False,
    all_tenants: bool = False,
    limit: int | None = None,
    common: Common = COMMON,
) -> None:
    """List the sessions that `perdure sweep` has to look at, the earliest first. Changes nothing.

    Parameters
    ----------
    prefix
        Only ids that begin so.
    before
        Only those that are due before this time, such as 2026-11-23T14:02:10Z.
    deleted
        The expired ones that wait for their purge, in place of the live ones.
    all_tenants
        Those of every tenant, and Perdure's own.
    limit
        At most so many; without it all as JSON, 100 as a table.
    """
    terminal = common.terminal()
    counts(limit=limit)
    most = LIMIT if limit is None and not terminal.json else limit
    with common.open() as store:
        moment = parse_time(before)
        found = run_blocking(_first(store.asynchronous, prefix, moment, most, deleted=deleted, all_tenants=all_tenants))
    shown = found if most is None else found[:most]
    narrow = terminal.width < NARROW
    terminal.rows(
        [msgspec.convert(session.to_dict(), DueRow) for session in shown],
        Column("tenant", lambda row: row.tenant if all_tenants else "", spare=True),
        Column("session", lambda row: row.session, style="cyan", share="wrap"),
        Column("why", lambda row: row.why),
        Column("due (UTC)", lambda row: "next round" if row.due_at is None else terminal.when(row.due_at)),
        Column("happens (UTC)", lambda row: "" if row.at is None or narrow else terminal.when(row.at), spare=True),
    )
    if not shown:
        terminal.note("No session is due." if before is None else "No session is due by then.")
    elif most is not None and len(found) > most and limit is None:
        terminal.note(f"The first {most}; --limit shows more.")


async def _first(
    store: Store, prefix: str, before: datetime | None, most: int | None, *, deleted: bool, all_tenants: bool
) -> list[DueSession]:
    limit = None if most is None else most + 1
    sessions = due_sessions(store, prefix=prefix, before=before, every_tenant=all_tenants, deleted=deleted, limit=limit)
    return [session async for session in sessions]
