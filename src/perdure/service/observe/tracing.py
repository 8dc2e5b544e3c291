"""One trace from a client through the node into the engine: a server span around each request, as OpenTelemetry's conventions have it.

Spans carry tenant and session; no header, no query and no credential. Without an SDK nothing is made, and what a request writes still
belongs to the trace that it came with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perdure.errors import Invalid, Unsupported
from perdure.service.hooks import Credential, NoObserver, RequestHead, Span
from perdure.wire.paths import session_of

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Where traces go, in the environment: OpenTelemetry's own names."""
PACKAGE = "opentelemetry-exporter-otlp-proto-http"
_PROPAGATOR = TraceContextTextMapPropagator()
_UNTRACED = NoObserver()


def install(resource: Resource) -> None:
    """Send spans where the environment says; none are made where it does not. Raises `Unsupported` without the exporter's package."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise Unsupported(f"{ENDPOINTS[1]} is set, and sending traces needs a package: pip install {PACKAGE}.", advice="") from None
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class Tracing:
    """Makes the spans."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """Without a provider: the process's, as it is now."""
        found = provider or trace.get_tracer_provider()
        is_there = not isinstance(found, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = found.get_tracer("perdure.service") if is_there else None

    def span(self, head: RequestHead) -> AbstractContextManager[Span]:
        """See `perdure.service.hooks.Observer`."""
        if self._tracer is None or not head.route.startswith("/v1/"):
            return _UNTRACED.span(head)
        return self._traced(self._tracer, head)

    @contextmanager
    def _traced(self, tracer: trace.Tracer, head: RequestHead) -> Iterator[Span]:
        attributes = {"http.request.method": head.method, "http.route": head.route, "client.address": head.client}
        with tracer.start_as_current_span(
            f"{head.method} {head.route}",
            context=_PROPAGATOR.extract(head.headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield _ServerSpan(span)


class _ServerSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.trace_id: str | None = f"{span.get_span_context().trace_id:032x}"

    def admitted(self, credential: Credential, session: str | None) -> None:
        self._span.set_attribute("perdure.tenant", credential.tenant)
        if session is not None:
            self._span.set_attribute("perdure.session", _decoded(session))

    def answered(self, status: int, code: str) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if code:
            self._span.set_attribute("error.type", code)
        if status >= 500:  # A server's span fails where the server does, not where it refuses.
            self._span.set_status(StatusCode.ERROR)


def _decoded(segment: str) -> str:
    try:
        return session_of(segment)
    except Invalid:  # The route refuses it.
        return segment
