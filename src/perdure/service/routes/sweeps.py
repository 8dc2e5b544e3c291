"""A sweeper's rounds: what the policies of a tenant's sessions ask for is done by the node, a step a request."""

from __future__ import annotations

import msgspec

from perdure.ops.rounds import step
from perdure.ops.swept import What
from perdure.service.answers import Answer, json_answer
from perdure.service.call import Call
from perdure.service.hooks import Scope
from perdure.service.routes.commits import TRACE
from perdure.service.table import Reply, Route


class SweepBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which step of which round."""

    dry_run: bool = False
    """Change nothing, and say what would be done."""
    existing: bool = False
    """Where a round begins: its first steps give each prefix policy to the sessions that were there before it, about a second each."""
    cursor: str | None = None
    """The `cursor` of the step before; without it, a round begins."""


class ActionOut(msgspec.Struct):
    """What was done to a session that was due."""

    tenant: str
    session: str
    action: What
    detail: str


class GivenOut(msgspec.Struct):
    """A prefix policy that this step has given to so many sessions that were there before it."""

    tenant: str
    prefix: str
    sessions: int


class StepOut(msgspec.Struct):
    """What one step did."""

    actions: list[ActionOut]
    given: list[GivenOut]
    overdue_seconds: float
    """For how long the session had been due that waited longest."""
    cursor: str | None
    """Pass it to the next step; null: the round is over."""


async def sweep(call: Call) -> Answer:
    """Look at up to 64 sessions that are due."""
    body = await call.json_or_nothing(SweepBody)
    done = await step(call.store, dry_run=body.dry_run, existing=body.existing, cursor=body.cursor)
    return json_answer(done, headers=[("cache-control", "no-store")])


ROUTES = (
    Route(
        method="POST",
        path="/v1/sweep",
        scope=Scope.admin,
        handle=sweep,
        name="sweep",
        summary="Do what policies ask for",
        about="A step of a sweeper's round: it looks at up to 64 sessions of the tenant that are due, and does what their policies say,"
        " by the node's clock. Send it again with the `cursor` of the answer until that is null. Any number may work at once.",
        keyless="Sent again, it does what was not done.",
        body=SweepBody,
        optional_body=True,
        headers=(TRACE,),
        replies=(Reply(200, "What was done.", StepOut),),
        example="-X POST $URL/v1/sweep",
    ),
)
