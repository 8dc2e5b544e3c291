"""Traces as a receiver of OTLP gets them, from an agent through a node to its engine; and receivers that do not take them."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import perdure
from perdure import Event
from perdure.cli import run
from tests.servers.node import Nodes
from tests.servers.process import free_port
from tests.support.backends.scenarios import until
from tests.support.service.traces import AGENT, APPEND, WAY, Seen, chain, receiving, run_traced


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's, and spans that do not wait long for others."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def test_one_trace_from_the_agent_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agent, client and node send their own spans; together they are one trace, and the commit names it. Spans have the tenant and the
    session, the node's metrics have neither."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        nodes = Nodes(tmp_path)
        try:
            nodes.start()
            trace, commit = run_traced(AGENT, nodes.url).split()
            metrics = urlopen(f"{nodes.url_of('node0')}/metrics").read().decode()
        finally:
            nodes.stop()
        spans = receiver.of(trace)
    engines = [span for span in spans if span.name == "perdure.engine.append" and span.service == "perdure"]
    (engine,) = [span for span in engines if span.attributes.get("perdure.session") == "trip 42"]
    assert chain(spans, engine) == WAY
    assert engine.attributes == {"perdure.tenant": "default", "perdure.session": "trip 42", "perdure.group.size": 1}
    assert sum(span.attributes["perdure.group.size"] for span in engines) == 4
    assert commit.split("-")[1:3] == [trace, next(span.id for span in spans if span.name == "perdure.append")]
    client, server = (next(s for s in spans if s.name == APPEND and s.service == who) for who in ("agent", "perdure"))
    assert (client.kind, server.kind) == (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER)
    assert server.attributes["perdure.tenant"] == "default" and server.attributes["http.route"] == "/v1/records/append"
    for span in (client, server):
        assert (span.attributes["http.request.method"], span.attributes["http.response.status_code"]) == ("POST", 200)
    assert client.attributes["server.port"] == nodes.port("node0")
    assert server.resource["service.version"] == perdure.__version__
    assert "trip 42" not in metrics and not re.search(r'[{,]\w*(session|tenant)\w*="', metrics)
    assert re.search(r'^perdure_commits_total{operation="records"[^}]*} 4.0$', metrics, re.MULTILINE), metrics
    assert re.search(r"^perdure_group_size_sum({[^}]*})? 4.0$", metrics, re.MULTILINE), metrics


def test_the_environment_names_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before what a node says of itself."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "sessions")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=n7")
        nodes = Nodes(tmp_path)
        try:
            nodes.start()
            assert urlopen(f"{nodes.url_of('node0')}/v1/sessions").status == 200
        finally:
            nodes.stop()
    assert {(span.service, span.resource["service.instance.id"]) for span in receiver.spans} == {("sessions", "n7")}


def test_a_span_of_many_appends_is_linked_to_those_who_made_them(tmp_path: Path) -> None:
    """Appends of several traces that go to the engine together: the call is in the trace of one, with links to the others."""
    program = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import perdure
from perdure import Event

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

async def main(url):
    async with perdure.open(url) as store:
        async def turn(number):
            for _ in range(5):
                await store.append(f"s{number}", Event("note"))
        await asyncio.gather(*[turn(number) for number in range(20)])
    spans = exporter.get_finished_spans()
    calls = [span for span in spans if span.name == "perdure.engine.append"]
    made = {span.context.span_id: span.context.trace_id for span in spans if span.name == "perdure.append"}
    served = set()
    for call in calls:
        named = [call.parent.span_id, *[link.context.span_id for link in call.links]]
        assert len(named) == call.attributes["perdure.group.size"], (named, call.attributes)
        assert call.context.trace_id == made[call.parent.span_id]
        served |= {*named}
    assert served == made.keys() and len(calls) < len(made) == 100, (len(calls), len(made))

asyncio.run(main(sys.argv[1]))
"""
    run_traced(program, f"sqlite:///{tmp_path}/store.db")


async def test_a_receiver_that_hangs_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a request and does not answer: requests of clients are answered, more than the spans that can wait, and the node ends."""
    with receiving() as receiver:
        receiver.takes.clear()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100000")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        nodes = Nodes(tmp_path)
        try:
            await asyncio.to_thread(nodes.start)
            async with perdure.open(nodes.url) as store:
                await store.append("s", Event("note"))
                await until(lambda: receiver.requests)
                for _ in range(20):
                    await store.append("s", Event("note"))
                assert (await store.read("s")).version == 21
            await asyncio.to_thread(nodes.stop)
            assert nodes._processes["node0"].returncode == 0 and not receiver.spans
        finally:
            await asyncio.to_thread(nodes.stop)


def test_a_receiver_that_is_not_there_fails_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there: requests are answered, the log says what is missing, and the node ends."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    nodes = Nodes(tmp_path)
    try:
        nodes.start()
        for _ in range(20):
            post = Request(f"{nodes.url_of('node0')}/v1/sessions/s/commits", data=b'{"events": [{"type": "note"}]}', method="POST")
            post.add_header("content-type", "application/json")
            assert urlopen(post).status == 201
        nodes.wait("the log says so", lambda: "exporting span" in nodes.log("node0").lower())
        nodes.stop()
        assert nodes._processes["node0"].returncode == 0
    finally:
        nodes.stop()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT takes a URL"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT takes a URL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a.test:99999"}, "takes a URL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a.test:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "by http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a.test:4318", "OTEL_TRACES_EXPORTER": "zipkin"}, "by otlp, or none"),
    ],
)
def test_settings_by_which_no_span_would_arrive_are_refused(
    settings: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the node listens, and not each time that spans are sent."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert run(["serve", "memory:", "--port", "0"]) != 0
    assert says in " ".join(capsys.readouterr().err.split())


def test_kinds_are_told_apart() -> None:
    """`chain` names a span whose parent is missing, so that a trace in pieces is not taken for one."""
    piece = Seen("a", "b", 1, "t", "1", "0", {}, (), {})
    with pytest.raises(AssertionError, match="not received"):
        chain([piece], piece)
