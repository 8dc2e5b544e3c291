"""From an exception to an answer, in one place."""

from __future__ import annotations

import logging
import math

from perdure.errors import Closed, Error, QuotaExceeded, Unauthorized
from perdure.service.answers import Answer, Headers, encode
from perdure.service.refusals import MethodNotAllowed, RequestTimeout, shutting_down
from perdure.wire import PROBLEM
from perdure.wire.problem import problem

LOG = logging.getLogger("perdure.service")
RETRY_AFTER = 1
"""Seconds after which a client that was refused for a moment may try again."""


def answer_for(error: BaseException, trace_id: str | None) -> tuple[Answer, str]:
    """The problem document for an exception, and the error's code. One that is no `perdure.Error` is a defect: it is logged, and the client
    is not shown what it says."""
    if not isinstance(error, Error):
        LOG.error("A request failed: this is a defect of Perdure.", exc_info=error)
        error = Error("This node has a defect, and its log says more. Whether the request was carried out is not known.", advice="")
    if isinstance(error, Closed):
        error = shutting_down()
    said = problem(error, trace_id)
    return Answer(said["status"], encode(said), PROBLEM, headers_for(error)), error.code


def headers_for(error: Error) -> Headers:
    """The headers that go with an error."""
    headers: Headers = [("cache-control", "no-store")]
    match error:
        case QuotaExceeded():
            headers += _quota_headers(error)
        case Unauthorized():
            headers.append(("www-authenticate", "Bearer"))
        case MethodNotAllowed():
            headers.append(("allow", ", ".join(error.facts["allow"])))
        case RequestTimeout():
            headers.append(("connection", "close"))
        case _ if error.http_status == 503:
            headers.append(("retry-after", str(RETRY_AFTER)))
        case _:
            pass
    return headers


def _quota_headers(error: QuotaExceeded) -> Headers:
    """When to come back, and the RateLimit fields (draft-ietf-httpapi-ratelimit-headers) of a quota that a node has."""
    seconds = max(1, math.ceil(error.facts.get("retry_after", 1)))
    headers: Headers = [("retry-after", str(seconds))]
    quota, limit, window = (error.facts.get(name) for name in ("quota", "limit", "window"))
    if isinstance(quota, str) and isinstance(limit, int):
        within = f";w={math.ceil(window)}" if isinstance(window, int | float) else ""
        headers += [("ratelimit-policy", f'"{quota}";q={limit}{within}'), ("ratelimit", f'"{quota}";r=0;t={seconds}')]
    return headers
