"""A session's life besides its commits: forks, merges, policies, proof, archive, deletion."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from perdure.errors import Invalid
from perdure.service.answers import Answer, json_answer
from perdure.service.bodies import Level, ReceiptBody
from perdure.service.call import Call
from perdure.service.conditions import etag, parse_time
from perdure.service.hooks import Scope
from perdure.service.leases import lease_of
from perdure.service.routes.commits import KEY, LEASE, TRACE
from perdure.service.table import Reply, Route

Seconds = Annotated[float, Meta(gt=0)]


class ForkBody(msgspec.Struct, forbid_unknown_fields=True):
    """Where a fork begins, and what it is called."""

    at: Annotated[int, Meta(ge=1)] | None = None
    """A version of the parent; without it, its newest."""
    id: str | None = None
    """The fork's id; without it, a new UUID."""
    actor: str | None = None


class Forked(msgspec.Struct):
    """The fork."""

    session: str


class MergeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a fork is merged into."""

    into: str
    """The parent's id."""
    actor: str | None = None
    durability: Level | None = None


class Keep(msgspec.Struct, forbid_unknown_fields=True):
    """How old, or how many, the commits are that are kept: one of both."""

    seconds: Seconds | None = None
    commits: Annotated[int, Meta(ge=1)] | None = None


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to become of sessions. What is left out stays; null removes. Durations are in seconds."""

    expire_after: Seconds | UnsetType | None = UNSET
    """So long after its last data commit it is deleted."""
    grace: Seconds | UnsetType | None = UNSET
    """So long after that it is purged."""
    archive_after: Seconds | UnsetType | None = UNSET
    """So long after its last data commit it goes to the archive."""
    wake_every: Seconds | UnsetType | None = UNSET
    """How long after the time before it is woken again."""
    wake: Literal["sweep", "claim"] | UnsetType | None = UNSET
    """Who wakes it: the sweeper, or a worker that claims it."""
    keep: Keep | UnsetType | None = UNSET
    drop: bool | UnsetType | None = UNSET
    """Whether older commits are removed; else they go to the archive."""
    actor: str | None = None
    """Who does it."""


class ConfigureBody(PolicyBody):
    """What is to become of a session. What is left out stays; null removes. Durations are in seconds."""

    wake_at: str | UnsetType | None = UNSET
    """When it is woken: a time such as 2026-11-29T18:00:00Z."""
    tags: dict[str, str] | UnsetType = UNSET
    """All tags, in place of those it had."""


class PrefixBody(PolicyBody, kw_only=True):
    """What sessions begin with whose ids begin so."""

    prefix: str
    """At most 248 bytes; "" is that of all."""


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """How old, or how many, the commits are that stay: one of both."""

    seconds: Annotated[float, Meta(ge=0)] | None = None
    commits: Annotated[int, Meta(ge=0)] | None = None


class CompactBody(msgspec.Struct, forbid_unknown_fields=True):
    """How much of a session stays in the engine."""

    keep: Kept
    drop: bool = False
    """Whether older commits are removed; else they go to the archive."""
    actor: str | None = None


class VerifiedBody(msgspec.Struct):
    """What was proven: so many commits hang together, up to this version, and so many snapshots equal the fold."""

    session: str
    version: int
    hash: str
    commits: int
    snapshots: int


class ActorBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who does it."""

    actor: str | None = None


class ActorQuery(msgspec.Struct, frozen=True):
    """Who does it."""

    actor: str | None = None


class ArchivedBody(msgspec.Struct):
    """What went to the archive."""

    session: str
    version: int
    commits: int
    segment_bytes: int


class Restored(msgspec.Struct):
    """Whether the session was in the archive."""

    restored: bool


async def fork(call: Call) -> Answer:
    """A new session that goes on from this one."""
    session, body = call.session, await call.json_or_nothing(ForkBody)
    made = await call.store.fork(session, at=body.at, id=body.id, key=call.key, actor=call.actor(body.actor))
    return json_answer(Forked(made), 201, [("location", call.session_url(made))])


async def merge(call: Call) -> Answer:
    """What a fork did, as one commit of its parent."""
    session, body = call.session, await call.json(MergeBody)
    lease = await lease_of(call, body.into)
    receipt = await call.store.merge(
        session, into=body.into, key=call.key, actor=call.actor(body.actor), durability=body.durability, lease=lease
    )
    return Answer(204) if receipt is None else json_answer(receipt.to_dict(), 201, etag(receipt.version, receipt.hash))


async def configure(call: Call) -> Answer:
    """Tags and policy, as one commit."""
    session, body = call.session, await call.json(ConfigureBody)
    said = _said(call, body)
    if isinstance(body.wake_at, str):
        said["wake_at"] = parse_time(body.wake_at, "wake_at")
    receipt = await call.store.configure(session, key=call.key, lease=await lease_of(call, session), **said)
    return json_answer(receipt.to_dict(), headers=etag(receipt.version, receipt.hash))


async def configure_prefix(call: Call) -> Answer:
    """What sessions begin with, as one commit of Perdure's own."""
    receipt = await call.store.configure(key=call.key, **_said(call, await call.json(PrefixBody)))
    return json_answer(receipt.to_dict(), headers=etag(receipt.version, receipt.hash))


def _said(call: Call, body: PolicyBody) -> dict[str, Any]:
    """The arguments of `Store.configure`."""
    said: dict[str, Any] = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    said["actor"] = call.actor(body.actor)
    if isinstance(body.keep, Keep):
        said["keep"] = _keep(body.keep)
    return said


def _keep(keep: Keep | Kept) -> int | timedelta:
    if (keep.seconds is None) == (keep.commits is None):
        raise Invalid("keep takes one of `seconds` and `commits`.", advice="")
    try:
        return timedelta(seconds=keep.seconds) if keep.seconds is not None else keep.commits or 0
    except OverflowError:
        raise Invalid("keep takes at most 100 years.", advice="") from None


async def verify(call: Call) -> Answer:
    """Each hash and each snapshot, from the first commit on."""
    session = call.session
    await call.no_body()
    found = await call.store.verify(session)
    return json_answer(VerifiedBody(found.session, found.version, found.hash.hex(), found.commits, found.snapshots))


async def delete(call: Call) -> Answer:
    """A tombstone closes the session."""
    session, query = call.session, call.query(ActorQuery)
    await call.no_body()
    receipt = await call.store.delete(session, key=call.key, actor=call.actor(query.actor))
    return json_answer(receipt.to_dict(), headers=etag(receipt.version, receipt.hash))


async def purge(call: Call) -> Answer:
    """All bytes of a deleted session but a stub."""
    session = call.session
    await call.no_body()
    await call.store.purge(session)
    return Answer(204)


async def archive(call: Call) -> Answer:
    """All of the session to the archive."""
    session, body = call.session, await call.json_or_nothing(ActorBody)
    return json_answer((await call.store.archive(session, actor=call.actor(body.actor))).to_dict())


async def compact(call: Call) -> Answer:
    """All but the newest commits to the archive, or away."""
    session, body = call.session, await call.json(CompactBody)
    actor = call.actor(body.actor)
    return json_answer((await call.store.compact(session, keep=_keep(body.keep), drop=body.drop, actor=actor)).to_dict())


async def restore(call: Call) -> Answer:
    """Back from the archive."""
    session, body = call.session, await call.json_or_nothing(ActorBody)
    return json_answer(Restored(await call.store.restore(session, actor=call.actor(body.actor))))


def _post(name: str, scope: Scope, handle: Any, summary: str, **more: Any) -> Route:
    return Route(
        method="POST", path=f"/v1/sessions/{{id}}/{name}", scope=scope, handle=handle, name=f"{name}Session", summary=summary, **more
    )


_AGAIN = "Sent again, it finds that it was done."
_JSON = "-H 'Content-Type: application/json' -d"
ROUTES = (
    _post(
        "fork", Scope.append, fork, "Fork a session",
        about="A new session that goes on from this one at a version. The cost does not grow with history.",
        body=ForkBody, optional_body=True, headers=(KEY, TRACE), replies=(Reply(201, "The fork.", Forked, headers=("Location",)),),
        example=f"""$URL/v1/sessions/trip-42/fork {_JSON} '{{"id": "trip-42-b"}}'""",
    ),
    _post(
        "merge", Scope.append, merge, "Merge a fork into its parent",
        about="What the fork did since it was made, or merged last, as one commit of the parent. What does not combine is 409.",
        body=MergeBody, headers=(KEY, LEASE, TRACE),
        replies=(Reply(201, "It is merged.", ReceiptBody, headers=("ETag",)), Reply(204, "There is nothing new.")),
        example=f"""$URL/v1/sessions/trip-42-b/merge {_JSON} '{{"into": "trip-42"}}'""",
    ),
    _post(
        "configure", Scope.admin, configure, "Set tags and policies",
        about="What is left out stays as it is; null removes it.",
        body=ConfigureBody, headers=(KEY, LEASE, TRACE), replies=(Reply(200, "It is stored.", ReceiptBody, headers=("ETag",)),),
        example=f"""$URL/v1/sessions/trip-42/configure {_JSON} '{{"tags": {{"team": "ops"}}, "expire_after": 2592000}}'""",
    ),
    Route(
        method="POST", path="/v1/configure", scope=Scope.admin, handle=configure_prefix, name="configurePrefix",
        summary="Set what sessions of a prefix begin with",
        about="Writers learn it within 30 seconds; a sweeper gives it to sessions that were started meanwhile. The longest prefix decides.",
        body=PrefixBody, headers=(KEY, TRACE), replies=(Reply(200, "It is stored.", ReceiptBody, headers=("ETag",)),),
        example=f"""$URL/v1/configure {_JSON} '{{"prefix": "trip-", "expire_after": 2592000}}'""",
    ),
    _post(
        "verify", Scope.read, verify, "Prove a session",
        about="Each commit's hash and place, and each snapshot against the fold. It reads everything.", keyless="It writes nothing.",
        replies=(Reply(200, "It is sound.", VerifiedBody),), example="-X POST $URL/v1/sessions/trip-42/verify",
    ),
    _post(
        "archive", Scope.admin, archive, "Move a session to the archive",
        about="Reads go on as before, and the first write brings it back. The node needs an archive, else 501.",
        body=ActorBody, optional_body=True, keyless=_AGAIN, headers=(TRACE,), replies=(Reply(200, "It is archived.", ArchivedBody),),
        example="-X POST $URL/v1/sessions/trip-42/archive",
    ),
    _post(
        "compact", Scope.admin, compact, "Move all but the newest commits to the archive",
        about="With `drop` they are removed. The state stays, and so do idempotency keys. Without an archive it needs `drop`, else 501.",
        body=CompactBody, keyless=_AGAIN, replies=(Reply(200, "What went.", ArchivedBody),), headers=(TRACE,),
        example=f"""$URL/v1/sessions/trip-42/compact {_JSON} '{{"keep": {{"commits": 1000}}, "drop": true}}'""",
    ),
    _post(
        "restore", Scope.admin, restore, "Bring a session back from the archive",
        body=ActorBody, optional_body=True, keyless=_AGAIN, headers=(TRACE,), replies=(Reply(200, "It is live.", Restored),),
        example="-X POST $URL/v1/sessions/trip-42/restore",
    ),
    Route(
        method="DELETE", path="/v1/sessions/{id}", scope=Scope.admin, handle=delete, name="deleteSession", summary="Delete a session",
        about="A tombstone closes it: later requests are 410. Its commits stay until it is purged.", query=ActorQuery, headers=(KEY, TRACE),
        replies=(Reply(200, "It is deleted.", ReceiptBody, headers=("ETag",)),), example="-X DELETE $URL/v1/sessions/trip-42-b",
    ),
    _post(
        "purge", Scope.admin, purge, "Remove all bytes of a deleted session",
        about="A stub stays, which keeps the id dead. A session that is not deleted is 400.", keyless=_AGAIN,
        replies=(Reply(204, "They are gone."),), example="-X POST $URL/v1/sessions/trip-42-b/purge",
    ),
)  # fmt: skip
