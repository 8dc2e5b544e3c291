"""What a query asks for, as conditions of a statement."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.backends.common.schema import read_due_cursor
from perdure.backends.spi import Query
from perdure.model.commit import Status

_HIDDEN = [int(status) for status in (Status.deleted, Status.moved)]


def conditions(query: Query, cursor: str | None) -> tuple[list[str], dict[str, Any]]:
    """The conditions on index rows behind a cursor, and their values. Raises `Invalid` for a cursor that no page gave."""
    where, values = _of_order(query, cursor)
    # A row whose head is not the one that its newest commit repeats is looked at, whatever its status, so that none is hidden.
    if query.status is None:
        where.append("(status <> ALL(%(hidden)s) OR NOT {proven})")
        values["hidden"] = _HIDDEN
    else:
        where.append("(status = %(status)s OR NOT {proven})")
        values["status"] = query.status
    if query.prefix:
        where.append("id >= %(prefix)s AND starts_with(id, %(prefix)s) AND id < %(end)s")
        values |= {"prefix": query.prefix, "end": query.prefix + "\U0010ffff" * 64}
    if query.tags:
        where.append("tags @> %(tags)s::jsonb AND tags <> '{}'")
        values["tags"] = msgspec.json.encode(query.tags).decode()
    return where, values


def _of_order(query: Query, cursor: str | None) -> tuple[list[str], dict[str, Any]]:
    where: list[str] = []
    values: dict[str, Any] = {}
    if query.order == "due":
        if query.tenant is not None:
            where.append("tenant = %(tenant)s")
            values["tenant"] = query.tenant
        if query.due_before is not None:
            where.append("due_at < %(before)s::bigint")
            values["before"] = query.due_before
        if cursor is not None:
            due_at, session = read_due_cursor(cursor)
            where.append("(due_at, tenant, id) > (%(due_at)s::bigint, %(after_tenant)s::text, %(after)s::text)")
            values |= {"due_at": due_at, "after_tenant": session.tenant, "after": session.id}
        return where, values
    where.append("tenant = %(tenant)s")
    values["tenant"] = query.one_tenant
    if cursor is not None:
        where.append("id > %(cursor)s")
        values["cursor"] = cursor
    return where, values
