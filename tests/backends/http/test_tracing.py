"""What a client's requests are in a trace: each below the call that made it, whatever else is under way, and with what became of it."""

from __future__ import annotations

from pathlib import Path

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from perdure.backends.http.tracing import requesting
from tests.support.service.nodes import serving
from tests.support.service.traces import run_traced

PROGRAM = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import perdure, perdure.sync
from perdure import Event

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

async def main(url):
    async with perdure.open(url, cache_bytes=0) as store:
        async def turn(number):
            with trace.get_tracer("agent").start_as_current_span("turn"):
                await store.append(f"s{number}", Event("note"))
                await store.read(f"s{number}")
                [commit async for commit in store.history(f"s{number}")]
        await asyncio.gather(*[turn(number) for number in range(20)])

def blocking(url):
    with perdure.sync.open(url) as store, trace.get_tracer("agent").start_as_current_span("turn"):
        store.append("b", Event("note"))
        store.read("b", consistency="strong")

asyncio.run(main(sys.argv[1]))
blocking(sys.argv[1])
spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
turns = [span for span in spans.values() if span.name == "turn"]
requests = [span for span in spans.values() if span.kind is trace.SpanKind.CLIENT]
assert {"POST /v1/records/append", "POST /v1/records/read"} <= {span.name for span in requests}, {span.name for span in requests}
inside = [span for span in requests if span.parent is not None]
assert {span.context.trace_id for span in inside} == {span.context.trace_id for span in turns}
for span in inside:
    parent = spans[span.parent.span_id]
    assert parent.context.trace_id == span.context.trace_id
    assert parent.name == "perdure.engine.append" or not span.name.endswith("append"), (span.name, parent.name)
    assert span.attributes["http.response.status_code"] == 200 and span.attributes["url.full"].startswith(sys.argv[1])

try:
    asyncio.run(main("http://127.0.0.1:1"))
except perdure.Unavailable:
    failed = exporter.get_finished_spans()[-1]
assert failed.attributes["error.type"] == "unavailable" and failed.status.status_code.name == "ERROR", failed.to_json()
"""


def test_each_request_is_below_the_call_that_made_it(tmp_path: Path) -> None:
    """Twenty agents at once, each in its own trace, and a blocking one: no request is in a trace of another. One that fails says why."""
    with serving(f"sqlite:///{tmp_path}/store.db") as node:
        run_traced(PROGRAM, node.url)


def test_without_an_sdk_the_trace_is_handed_on() -> None:
    """The caller's context, which may come from another program, reaches the node; without one there is no header."""
    headers: dict[str, str] = {}
    with requesting("GET /x", "GET", "http://a.test/x", headers):
        assert headers == {}
    caller = NonRecordingSpan(SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    with trace.use_span(caller), requesting("GET /x", "GET", "http://a.test/x", headers):
        assert headers == {"traceparent": f"00-{7:032x}-{9:016x}-01"}
