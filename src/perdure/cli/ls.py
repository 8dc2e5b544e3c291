"""`perdure ls`: the sessions of a store."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from perdure.cli.common import COMMON, Common, moment, parse_pairs, parse_time, short_time
from perdure.cli.terminal import Column
from perdure.engine.views import Info

LIMIT = 100
"""Sessions shown to people who do not say how many."""


class SessionRow(msgspec.Struct, frozen=True):
    """A session."""

    session: str
    """Its id."""
    version: int
    """The version of its newest commit."""
    status: str
    """active, idle, archived, deleted or moved."""
    tags: dict[str, str]
    """Its tags."""
    created_at: str
    """Its first commit, RFC 3339 in UTC."""
    updated_at: str
    """Its newest commit, RFC 3339 in UTC."""

    @classmethod
    def of(cls, info: Info) -> SessionRow:
        return cls(info.session, info.version, info.status.name, dict(info.tags), moment(info.created_at), moment(info.updated_at))


COLUMNS: tuple[Column[SessionRow], ...] = (
    Column("session", lambda row: row.session, style="cyan", wrap=True),
    Column("version", lambda row: row.version, justify="right"),
    Column("status", lambda row: row.status),
    Column("updated (UTC)", lambda row: short_time(row.updated_at)),
    Column("tags", lambda row: " ".join(f"{name}={value}" for name, value in row.tags.items()), wrap=True),
)


def ls(
    prefix: str = "",
    /,
    *,
    tag: Annotated[list[str] | None, Parameter(negative=())] = None,
    status: str | None = None,
    updated_after: str | None = None,
    updated_before: str | None = None,
    limit: int | None = None,
    common: Common = COMMON,
) -> None:
    """List sessions, ordered by id.

    Parameters
    ----------
    prefix
        Only ids that begin so.
    tag
        NAME=VALUE that a session must have; may be given several times.
    status
        active, idle, archived, deleted or moved; without it, all but deleted and moved.
    updated_after
        Only sessions whose newest commit is later than this time, such as 2026-11-23T14:02:10Z.
    updated_before
        Only sessions whose newest commit is earlier than this time.
    limit
        At most so many; without it all as JSON, 100 as a table.
    """
    terminal = common.terminal()
    tags = parse_pairs(tag)
    cut = limit is None and not terminal.json
    with common.open() as store:
        found = store.list(
            prefix=prefix,
            tags=tags,
            status=status,
            updated_after=parse_time(updated_after),
            updated_before=parse_time(updated_before),
            limit=LIMIT + 1 if cut else limit,
        )
        rows = (SessionRow.of(info) for number, info in enumerate(found) if not cut or number < LIMIT)
        count = terminal.rows(rows, *COLUMNS)
    if not count:
        terminal.note(f"There are no such sessions of tenant {common.tenant!r}.")
    elif cut and count == LIMIT:
        terminal.note(f"The first {LIMIT}; --limit shows more, a prefix or --tag shows fewer.")
