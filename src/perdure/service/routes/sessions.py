"""Listing sessions."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from perdure.errors import Invalid
from perdure.service.answers import Answer, json_answer
from perdure.service.bodies import SessionPage
from perdure.service.call import Call
from perdure.service.conditions import parse_time
from perdure.service.hooks import Scope
from perdure.service.routes.commits import PRIVATE, VARY
from perdure.service.table import Reply, Route


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
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    """Most sessions of a page."""
    cursor: str | None = None
    """The last id of the page before."""


async def read(call: Call) -> Answer:
    """A page of sessions, by id."""
    query = call.query(SessionsQuery)
    rows = [
        info
        async for info in call.store.list(
            prefix=query.prefix,
            tags=parse_tags(query.tag),
            status=query.status,
            updated_after=None if query.updated_after is None else parse_time(query.updated_after, "updated_after"),
            updated_before=None if query.updated_before is None else parse_time(query.updated_before, "updated_before"),
            limit=query.limit + 1,
            cursor=query.cursor,
        )
    ]
    next = None
    if len(rows) > query.limit:
        rows.pop()
        said = {name: value for name, value in msgspec.structs.asdict(query).items() if value not in (None, "", [])}
        next = f"{call.url('v1', 'sessions')}?{urlencode({**said, 'cursor': rows[-1].session}, doseq=True)}"
    headers = [PRIVATE, VARY, *([("link", f'<{next}>; rel="next"')] if next else [])]
    return json_answer({"sessions": [info.to_dict() for info in rows], "next": next}, headers=headers)


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
        about="Ordered by id.",
        query=SessionsQuery,
        replies=(Reply(200, "A page of sessions.", SessionPage, headers=("Link",)),),
        example='"$URL/v1/sessions?prefix=trip-&limit=10"',
    ),
)
