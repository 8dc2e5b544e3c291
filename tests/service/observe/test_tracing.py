"""One trace from the caller through the node into the engine and onto the commit."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider

import perdure
from perdure.service.hooks import RequestHead
from perdure.service.observe import tracing

TRACED = """
import asyncio, json
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

import perdure
from opentelemetry.sdk.metrics import MeterProvider
from perdure.service.app import App
from perdure.service.auth.credentials import Credentials
from perdure.service.auth.records import create_token
from perdure.service.auth.tokens import Tokens
from perdure.service.node import Node
from perdure.service.observe.metrics import Metrics
from perdure.service.observe.observer import NodeObserver
from perdure.service.observe.tracing import Tracing
from tests.support.service.asking import Asker

async def main():
    async with perdure.open("memory:") as store:
        made = await create_token(store, tenant="acme", scopes=["read", "append"])
        node = Node(store, authenticator=Credentials(Tokens(store, store._core.clock)),
                    observer=NodeObserver(Metrics(MeterProvider()), Tracing()))
        ask = Asker(App(node), [("authorization", f"Bearer {made.token}")])
        exporter.clear()
        with trace.get_tracer("agent").start_as_current_span("turn") as turn:
            headers = {}
            inject(headers)
        path, secret = "/v1/sessions/trip%2042/commits", made.token.split("_", 2)[2]
        stored = await ask("POST", path, {"events": [{"type": "note"}]}, headers=list(headers.items()))
        assert stored.status == 201, stored
        commit = (await ask("GET", path)).json()["commits"][0]
        refused = await ask("GET", "/v1/sessions/nobody")
        await ask("GET", "/healthz")
    caller, spans = turn.get_span_context(), exporter.get_finished_spans()
    mine = {span.name: span for span in spans if span.context.trace_id == caller.trace_id}
    server, engine = mine["POST /v1/sessions/{id}/commits"], mine["perdure.append"]
    assert server.parent.span_id == caller.span_id and server.parent.is_remote and server.kind.name == "SERVER"
    assert engine.parent.span_id == server.context.span_id, engine.parent
    assert int(commit["trace"].split("-")[1], 16) == caller.trace_id
    assert server.attributes["perdure.tenant"] == "acme" and server.attributes["perdure.session"] == "trip 42"
    assert server.attributes["http.route"] == "/v1/sessions/{id}/commits" and server.attributes["http.response.status_code"] == 201
    missing = [span for span in spans if span.name == "GET /v1/sessions/{id}"][0]
    assert missing.parent is None and missing.attributes["error.type"] == "not_found" and missing.status.status_code.name == "UNSET"
    assert refused.json()["trace_id"] == f"{missing.context.trace_id:032x}"
    assert not [span for span in spans if "healthz" in span.name]
    for span in spans:
        assert secret not in span.to_json(), span.to_json()

asyncio.run(main())
print("ok")
"""


def test_a_trace_goes_through_the_node_into_the_engine() -> None:
    """The caller's span, the server's below it, the library's below that, and the commit names the trace. Without a caller a trace begins
    at the node, and the problem names it. No span has the token."""
    ran = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, check=False)
    assert ran.stdout.endswith("ok\n"), ran.stderr


def test_an_sdk_that_is_switched_off_gives_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED: a request has the trace that it brings, or none, and never one of zeros."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    spans = tracing.Tracing(TracerProvider())
    for headers, trace_id in (({}, None), ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, "a" * 32)):
        head = RequestHead("GET", "/v1/sessions", headers, "127.0.0.1", trace_id)
        with spans.span(head) as span:
            assert span.trace_id == trace_id


def test_sending_traces_names_the_package_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an endpoint in the environment and no exporter installed the node does not start; without an endpoint none is needed."""
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing.install(None)  # type: ignore[arg-type]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    with pytest.raises(perdure.Unsupported, match="pip install opentelemetry-exporter-otlp-proto-http"):
        tracing.install(None)  # type: ignore[arg-type]
