"""`perdure ls`: the sessions of a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import nlargest
from typing import Annotated

import msgspec
from cyclopts import Parameter

from perdure.cli.common import COMMON, Common, counts, parse_pairs, parse_time
from perdure.cli.output.terminal import NARROW, Column
from perdure.engine.views import Info

LIMIT, RECENT = 100, 20
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
        return cls(**info.to_dict())


def ls(
    prefix: str = "",
    /,
    *,
    tag: Annotated[list[str] | None, Parameter(negative=())] = None,
    status: str | None = None,
    updated_after: str | None = None,
    updated_before: str | None = None,
    recent: bool = False,
    limit: int | None = None,
    common: Common = COMMON,
) -> None:
    """List sessions, ordered by id, or the newest first.

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
    recent
        Those that changed last first; 20 of them where --limit says nothing else.
    limit
        At most so many; without it all as JSON, 100 as a table.
    """
    terminal = common.terminal()
    tags = parse_pairs(tag)
    counts(limit=limit)
    most = (RECENT if recent else LIMIT) if limit is None and (recent or not terminal.json) else limit
    with common.open() as store:
        found: Iterable[Info] = store.list(
            prefix=prefix,
            tags=tags,
            status=status,
            updated_after=parse_time(updated_after),
            updated_before=parse_time(updated_before),
            limit=None if recent or most is None else most + 1,
        )
        if recent and most is not None:
            found = nlargest(most + 1, found, key=lambda info: info.updated_at)
        more, narrow = False, terminal.width < NARROW

        def rows() -> Iterator[SessionRow]:
            nonlocal more
            for number, info in enumerate(found):
                more = number == most
                if more:
                    return
                yield SessionRow.of(info)

        count = terminal.rows(
            rows(),
            Column("session", lambda row: row.session, style="cyan", share="wrap"),
            Column("version", lambda row: row.version, justify="right"),
            Column("status", lambda row: row.status if row.status != "active" or not narrow else "", spare=narrow),
            Column("updated (UTC)", lambda row: terminal.when(row.updated_at)),
            Column(
                "tags",
                _tags,
                share="wrap",
                spare=narrow,
            ),
        )
    if not count and not more:
        terminal.note(f"There are no such sessions of tenant {common.tenant!r}.")
    elif more and limit is None:
        which = "that changed last" if recent else "by id"
        terminal.note(f"The first {count} {which}; --limit shows more, a prefix or --tag shows fewer.")


def _tags(row: SessionRow) -> str:
    return " ".join(f"{name}={value}" for name, value in row.tags.items())
