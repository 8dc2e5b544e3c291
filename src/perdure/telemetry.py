"""Every span and metric name, through the OpenTelemetry API. Without an SDK nothing is entered and next to nothing is spent."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import metrics, trace

SPAN_PREFIX = "perdure."
"""Spans are named perdure.append, perdure.edit, perdure.read …; attributes: perdure.session, perdure.tenant, perdure.version."""
COMMITS = "perdure.commits"
CONFLICTS = "perdure.conflicts"
DURATION = "perdure.operation.duration"

LOOK_EVERY = 64
"""Calls between two looks for an SDK, while there is none: a look costs more than the rest. The first call looks."""

_NOTHING: AbstractContextManager[None] = nullcontext()


def traceparent() -> str | None:
    """The caller's trace context as a W3C traceparent, if there is one."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Telemetry:
    """Spans and metrics of one store. Whether an SDK is there is looked up until it is, then remembered."""

    def __init__(self) -> None:
        self._calls = -1
        self._tracer: trace.Tracer | None = None
        self._meters: tuple[metrics.Counter, metrics.Counter] | None = None

    def span(self, operation: str, tenant: str, session: str) -> AbstractContextManager[Any]:
        """A span around one public call; a no-op without an SDK."""
        if self._tracer is None:
            self._calls += 1
            if self._calls % LOOK_EVERY or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                return _NOTHING
            self._tracer = trace.get_tracer("perdure")
        attributes = {"perdure.tenant": tenant, "perdure.session": session}
        return self._tracer.start_as_current_span(SPAN_PREFIX + operation, attributes=attributes)

    def committed(self, operation: str, conflicts: int = 0) -> None:
        """Count a commit, and how often it lost a race before."""
        if self._meters is None:
            if self._calls % LOOK_EVERY or not _metrics_on():
                return
            meter = metrics.get_meter("perdure")
            self._meters = (
                meter.create_counter(COMMITS, unit="{commit}", description="Commits stored."),
                meter.create_counter(CONFLICTS, unit="{conflict}", description="Races lost before a commit was stored."),
            )
        self._meters[0].add(1, {"operation": operation})
        if conflicts:
            self._meters[1].add(conflicts, {"operation": operation})


def _metrics_on() -> bool:
    return not type(metrics.get_meter_provider()).__name__.startswith("_Proxy")
