"""Commits: append one, read them page by page or as one stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from perdure.engine.write.drafts import EDITED
from perdure.errors import Invalid
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.service.answers import Answer, Stream, encode, json_answer
from perdure.service.bodies import CommitBody, CommitOut, CommitPage, ReceiptBody
from perdure.service.call import Call
from perdure.service.conditions import condition_of, etag
from perdure.service.hooks import Scope
from perdure.service.leases import lease_of
from perdure.service.table import Header, Reply, Route
from perdure.wire import HEADER_KEY, HEADER_LEASE, JSON, NDJSON

PAGE_BYTES = 4 << 20
"""Bytes of commits after which a page ends."""
CHUNK_BYTES = 64 << 10
"""Bytes that are sent of a stream of commits at once."""
PRIVATE = ("cache-control", "private, no-cache")
VARY = ("vary", "Authorization, Accept")


class CommitsQuery(msgspec.Struct, frozen=True):
    """Which commits, and how many."""

    after: Annotated[int, Meta(ge=0)] = 0
    """Those with a higher version."""
    before: Annotated[int, Meta(ge=1)] | None = None
    """Those with a lower version."""
    types: list[str] = []
    """Those with an event of one of these types, and of their events only those. It may come several times."""
    newest_first: bool = False
    """From the newest one back."""
    limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """Most commits of a page (100 without it), or of the stream (all without it)."""
    include_deleted: bool = False
    """Those of the session's earlier lives too, and of a deleted session, for audit."""
    control: bool = False
    """Those of leases too."""


async def append(call: Call) -> Answer:
    """One commit, all of its events or none."""
    session, body = call.session, await call.json(CommitBody)
    condition = condition_of(call, session, body.base)
    events = [event.made() for event in body.events]
    if body.ops:
        events.append(Event(EDITED, None, tuple([op.made() for op in body.ops])))
    if not events:
        raise Invalid("There is nothing to append: neither `events` nor `ops` has anything.", advice="")
    lease = await lease_of(call, session)
    with condition.checked():
        receipt = await call.store.append(
            session,
            *events,
            expect=condition.expect,
            key=call.key,
            actor=call.actor(body.actor),
            on_conflict="raise" if condition.strict else body.on_conflict,
            durability=body.durability,
            recreate=body.recreate,
            create=not condition.exists,
            lease=lease,
        )
    return json_answer(receipt.to_dict(), 201, etag(receipt.version, receipt.hash))


async def read(call: Call) -> Answer | Stream:
    """A page of commits, or a stream of them."""
    session, query = call.session, call.query(CommitsQuery)
    media = call.accepts(JSON, NDJSON)
    lines = media == NDJSON
    limit = query.limit if lines else (query.limit or 100) + 1
    found = call.store.history(
        session,
        after=query.after,
        before=query.before,
        types=query.types or None,
        newest_first=query.newest_first,
        limit=limit,
        include_deleted=query.include_deleted,
        control=query.control,
    )
    if lines:
        return await _streamed(found)
    commits, more = await _page(found, limit or 0)
    next = _next_page(call, query, commits[-1].version) if more else None
    headers = [PRIVATE, VARY, *([("link", f'<{next}>; rel="next"')] if next else [])]
    return json_answer({"commits": [commit.to_dict() for commit in commits], "next": next}, headers=headers)


async def _page(found: AsyncIterator[Commit], limit: int) -> tuple[list[Commit], bool]:
    """A page's commits, at least one if there are any, and whether there are more."""
    commits: list[Commit] = []
    size = 0
    async with aclosing(found) as each:  # type: ignore[type-var]
        async for commit in each:
            if len(commits) == limit - 1 or size > PAGE_BYTES:
                return commits, True
            commits.append(commit)
            size += len(encode(commit.events))
    return commits, False


def _next_page(call: Call, query: CommitsQuery, last: int) -> str:
    place = {"before": last} if query.newest_first else {"after": last}
    said: dict[str, Any] = {name: value for name, value in msgspec.structs.asdict(query).items() if value not in (None, False, [])}
    pairs = {**said, **place}
    pairs.pop("after") if pairs.get("after") == 0 else None
    plain = {name: "true" if value is True else value for name, value in pairs.items()}
    return f"{call.session_url(call.session, 'commits')}?{urlencode(plain, doseq=True)}"


async def _streamed(found: AsyncIterator[Commit]) -> Stream:
    """The first commit is read before the answer begins, so that what is not there is a problem and no empty stream."""
    first = await anext(found, None)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(found) as each:  # type: ignore[type-var]
            if first is None:
                return
            part = bytearray(encode(first.to_dict()) + b"\n")
            async for commit in each:
                part += encode(commit.to_dict()) + b"\n"
                if len(part) >= CHUNK_BYTES:
                    yield bytes(part)
                    part.clear()
            if part:
                yield bytes(part)

    return Stream(pieces(), NDJSON, [PRIVATE, VARY])


CONDITIONS = (
    Header("If-Match", "The ETag of the version that it was decided on: no data commit may have followed, else 412. `*`: it must exist."),
    Header("If-None-Match", "`*`: the session must not exist, else 412."),
)
KEY = Header(HEADER_KEY, "A name for this request, of 1 to 255 bytes: sent again with it, it is applied once. With another payload: 422.")
LEASE = Header(
    HEADER_LEASE,
    "The grant that it is written under: 409 (`fenced`) where that no longer holds the session, unless its key was applied before.",
)
TRACE = Header("traceparent", "The caller's trace (W3C), which the commit keeps.")
ROUTES = (
    Route(
        method="POST",
        path="/v1/sessions/{id}/commits",
        scope=Scope.append,
        handle=append,
        name="appendCommit",
        summary="Append a commit",
        about="Starts the session if there is none. Without a condition it follows whatever the newest commit is. With `base` its"
        " operations are merged over what followed, or it is 409 with those commits and the paths.",
        headers=(*CONDITIONS, KEY, LEASE, TRACE),
        body=CommitBody,
        replies=(Reply(201, "It is stored.", ReceiptBody, headers=("ETag",)),),
        example="""$URL/v1/sessions/trip-42/commits -H 'Content-Type: application/json' -H 'Idempotency-Key: start-1' -d '{"events": [{"type": "message", "data": {"role": "user", "content": "hi"}}], "ops": [{"op": "set", "path": "/status", "value": "searching"}]}'""",  # noqa: E501 - one line of a shell
    ),
    Route(
        method="GET",
        path="/v1/sessions/{id}/commits",
        scope=Scope.read,
        handle=read,
        name="readCommits",
        summary="Read a session's commits",
        about="A page at a time, forwards or back; with `Accept: application/x-ndjson` one line a commit, all of them in one answer.",
        query=CommitsQuery,
        replies=(
            Reply(200, "The commits.", CommitPage, headers=("Link",)),
            Reply(200, "A commit a line.", CommitOut, (NDJSON,)),
        ),
        example='"$URL/v1/sessions/trip-42/commits?limit=2&newest_first=true"',
    ),
)
