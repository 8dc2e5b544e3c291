"""One trace from a client through the node into the engine: a server span around each request, as OpenTelemetry's conventions have it.

Spans carry tenant and session; no header, no query and no credential. Without an SDK nothing is made, and what a request writes still
belongs to the trace that it came with.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

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
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER, SPOKEN = "OTEL_TRACES_EXPORTER", "http/protobuf"
LAST_SECONDS = 2.0
"""For how long a node that ends waits for the receiver to take the last spans."""
PACKAGE = "opentelemetry-exporter-otlp-proto-http"
_PROPAGATOR = TraceContextTextMapPropagator()
_UNTRACED = NoObserver()


def install(resource: Resource) -> Callable[[], None]:
    """Send spans where the environment says; none are made where it does not. The function that comes back sends those that wait, for
    `LAST_SECONDS` at most. Raises `Invalid`, `Unsupported`."""
    endpoint = _endpoint()
    if endpoint is None:
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise Unsupported(f"{endpoint} is set, and sending traces needs a package: pip install {PACKAGE}.", advice="") from None
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

    def end() -> None:
        ending = threading.Thread(target=provider.shutdown, name="perdure-traces", daemon=True)  # It may wait for the receiver.
        ending.start()
        ending.join(LAST_SECONDS)

    return end


def _endpoint() -> str | None:
    """The variable that says where traces go; `None`: nowhere. Raises `Invalid`, `Unsupported` for what cannot be done."""
    name = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    exporter = os.environ.get(EXPORTER) or "otlp"
    if name is None or exporter == "none":
        return None
    if exporter != "otlp":
        raise Unsupported(f"{EXPORTER} is {exporter!r}, and a node sends traces by otlp, or none.", advice="")
    for variable in PROTOCOLS:
        protocol = os.environ.get(variable) or SPOKEN
        if protocol != SPOKEN:
            raise Unsupported(
                f"{variable} is {protocol!r}, and a node sends traces by {SPOKEN}: most receivers have port 4318 for it.", advice=""
            )
        if os.environ.get(variable):
            break
    place = os.environ[name]
    try:
        split = urlsplit(place)
        is_url = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise Invalid(f"{name} takes a URL such as http://collector:4318, not {place[:80]!r}.", advice="")
    return name


class Tracing:
    """Makes the spans."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """Without a provider: the process's, as it is now."""
        found = provider or trace.get_tracer_provider()
        tracer = None if isinstance(found, trace.ProxyTracerProvider) else found.get_tracer("perdure.service")
        self._tracer = None if isinstance(tracer, trace.NoOpTracer) else tracer  # An SDK may be switched off.

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
