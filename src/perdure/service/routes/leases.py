"""Leases: take one, confirm it, let go; and claim sessions that are due."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from perdure.engine.leasing.lease import Lease
from perdure.errors import Error
from perdure.service.answers import Answer, json_answer
from perdure.service.call import Call
from perdure.service.hooks import Scope
from perdure.service.leases import confirmed, is_released, named, remember, unless_gone
from perdure.service.routes.commits import KEY, TRACE
from perdure.service.table import Header, Reply, Route
from perdure.wire import HEADER_KEY, HEADER_LEASE

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class LeaseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who wants to hold a session, and how."""

    owner: str
    """Who, for people."""
    ttl: Seconds = 30.0
    """Seconds for which the holder may be silent before somebody else may take over."""
    wait: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Seconds to wait for another holder, then 423."""
    exclusive: bool = False
    """Whether what others write without the lease is refused."""


class LeaseOut(msgspec.Struct):
    """A lease."""

    session: str
    lease: str
    """The grant: send it as `Perdure-Lease`. It is no secret."""
    token: int
    """The fencing token: higher than that of each lease of this session before."""
    owner: str
    ttl: float
    exclusive: bool


class ClaimBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who wants work, and of which sessions."""

    owner: str
    """Who, for people."""
    prefix: str = ""
    """Sessions whose id begins so."""
    tags: dict[str, str] = {}
    """Sessions that have all of these tags."""
    ttl: Seconds = 30.0
    """As in a lease."""
    limit: Annotated[int, Meta(ge=1, le=100)] = 1
    """Most sessions to hand out."""
    exclusive: bool = False
    """As in a lease."""


class Claimed(msgspec.Struct):
    """Sessions that are due, each held by the caller from now on."""

    claims: list[LeaseOut]


def shown(lease: Lease) -> dict[str, Any]:
    """A lease as JSON."""
    return {
        "session": lease.session,
        "lease": lease.grant,
        "token": lease.token,
        "owner": lease.owner,
        "ttl": lease.ttl,
        "exclusive": lease.exclusive,
    }


def answer_of(lease: Lease, status: int = 200) -> Answer:
    """The answer that shows a lease."""
    return json_answer(shown(lease), status, [(HEADER_LEASE.lower(), lease.grant), ("cache-control", "no-store")])


async def take(call: Call) -> Answer:
    """Hold a session."""
    session, body = call.session, await call.json(LeaseBody)
    if body.wait > 0:
        call.admission.done()  # Who waits for a holder holds no turn before the engine.
    asked = call.store.lease(session, owner=body.owner, ttl=body.ttl, wait=body.wait, exclusive=body.exclusive)
    if (key := call.key) is not None:
        asked.repeats(key)
    lease = await unless_gone(call, asked.__aenter__())
    remember(call, lease, call.store)
    return answer_of(lease, 201)


async def confirm(call: Call) -> Answer:
    """Say that the holder lives, and ask whether it still holds."""
    session = call.session
    await call.no_body()
    lease = await confirmed(call, session, named(call), call.store)
    await lease.confirm()
    return answer_of(lease)


async def release(call: Call) -> Answer:
    """Let go."""
    session = call.session
    await call.no_body()
    name, key = named(call), call.key
    if key is None or not await is_released(session, name, key, call.store):
        await (await confirmed(call, session, name, call.store)).release(key=key)
    return Answer(204)


async def claim(call: Call) -> Answer:
    """Take the leases of sessions that are due."""
    body = await call.json(ClaimBody)
    found: list[Lease] = []
    leases = call.store.take_due(
        owner=body.owner, prefix=body.prefix, tags=body.tags, ttl=body.ttl, limit=body.limit, exclusive=body.exclusive
    )
    try:
        async with aclosing(leases) as each:  # type: ignore[type-var]
            async for lease in each:
                remember(call, lease, call.store)
                found.append(lease)
    except Error:
        if not found:
            raise
    return json_answer({"claims": [shown(lease) for lease in found]}, headers=[("cache-control", "no-store")])


_NAMED = Header(HEADER_LEASE, "The grant.")
_TAKE_KEY = Header(
    HEADER_KEY,
    "Sent again with it, the request finds the lease that it has taken, while that is held; one with another owner, ttl or `exclusive` is"
    " 422. What is not sent again holds the session for a ttl.",
)
_JSON = "-H 'Content-Type: application/json' -d"
ROUTES = (
    Route(
        method="POST", path="/v1/sessions/{id}/lease", scope=Scope.lease, handle=take, name="takeLease", summary="Take a session's lease",
        about="One holder at a time. A session that is not there is started. Any node answers for a holder that it has heard within half a"
        " ttl; a holder that is silent loses the lease when somebody asks for it. 423 where another one holds it.",
        body=LeaseBody, headers=(_TAKE_KEY, TRACE),
        replies=(Reply(201, "It is held.", LeaseOut, headers=(HEADER_LEASE,)),),
        example=f"""$URL/v1/sessions/trip-42/lease {_JSON} '{{"owner": "worker-7", "ttl": 30}}'""",
    ),
    Route(
        method="PUT", path="/v1/sessions/{id}/lease", scope=Scope.lease, handle=confirm, name="confirmLease", summary="Confirm a lease",
        about="Every request that bears the lease confirms it; this one also asks the engine: nobody takes the lease over within a ttl from"
        " its start. 409 (`fenced`) where it no longer holds the session.", keyless="Sent again, it asks again.",
        headers=(_NAMED, TRACE), replies=(Reply(200, "It holds.", LeaseOut, headers=(HEADER_LEASE,)),),
        example="""-X PUT $URL/v1/sessions/trip-42/lease -H "Perdure-Lease: $LEASE\"""",
    ),
    Route(
        method="DELETE", path="/v1/sessions/{id}/lease", scope=Scope.lease, handle=release, name="releaseLease", summary="Release a lease",
        about="Others need not wait. The alarm of a session that was claimed is used up.",
        headers=(_NAMED, KEY, TRACE), replies=(Reply(204, "It is free."),),
        example="""-X DELETE $URL/v1/sessions/trip-42/lease -H "Perdure-Lease: $LEASE\"""",
    ),
    Route(
        method="POST", path="/v1/claims", scope=Scope.lease, handle=claim, name="claimSessions", summary="Claim sessions that are due",
        about="Sessions whose alarm for workers is due, each to one worker, under a lease. Release a lease when the work is done; without"
        " that its session stays due.",
        keyless="Sent again, it hands out other sessions; those of a lost answer are due again after their ttl.",
        body=ClaimBody, headers=(TRACE,), replies=(Reply(200, "None, or some.", Claimed),),
        example=f"""$URL/v1/claims {_JSON} '{{"owner": "worker-7", "limit": 5}}'""",
    ),
)  # fmt: skip
