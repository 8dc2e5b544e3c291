"""A real Jaeger gets the traces of agents and nodes, and shows one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.servers.fixture import Servers
from tests.servers.jaeger import Jaeger
from tests.servers.node import Nodes
from tests.support.service.traces import AGENT, WAY, run_traced

pytestmark = pytest.mark.slow("Jaeger is built from its source")


def ways(trace: Any) -> list[list[tuple[str, str]]]:
    """For each span of a trace the services and names from the root to it."""
    spans = {span["spanID"]: span for span in trace["spans"]}

    def way(span: Any) -> list[tuple[str, str]]:
        parent = next((each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"), "")
        name = trace["processes"][span["processID"]]["serviceName"], span["operationName"]
        return [*(way(spans[parent]) if parent else ()), name]

    return [way(span) for span in spans.values()]


def test_jaeger_shows_one_trace(servers: Servers[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for the trace of a turn, it has agent, client, node and engine, each below the one before it. It finds it by its session."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    jaeger = servers(Jaeger)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.url)
    nodes = Nodes(tmp_path, count=2)
    try:
        nodes.start()
        trace, _ = run_traced(AGENT, nodes.url).split()
    finally:
        nodes.stop()
    jaeger.wait("the trace has the engine", lambda: WAY in ways(jaeger.ask(f"traces/{trace}")["data"][0]))
    (found,) = jaeger.ask(f"traces/{trace}")["data"]
    assert {way[0] for way in ways(found)} == {("agent", "turn")}
    assert not [span for span in found["spans"] if span.get("warnings")]
    (same, *_) = jaeger.ask("traces?service=perdure&tags=%7B%22perdure.session%22%3A%22trip%2042%22%7D")["data"]
    assert same["traceID"] == trace
    assert {"agent", "perdure"} <= set(jaeger.ask("services")["data"])
