"""Whether the process lives, and whether it is ready for requests."""

from __future__ import annotations

import msgspec

from perdure.service.answers import Answer, json_answer
from perdure.service.call import Call
from perdure.service.table import Reply, Route


class Health(msgspec.Struct, frozen=True):
    """How a node is."""

    status: str
    """`ok`, or `unavailable`."""
    reason: str = ""
    """Why it is not ready."""


_NO_STORE = [("cache-control", "no-store")]


async def healthz(call: Call) -> Answer:  # noqa: ARG001
    """The process answers: nothing else is asked."""
    return json_answer(Health("ok"), headers=_NO_STORE)


async def readyz(call: Call) -> Answer:
    """The engine answers, and the node is not draining."""
    reason = await call.node.ready()
    return json_answer(Health("unavailable" if reason else "ok", reason), 503 if reason else 200, _NO_STORE)


ROUTES = (
    Route(
        method="GET", path="/healthz", scope=None, handle=healthz, name="healthz", summary="The process lives",
        replies=(Reply(200, "It does.", Health),), example="$URL/healthz",
    ),
    Route(
        method="GET", path="/readyz", scope=None, handle=readyz, name="readyz", summary="The node is ready for requests",
        about="It asks the engine, within 2 seconds. A node that drains is not ready.",
        replies=(Reply(200, "It is.", Health), Reply(503, "It is not, and why.", Health)), example="$URL/readyz",
    ),
)  # fmt: skip
