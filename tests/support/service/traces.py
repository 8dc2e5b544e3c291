"""A receiver of traces by OTLP over HTTP, an agent that sends its own, and what a trace looks like."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from tests.servers.process import HOST

AGENT = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import perdure
from perdure import Event, op

async def main(url):
    async with perdure.open(url) as store:
        with trace.get_tracer("agent").start_as_current_span("turn") as turn:
            await store.append("trip 42", Event("note", None, (op.set("/city", "Lisbon"),)))
            await asyncio.gather(*[store.append(f"leg {number}", Event("note")) for number in range(3)])
        (commit,) = [commit async for commit in store.history("trip 42")]
        print(f"{turn.get_span_context().trace_id:032x}", commit.trace)

provider = TracerProvider(resource=Resource.create({"service.name": "agent"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
asyncio.run(main(sys.argv[1]))
provider.shutdown()
"""
"""A program: writes to the service at the URL that it is given, in one trace. It prints the trace's id, and the trace of a commit."""
APPEND = "POST /v1/records/append"
WAY = [
    ("agent", "turn"),
    ("agent", "perdure.append"),
    ("agent", "perdure.engine.append"),
    ("agent", APPEND),
    ("perdure", APPEND),
    ("perdure", "perdure.engine.append"),
]
"""The spans from an agent to the engine."""


def run_traced(program: str, *arguments: str) -> str:
    """What a program prints."""
    command = [sys.executable, "-c", program, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class Seen(NamedTuple):
    """A span as it was received. `id` and `parent` are in hexadecimal."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    resource: dict[str, Any]


class Receiver:
    """Takes spans. While `takes` is not set it has read them and does not answer."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.requests = 0
        self.takes = threading.Event()
        self.takes.set()
        self.url = ""

    def of(self, trace: str) -> list[Seen]:
        """The spans of a trace."""
        return [span for span in list(self.spans) if span.trace == trace]

    def take(self, body: bytes) -> None:
        """Note what a request brings."""
        self.requests += 1
        self.takes.wait()
        self.spans += _spans(ExportTraceServiceRequest.FromString(body))


def chain(spans: Sequence[Seen], last: Seen) -> list[tuple[str, str]]:
    """The services and names from the root of a trace to this span."""
    by_id = {span.id: span for span in spans}
    found = [last]
    while found[0].parent in by_id:
        found.insert(0, by_id[found[0].parent])
    assert not found[0].parent, f"{found[0].name} has a parent that was not received"
    return [(span.service, span.name) for span in found]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens; its `url` is what OTEL_EXPORTER_OTLP_ENDPOINT takes."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if found:
                receiver.take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        receiver.url = f"http://{HOST}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.takes.set()
            server.shutdown()
            thread.join()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                links = tuple(link.span_id.hex() for link in span.links)
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                yield Seen(about["service.name"], span.name, span.kind, *ids, _values(span.attributes), links, about)


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
