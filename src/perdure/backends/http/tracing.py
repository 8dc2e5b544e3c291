"""A span around each request to a node, as OpenTelemetry's conventions for HTTP clients have it, and the header by which the node's spans
belong below it. Without an SDK no span is made, and the header still hands on the trace that the caller is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perdure.errors import Error

_PROPAGATOR = TraceContextTextMapPropagator()


@contextmanager
def requesting(name: str, method: str, url: str, headers: dict[str, str]) -> Iterator[Span]:
    """Around one request: a span of this name, whose context is put in `headers`. An error that leaves the block is its `error.type`."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        _PROPAGATOR.inject(headers)
        yield trace.INVALID_SPAN
        return
    place = urlsplit(url)
    attributes: dict[str, str | int] = {"http.request.method": method, "url.full": url, "server.address": place.hostname or ""}
    attributes["server.port"] = place.port or (443 if place.scheme == "https" else 80)
    with provider.get_tracer("perdure").start_as_current_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        _PROPAGATOR.inject(headers)
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", error.code if isinstance(error, Error) else type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
