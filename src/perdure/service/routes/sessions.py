"""Listing sessions: by id, or those that are due."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from perdure.backends.common.schema import write_due_cursor
from perdure.backends.spi import Query
from perdure.engine.calls.listing import check_id_part, check_status, check_tags
from perdure.engine.views import Info
from perdure.errors import Invalid
from perdure.model.ids import SessionKey, check_name
from perdure.ops.due import due_rows, due_session, until
from perdure.service.answers import Answer, json_answer
from perdure.service.bodies import SessionPage
from perdure.service.call import Call
from perdure.service.conditions import parse_time
from perdure.service.hooks import Scope
from perdure.service.routes.commits import PRIVATE, VARY
from perdure.service.table import Reply, Route

_DUE_CURSOR = re.compile(r"([0-9]{1,18}|[0-8][0-9]{18})\.(.+)", re.DOTALL)
"""When the last one was due, in nanoseconds since 1970, and its id. The tenant is that of the credentials."""


class SessionsQuery(msgspec.Struct, frozen=True):
    """Which sessions."""

    prefix: str = ""
    """Those whose id begins so."""
    tag: list[str] = []
    """Those with this tag, as NAME=VALUE; with all of them, where it comes several times."""
    status: Literal["active", "archived", "deleted"] | None = None
    """Without it: all but deleted ones."""
    updated_after: str | None = None
    """Those whose newest commit is later: a time such as 2026-11-29T18:00:00Z."""
    updated_before: str | None = None
    """Those whose newest commit is earlier."""
    due: str | None = None
    """Those that somebody has to look at before this time, the earliest first, in place of the order of ids: with `due_at` and `why`."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    """Most sessions of a page."""
    cursor: str | None = None
    """Where the page before ended: it stands in its `next`. In the order of ids, the last id."""


async def read(call: Call) -> Answer:
    """A page of sessions."""
    query = call.query(SessionsQuery)
    after, before = _time(query.updated_after, "updated_after"), _time(query.updated_before, "updated_before")
    found = _by_id(call, query, after, before) if query.due is None else _by_due(call, query, after, before, query.due)
    shown: list[dict[str, Any]] = []
    last, next = "", None
    async with aclosing(found) as each:  # type: ignore[type-var]
        async for cursor, session in each:
            if len(shown) == query.limit:
                said = {name: value for name, value in msgspec.structs.asdict(query).items() if value not in (None, "", [])}
                next = f"{call.url('v1', 'sessions')}?{urlencode({**said, 'cursor': last}, doseq=True)}"
                break
            shown.append(session)
            last = cursor
    headers = [PRIVATE, VARY, *([("link", f'<{next}>; rel="next"')] if next else [])]
    return json_answer({"sessions": shown, "next": next}, headers=headers)


Found = AsyncIterator[tuple[str, dict[str, Any]]]
"""Sessions as JSON, each with the cursor after it."""


async def _by_id(call: Call, query: SessionsQuery, after: datetime | None, before: datetime | None) -> Found:
    rows = call.store.list(
        prefix=query.prefix,
        tags=parse_tags(query.tag),
        status=query.status,
        updated_after=after,
        updated_before=before,
        limit=query.limit + 1,
        cursor=query.cursor,
    )
    async with aclosing(rows) as each:  # type: ignore[type-var]
        async for info in each:
            yield info.session, info.to_dict()


async def _by_due(call: Call, query: SessionsQuery, after: datetime | None, before: datetime | None, due: str) -> Found:
    core, tenant = call.store._context.opened(), call.store.tenant
    check_id_part("prefix", query.prefix)
    tags, status = check_tags(parse_tags(query.tag)), check_status(query.status)
    asked = Query(tenant, query.prefix, tags, status, order="due", due_before=until(parse_time(due, "due")))
    async with aclosing(due_rows(core, asked, None if query.cursor is None else _due_cursor(tenant, query.cursor))) as rows:
        async for row in rows:
            info = Info.of(row)
            if (after is None or info.updated_at > after) and (before is None or info.updated_at < before):
                said = due_session(row).to_dict()
                yield f"{row.due_at}.{row.session.id}", info.to_dict() | {"due_at": said["due_at"], "why": said["why"]}


def _due_cursor(tenant: str, text: str) -> str:
    """The engine's cursor after a session that was due. Raises `Invalid`."""
    found = _DUE_CURSOR.fullmatch(text)
    if found is None:
        raise Invalid(f"{text[:80]!r} is no cursor of a listing with `due`: take the one that stands in `next`.", advice="")
    return write_due_cursor(int(found[1]), SessionKey(tenant, check_name("A cursor's session id", found[2])))


def _time(text: str | None, name: str) -> datetime | None:
    return None if text is None else parse_time(text, name)


def parse_tags(words: list[str]) -> dict[str, str]:
    """Tags as NAME=VALUE. Raises `Invalid`."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in found:
            raise Invalid(f"tag takes NAME=VALUE, each name once; not {word[:80]!r}.", advice="")
        found[name] = value
    return found


ROUTES = (
    Route(
        method="GET",
        path="/v1/sessions",
        scope=Scope.read,
        handle=read,
        name="listSessions",
        summary="List sessions",
        about="Ordered by id, or with `due` by the time at which a sweeper, or a worker that claims them, has to look at them.",
        query=SessionsQuery,
        replies=(Reply(200, "A page of sessions.", SessionPage, headers=("Link",)),),
        example='"$URL/v1/sessions?prefix=trip-&limit=10"',
    ),
)
