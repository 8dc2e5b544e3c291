"""`list`: the sessions of a tenant. The query is checked, and the engine's pages become rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime

from perdure.backends.spi import Query
from perdure.engine.context import Context
from perdure.engine.options import check_count, check_time
from perdure.engine.views import Info
from perdure.errors import Invalid
from perdure.model.commit import Status
from perdure.model.ids import check_name

TAGS_MAX = 64
"""Most tags of a session."""
PAGE = 100
"""Rows that an engine is asked for at once."""


async def list_sessions(
    context: Context,
    *,
    prefix: str,
    tags: Mapping[str, str] | None,
    status: Status | str | None,
    after: datetime | None,
    before: datetime | None,
    order: str,
    limit: int | None,
    cursor: str | None,
) -> AsyncGenerator[Info, None]:
    """See `Store.list`: sessions whose newest commit is later than `after` and earlier than `before`."""
    core = context.opened()
    if limit is not None:
        check_count("limit", limit)
    check_id_part("prefix", prefix)
    check_id_part("cursor", cursor)
    query = Query(context.tenant, prefix, check_tags(tags or {}), check_status(status), order)
    for name, moment in (("updated_after", after), ("updated_before", before)):
        if moment is not None:
            check_time(name, moment)
    timed = after is not None or before is not None
    left = limit
    while left is None or left > 0:
        with core.telemetry.span("list", context.tenant, prefix):
            page = await core.backend.scan(query, cursor=cursor, limit=PAGE if left is None or timed else min(left, PAGE))
        for row in page.items:
            info = Info.of(row)
            if (after is None or info.updated_at > after) and (before is None or info.updated_at < before):
                yield info
                core.check_process()
                left = None if left is None else left - 1
                if left == 0:
                    return
        cursor = page.cursor
        if cursor is None:
            return


def check_id_part(name: str, value: str | None) -> None:
    """Raise `Invalid` unless it is empty, or what an id can begin with."""
    if value:
        check_name(f"A {name}", value)
    elif value not in ("", None):
        raise Invalid(f"A {name} must be a string, not {value!r}.")


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as they are stored. Raises `Invalid`."""
    if not isinstance(tags, Mapping) or len(tags) > TAGS_MAX:
        raise Invalid(f"tags must be a mapping of at most {TAGS_MAX} names to strings.")
    return {check_name("A tag's name", name): check_name("A tag's value", value) for name, value in tags.items()}


def check_status(status: Status | str | None) -> int | None:
    """A status by its number. Raises `Invalid`."""
    if status is None:
        return None
    try:
        return int(Status[status] if isinstance(status, str) else Status(status))
    except (KeyError, ValueError):
        raise Invalid(f"status must be one of {', '.join(Status.__members__)}, not {status!r}.") from None
