"""A session's state: now, at a version, or at a time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from perdure.engine.views import Sizes, View
from perdure.errors import Invalid, Rewound
from perdure.model.timestamps import moment, rfc3339
from perdure.service.answers import Answer, Headers, json_answer
from perdure.service.bodies import StateBody
from perdure.service.call import Call
from perdure.service.conditions import Version, etag, naming, none_match, parse_at, parse_version, version_of
from perdure.service.hooks import Scope
from perdure.service.leases import lease_of
from perdure.service.routes.commits import PRIVATE, VARY
from perdure.service.table import Header, Reply, Route

PARTS_MAX = 1_000
"""Most parts of a state that one answer names."""
IMMUTABLE = ("cache-control", "private, max-age=31536000, immutable")
"""For what a version and its hash name. Never public: a state may be erased."""


class StateQuery(msgspec.Struct, frozen=True):
    """Which state, and how new it has to be."""

    at: str | None = None
    """A version (`12`), a version with its hash (`12-9f86…`), or a time (`2026-11-29T18:00:00Z`): the last version not later."""
    consistency: Literal["strong", "eventual"] = "strong"
    """`strong` sees every commit that was acknowledged before; `eventual` may answer from the node's memory."""
    max_staleness: Annotated[float, Meta(gt=0)] | None = None
    """With `eventual`: seconds for which the node may not have looked."""
    at_least: str | None = None
    """The `token` of an earlier answer, or its version with its hash: an older state is not an answer."""
    include_deleted: bool = False
    """A deleted session too, for audit."""


class SizesQuery(msgspec.Struct, frozen=True):
    """What is measured."""

    parts: Annotated[int, Meta(ge=0, le=PARTS_MAX)] = 10
    """How many of the heaviest parts of the state are named."""
    include_deleted: bool = False
    """A deleted session too, for audit."""


async def read(call: Call) -> Answer:
    """The state, or that the client has it already."""
    session, query = call.session, call.query(StateQuery)
    await lease_of(call, session)
    if "if-match" in call.headers:
        raise Invalid("If-Match is for writes: to read a version, name it with `at`.", advice="")
    at = None if query.at is None else parse_at(query.at)
    plain = at is None and query.consistency == "strong" and query.at_least is None and not query.include_deleted
    if plain and query.max_staleness is None and "if-none-match" in call.headers:
        version = version_of(await call.store.token(session))
        if none_match(call, version):
            return Answer(304, headers=[*etag(version.number, version.hash), PRIVATE, VARY])
    view = await call.store.read(
        session,
        at=at.number if isinstance(at, Version) else at,
        consistency=query.consistency,
        max_staleness=query.max_staleness,
        at_least=_at_least(call, session, query.at_least),
        include_deleted=query.include_deleted,
    )
    if isinstance(at, Version) and at.hash != view.hash:
        raise Rewound(f"Version {at.number} of session {session!r} has the hash {view.hash.hex()}.", session=session)
    headers: Headers = [*etag(view.version, view.hash), IMMUTABLE if isinstance(at, Version) else PRIVATE, VARY]
    if none_match(call, Version(view.version, view.hash)):
        return Answer(304, headers=headers)
    return json_answer(shown(view, today=at is None), headers=headers)


def shown(view: View, *, today: bool) -> dict[str, Any]:
    """A view as JSON says it. What the session is today is left out of an earlier version, which never changes."""
    said: dict[str, Any] = {
        "session": view.session,
        "version": view.version,
        "hash": view.hash.hex(),
        "at": rfc3339(view.at),
        "token": view.token,
        "state": view.frozen_state,
    }
    if today:
        said |= {
            "status": view.status.name,
            "tags": dict(view.tags),
            "created_at": moment(view.created_at),
            "updated_at": moment(view.updated_at),
        }
    return said


async def sizes(call: Call) -> Answer:
    """Where the session's bytes are in the engine of the node."""
    session, query = call.session, call.query(SizesQuery)
    return json_answer(await call.store.sizes(session, parts=query.parts, include_deleted=query.include_deleted))


def _at_least(call: Call, session: str, text: str | None) -> str | None:
    if text is not None and text[:1].isdigit():
        return parse_version(text, "at_least").token(call.store, session)
    if text is not None:
        with naming("at_least"):
            call.store._context.expected(text, call.store._context.key(session))
    return text


ROUTES = (
    Route(
        method="GET",
        path="/v1/sessions/{id}",
        scope=Scope.read,
        handle=read,
        name="readState",
        summary="Read a session's state",
        about="With `If-None-Match` a state that has not changed is 304, for one look at the head. Answers are private; only `at` with a"
        " hash never changes, and may be kept.",
        query=StateQuery,
        headers=(Header("If-None-Match", "The ETag of the state that the client has."),),
        replies=(Reply(200, "The state.", StateBody, headers=("ETag", "Cache-Control", "Vary")), Reply(304, "The client has it.")),
        example="$URL/v1/sessions/trip-42",
    ),
    Route(
        method="GET",
        path="/v1/sessions/{id}/sizes",
        scope=Scope.read,
        handle=sizes,
        name="readSizes",
        summary="Show where a session's bytes are",
        about="In the engine: what lies in the archive is not counted. It reads all commits that the engine has.",
        query=SizesQuery,
        replies=(Reply(200, "The bytes.", Sizes),),
        example="$URL/v1/sessions/trip-42/sizes",
    ),
)
