"""The metrics of the process, for Prometheus."""

from __future__ import annotations

import asyncio

from perdure.service.answers import Answer
from perdure.service.call import Call
from perdure.service.hooks import Scope
from perdure.service.refusals import NoRoute
from perdure.service.table import Reply, Route


async def metrics(call: Call) -> Answer:
    """They are read in a thread: that takes some milliseconds."""
    exposition = call.node.exposition
    if exposition is None or call.node.options.metrics_port is not None:
        raise NoRoute("This node shows its metrics on another port, or not at all.", advice="See --metrics-port.")
    body, media = await asyncio.to_thread(exposition, call.headers.get("accept", ""))
    return Answer(200, body, media, [("cache-control", "no-store")])


ROUTES = (
    Route(
        method="GET", path="/metrics", scope=Scope.admin, handle=metrics, name="metrics", summary="The metrics of this node",
        about="For Prometheus. With `--metrics-port` they are on that port, without a credential, and not here.",
        replies=(Reply(200, "The metrics.", media=("text/plain",)),), example="$URL/metrics",
    ),
)  # fmt: skip
