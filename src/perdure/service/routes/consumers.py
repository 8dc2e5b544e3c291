"""Consumers of changes: registered by name, with a checkpoint that only a node's engine writes, and the lease of the run at work."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from perdure import ops
from perdure.engine.calls.changes import make_follower, make_selection
from perdure.engine.live.consumers import Parked, Progress, Registration, session_id
from perdure.engine.options import VERSION_MAX
from perdure.engine.store import Store, system_store
from perdure.errors import Deleted, Invalid, NotFound
from perdure.model.ids import check_name
from perdure.ops.checkpoint import Checkpoint, cut, write
from perdure.ops.consumer import ERROR_CHARACTERS_MAX, PARKED_MAX
from perdure.service.answers import Answer, json_answer
from perdure.service.bodies import ReceiptBody
from perdure.service.call import Call
from perdure.service.conditions import etag, naming
from perdure.service.hooks import Scope
from perdure.service.leases import confirmed, is_released, named, remember, unless_gone
from perdure.service.routes.commits import KEY, TRACE
from perdure.service.routes.leases import LeaseOut, Seconds, answer_of
from perdure.service.table import Header, Reply, Route
from perdure.wire import HEADER_KEY, HEADER_LEASE
from perdure.wire.paths import session_of

_TIME_END = 1 << 63


class RegistrationBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a consumer of a name is."""

    code: str
    """A name for what it does."""
    types: list[str] | None = None
    """It takes commits with an event of one of these types."""
    prefix: str = ""
    """Of sessions whose id begins so."""
    tags: dict[str, str] = {}
    """Of sessions with all of these tags."""
    control: bool = False
    """Those of leases too."""
    after: str | None = None
    """A cursor of `/v1/changes`: where a new consumer begins; without it, at the start."""


class Registered(msgspec.Struct):
    """A consumer that is registered."""

    name: str
    registered: str
    """Made when it was registered: one that was forgotten and registered again has another."""


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which run wants to work."""

    owner: str
    """Who, for people."""
    ttl: Seconds = 30.0
    """Seconds for which the run may be silent before another one may take over."""
    wait: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Seconds to wait for another run, then 423."""


class CheckpointBody(Progress, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a run of a consumer is."""

    expect: Annotated[int, Meta(ge=1, le=VERSION_MAX)]
    """The version of the checkpoint that the run knows: nobody may have written it since, else 409."""


class ChosenBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of which session what is parked is meant."""

    session: str | None = None
    """Without it, of all."""


class Changed(msgspec.Struct):
    """Of how many sessions something was parked."""

    sessions: int


class ParkedOut(msgspec.Struct):
    """What is parked of a session."""

    session: str
    first: int
    last: int
    error: str
    since: str
    retry: bool


class ConsumerOut(msgspec.Struct):
    """A consumer: how far it is, what waits, what is parked."""

    name: str
    code: str
    handled: int
    session: str | None
    version: int | None
    at: str | None
    waiting: int | None
    """Its lag: changes that wait for it, 1,000 at most; null where they cannot be read."""
    waiting_since: str | None
    cursor: str | None
    parked: list[ParkedOut]
    updated_at: str
    problem: str | None


class ConsumersOut(msgspec.Struct):
    """All consumers of the tenant."""

    consumers: list[ConsumerOut]


def _name(call: Call) -> str:
    return session_of(call.raw("name"))


async def _existing(call: Call) -> tuple[str, Store]:
    """The session of the consumer's checkpoint, and the store that has it. Raises `NotFound`."""
    name, system = _name(call), system_store(call.store)
    session = session_id(name)
    try:
        await system.token(session)
    except (NotFound, Deleted):
        raise NotFound(f"There is no consumer {name!r} in tenant {call.store.tenant!r}.") from None
    return session, system


async def listing(call: Call) -> Answer:
    """All of them."""
    return json_answer({"consumers": [info.to_dict() for info in await ops.consumers(call.store)]}, headers=_NO_STORE)


async def show(call: Call) -> Answer:
    """One of them."""
    (info,) = await ops.consumers(call.store, _name(call))
    return json_answer(info.to_dict(), headers=_NO_STORE)


async def register(call: Call) -> Answer:
    """See that there is a consumer of this name."""
    name, body = _name(call), await call.json(RegistrationBody)
    selection = make_selection(types=body.types, prefix=body.prefix, tags=body.tags, control=body.control)
    make_follower(call.store._context, body.after, selection)
    registration = Registration.of(check_name("code", body.code), selection)
    mark = await Checkpoint.register(call.store, name, registration, body.after)
    return json_answer(Registered(name, mark), headers=_NO_STORE)


async def hold(call: Call) -> Answer:
    """Take the lease of the checkpoint."""
    body = await call.json(HoldBody)
    session, system = await _existing(call)
    if body.wait > 0:
        call.admission.done()
    asked = system.lease(session, owner=body.owner, ttl=body.ttl, wait=body.wait)
    if (key := call.key) is not None:
        asked.repeats(key)
    lease = await unless_gone(call, asked.__aenter__())
    remember(call, lease, system)
    return answer_of(lease, 201)


async def confirm(call: Call) -> Answer:
    """Say that the run is alive."""
    await call.no_body()
    session, system = await _existing(call)
    lease = await confirmed(call, session, named(call), system)
    await lease.confirm()
    return answer_of(lease)


async def release(call: Call) -> Answer:
    """Let another run work."""
    await call.no_body()
    session, system = await _existing(call)
    name, key = named(call), call.key
    if key is None or not await is_released(session, name, key, system):
        await (await confirmed(call, session, name, system)).release(key=key)
    return Answer(204)


async def save(call: Call) -> Answer:
    """Write the checkpoint, under the lease."""
    name, body = _name(call), await call.json(CheckpointBody)
    key = call.key
    if key is None:
        raise Invalid(f"Name this checkpoint with {HEADER_KEY}: sent again with it, it is written once.", advice="")
    _check(call, body)
    session, system = await _existing(call)
    lease = await confirmed(call, session, named(call), system)
    with naming("expect", only="expected"):
        receipt = await write(call.store, name, body, body.expect, key, lease)
    await cut(call.store, name)
    return json_answer(receipt.to_dict(), headers=etag(receipt.version, receipt.hash))


def _check(call: Call, body: CheckpointBody) -> None:
    """Raise `Invalid` for what no run of a consumer says."""
    check_name("A run", body.run)
    if body.cursor is not None:
        make_follower(call.store._context, body.cursor, make_selection(types=None, prefix="", tags=None, control=False))
    numbers = [body.saves, body.handled, *([] if body.position is None else [body.position.version, body.position.at])]
    if not all(0 <= number < _TIME_END for number in numbers):
        raise Invalid("A checkpoint's numbers are whole, and not negative.", advice="")
    if body.position is not None:
        check_name("A session id", body.position.session)
    if len(body.parked) > 2 * PARKED_MAX:
        raise Invalid(f"A consumer has something parked of at most {PARKED_MAX} sessions.", advice="")
    for session, parked in body.parked.items():
        check_name("A session id", session)
        if parked is not None:
            _check_parked(session, parked)


def _check_parked(session: str, parked: Parked) -> None:
    if not 1 <= parked.first <= parked.last <= VERSION_MAX or not 0 <= parked.since < _TIME_END:
        raise Invalid(f"What is parked of session {session!r} goes from a version to a later one, since a time.", advice="")
    if len(parked.error) > ERROR_CHARACTERS_MAX:
        raise Invalid(f"The error of what is parked has at most {ERROR_CHARACTERS_MAX} characters.", advice="")


async def retry(call: Call) -> Answer:
    """Have the consumer try again."""
    name, body = _name(call), await call.json_or_nothing(ChosenBody)
    return json_answer(Changed(await ops.retry(call.store, name, body.session)))


async def drop(call: Call) -> Answer:
    """Give up what is parked."""
    name, body = _name(call), await call.json_or_nothing(ChosenBody)
    return json_answer(Changed(await ops.drop(call.store, name, body.session)))


async def forget(call: Call) -> Answer:
    """Remove the consumer and its checkpoint."""
    name = _name(call)
    await call.no_body()
    await ops.forget(call.store, name)
    return Answer(204)


_NO_STORE = [("cache-control", "no-store")]
_NAMED = Header(HEADER_LEASE, "The grant that the run has. Each request that bears it says that the run is alive.")
_JSON = "-H 'Content-Type: application/json' -d"


def _route(method: str, rest: str, scope: Scope, handle: Any, name: str, summary: str, **more: Any) -> Route:
    headers = more.pop("headers", ()) if method == "GET" else (*more.pop("headers", ()), TRACE)
    path = f"/v1/consumers/{{name}}{rest}"
    return Route(method=method, path=path, scope=scope, handle=handle, name=name, summary=summary, headers=headers, **more)


ROUTES = (
    Route(
        method="GET", path="/v1/consumers", scope=Scope.read, handle=listing, name="listConsumers", summary="List consumers",
        about="How far each is, and what is parked. Up to 1,000 changes are read for each.",
        replies=(Reply(200, "All of them.", ConsumersOut),), example="$URL/v1/consumers",
    ),
    _route(
        "POST", "", Scope.append, register, "registerConsumer", "Register a consumer",
        about="One of this name that was registered for something else is 400.", keyless="Sent again, it finds the consumer.",
        body=RegistrationBody, replies=(Reply(200, "There is one.", Registered),),
        example=f"""$URL/v1/consumers/indexer {_JSON} '{{"code": "index", "prefix": "trip-"}}'""",
    ),
    _route(
        "GET", "", Scope.read, show, "readConsumer", "Read a consumer",
        replies=(Reply(200, "How far it is.", ConsumerOut),), example="$URL/v1/consumers/indexer",
    ),
    _route(
        "POST", "/lease", Scope.append, hold, "holdConsumer", "Take the lease of a consumer",
        about="One run of a name works at a time. 423 where another one does.", body=HoldBody,
        headers=(Header(HEADER_KEY, "Sent again with it, the request finds the lease that it has taken."),),
        replies=(Reply(201, "It is held.", LeaseOut, headers=(HEADER_LEASE,)),),
        example=f"""$URL/v1/consumers/indexer/lease {_JSON} '{{"owner": "indexer-1"}}'""",
    ),
    _route(
        "PUT", "/lease", Scope.append, confirm, "confirmConsumer", "Confirm the lease of a consumer",
        about="A run that is silent for its ttl loses it when another one asks.", keyless="Sent again, it asks again.",
        headers=(_NAMED,), replies=(Reply(200, "It holds.", LeaseOut, headers=(HEADER_LEASE,)),),
        example="""-X PUT $URL/v1/consumers/indexer/lease -H "Perdure-Lease: $LEASE\"""",
    ),
    _route(
        "POST", "/checkpoint", Scope.append, save, "saveConsumer", "Write a consumer's checkpoint",
        about="After the changes up to `cursor` were handled. It needs `Idempotency-Key` and `Perdure-Lease`.",
        body=CheckpointBody, headers=(KEY, _NAMED), replies=(Reply(200, "It is written.", ReceiptBody, headers=("ETag",)),),
        example=f"""$URL/v1/consumers/indexer/checkpoint {_JSON} '{{"run": "r1", "saves": 1, "cursor": null, "expect": 2}}'"""
        """ -H 'Idempotency-Key: r1/1' -H "Perdure-Lease: $LEASE\"""",
    ),
    _route(
        "DELETE", "/lease", Scope.append, release, "releaseConsumer", "Release the lease of a consumer",
        headers=(_NAMED, KEY), replies=(Reply(204, "Another run may work."),),
        example="""-X DELETE $URL/v1/consumers/indexer/lease -H "Perdure-Lease: $LEASE\"""",
    ),
    _route(
        "POST", "/retry", Scope.admin, retry, "retryConsumer", "Have a consumer try again what it has parked",
        about="It does so within about 5 seconds, or when it starts.", keyless="Sent again, it asks for the same.",
        body=ChosenBody, optional_body=True, replies=(Reply(200, "It is asked.", Changed),),
        example="-X POST $URL/v1/consumers/indexer/retry",
    ),
    _route(
        "POST", "/drop", Scope.admin, drop, "dropConsumer", "Give up what a consumer has parked",
        about="Those commits are never handled.", keyless="Sent again, it finds that they were given up.",
        body=ChosenBody, optional_body=True, replies=(Reply(200, "It is given up.", Changed),),
        example="-X POST $URL/v1/consumers/indexer/drop",
    ),
    _route(
        "DELETE", "", Scope.admin, forget, "forgetConsumer", "Remove a consumer and its checkpoint",
        about="A new one of this name begins at the start.", keyless="Sent again, it is 404.",
        replies=(Reply(204, "It is removed."),), example="-X DELETE $URL/v1/consumers/indexer",
    ),
)  # fmt: skip
