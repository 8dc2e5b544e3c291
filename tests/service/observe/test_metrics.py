"""Metrics: what a node counts, how it is shown, and that the docs' table has each of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from perdure import telemetry
from perdure.service.observe.exposition import BUCKETS, SECONDS
from tests.servers.node import Nodes
from tests.servers.process import free_port
from tests.support.docs.pages import ROOT


def scraped(url: str, **headers: str) -> dict[str, Any]:
    """The families of a node's metrics, by name."""
    with urlopen(Request(f"{url}/metrics", headers=headers), timeout=30) as answer:
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def total(families: dict[str, Any], family: str, suffix: str = "", **labels: str) -> float:
    """The sum of a family's samples that have these labels."""
    name = family + suffix
    found = [
        sample.value for sample in families[family].samples
        if sample.name == name and all(sample.labels.get(label) == value for label, value in labels.items())
    ]  # fmt: skip
    return sum(found)


def test_requests_are_counted_by_route_and_outcome(nodes: Nodes) -> None:
    """A route and its outcome are labels; a session, a tenant, a path and an invented method are not."""
    url = nodes.url_of("node0")
    for path, method in (("/v1/none/trip-42-secret", "GET"), ("/healthz", "PURGE"), ("/healthz", "GET")):
        try:
            urlopen(Request(url + path, method=method), timeout=30).close()
        except HTTPError as error:
            error.close()
    families = scraped(url)
    duration = "http_server_request_duration_seconds"
    assert total(families, duration, "_count", http_route="/healthz", http_request_method="GET", http_response_status_code="200") == 1
    assert total(families, duration, "_count", http_request_method="_OTHER", error_type="method_not_allowed") == 1
    assert total(families, duration, "_count", http_route="", error_type="no_route") == 1
    assert total(families, "http_server_active_requests") == 1  # This very one.
    with urlopen(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    assert "trip-42" not in text and "perdure_tenant" not in text and "PURGE" not in text
    assert total(families, "perdure_server_turns_free") == 255 and "process_resident_memory_bytes" in families
    bounds = {sample.labels["le"] for sample in families[duration].samples if sample.name.endswith("_bucket")}
    assert {"0.001", "0.25", "+Inf"} <= bounds and len(bounds) == len(SECONDS) + 1


def test_metrics_have_a_port_of_their_own(tmp_path: Path) -> None:
    """There they need no credential, and nothing else is served; on the other port they are no more."""
    port = free_port()
    nodes = Nodes(tmp_path, options=("--metrics-port", str(port)))
    try:
        nodes.start()
        assert "http_server_request_duration_seconds" in scraped(f"http://127.0.0.1:{port}")
        for url in (f"{nodes.url_of('node0')}/metrics", f"http://127.0.0.1:{port}/v1/sessions"):
            with pytest.raises(HTTPError) as refused:
                urlopen(url, timeout=30)
            refused.value.close()
            assert refused.value.code == 404
    finally:
        nodes.stop()


ENGINE = """
import asyncio, sys
from opentelemetry import metrics
from opentelemetry.sdk.resources import Resource
from perdure.service.observe import exposition
exposition.install(Resource.create({"service.name": "perdure"}))
import perdure
from perdure import op, Event

async def main():
    async with perdure.open(f"sqlite:///{sys.argv[1]}/store.db") as store:
        for number in range(70):
            await store.append(f"s{number % 3}", Event("x", None, (op.add("/n", 1),)))
        await asyncio.gather(*[store.append(f"g{number}", Event("x")) for number in range(40)])
        view = await store.read("s0")
        await store.append("s0", Event("x", None, (op.set("/b", 1),)))
        await store.append("s0", Event("x", None, (op.set("/a", 1),)), expect=view.version, on_conflict="merge")

asyncio.run(main())
print(exposition.exposed("")[0].decode())
"""


def test_the_engine_is_measured_in_a_node(tmp_path: Path) -> None:
    """Its calls, its commits, how many went together, how long the engine took, and over how many a write was rebased."""
    ran = subprocess.run([sys.executable, "-c", ENGINE, str(tmp_path)], capture_output=True, text=True, check=True)
    families = {family.name: family for family in text_string_to_metric_families(ran.stdout)}
    assert total(families, "perdure_commits", "_total") > 40
    assert total(families, "perdure_operation_duration_seconds", "_count", operation="append") > 40
    assert total(families, "perdure_group_size", "_sum") > total(families, "perdure_group_size", "_count")
    assert total(families, "perdure_engine_append_duration_seconds", "_count") > 0
    assert total(families, "perdure_rebase_depth", "_sum") == 1


def metrics_of(path: str) -> set[str]:
    """The values of the constants of telemetry.py that this module makes instruments of."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / "src" / "perdure" / path).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("create_") and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Attribute):
                names.add(getattr(telemetry, argument.attr))
            elif isinstance(argument, ast.Name) and hasattr(telemetry, argument.id):
                names.add(getattr(telemetry, argument.id))
    return names


def test_the_page_has_every_metric() -> None:
    """The table of docs/observe.md names each metric of nodes with its unit, and no other one; every metric stands in one of two tables."""
    here = metrics_of("service/observe/metrics.py") | {telemetry.TURNS_FREE, telemetry.TURNS_WAITING}
    library = metrics_of("telemetry.py")
    page = (ROOT / "docs" / "observe.md").read_text()
    there = set(re.findall(r"^\| `((?:perdure|http)\.[a-z_.]+)` ", page, re.MULTILINE))
    assert there == {name for name in here | library if name.startswith(("http.server.", "perdure.server."))}
    assert set(BUCKETS) <= here | library
