"""Notes each request: in the metrics, in the log, and in its trace."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from perdure.service.hooks import Credential, RequestHead, Span
from perdure.service.observe.log import QUIET
from perdure.service.observe.metrics import Metrics
from perdure.service.observe.tracing import Tracing


class NodeObserver:
    """See `perdure.service.hooks.Observer`."""

    def __init__(self, metrics: Metrics, tracing: Tracing, access: Any = None) -> None:
        """`access` is a structlog logger; without one no lines are written."""
        self._metrics, self._tracing, self._access = metrics, tracing, access

    def began(self, head: RequestHead) -> None:
        self._metrics.began(watches=head.watches)

    def span(self, head: RequestHead) -> AbstractContextManager[Span]:
        return self._tracing.span(head)

    def finished(self, head: RequestHead, credential: Credential | None, status: int, code: str, seconds: float) -> None:
        if head.route:
            self._metrics.finished(watches=head.watches)
        self._metrics.answered(head.method, head.route, status, code, seconds)
        if self._access is None:
            return
        said: dict[str, Any] = {"method": head.method[:20], "route": head.route, "status": status, "ms": round(seconds * 1e3, 3)}
        if code:
            said["code"] = code
        if credential is not None:
            said["tenant"], said["credential"] = credential.tenant, credential.name
        said["client"] = head.client
        if head.trace_id is not None:
            said["trace_id"] = head.trace_id
        if status >= 500:
            self._access.error("request", **said)
        elif head.route in QUIET and status < 400:
            self._access.debug("request", **said)
        else:
            self._access.info("request", **said)
