"""Spans, metrics and trace context: with an SDK every call is seen, without one nothing is made."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import perdure
import perdure.telemetry
from perdure import Event, op

WITH_SDK = """
import asyncio, sys
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import perdure
from perdure import Event, op

exporter = InMemorySpanExporter()
reader = InMemoryMetricReader()

def install():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))

async def main(url):
    install()
    async with perdure.open(url) as store:
        tracer = trace.get_tracer("caller")
        with tracer.start_as_current_span("turn") as turn:
            caller = turn.get_span_context()
            await store.append("s", Event("x", None, (op.add("/n", 1),)))
            async with store.edit("s") as draft:
                draft.state["a"] = 1
            await store.update("s", lambda draft: draft.add("/n", 1))
            await store.read("s")
            await store.read("s", consistency="eventual")
            info = store.cache_info()
            [commit async for commit in store.history("s")]
            [info async for info in store.list()]
            await store.configure("s", tags={"a": "b"})
            await store.fork("s", id="f")
            await store.append("f", Event("y", None, (op.set("/b", 1),)))
            await store.merge("f", into="s")
            await store.verify("s")
            await store.delete("f")
            try:
                await store.append("s", Event("x", None, (op.add("/a/b", 1),)))
            except perdure.Invalid:
                pass
            else:
                raise AssertionError
        await store.append("s", Event("outside"))
        commits = [commit async for commit in store.history("s")]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    names = {"append", "edit", "update", "read", "history", "list", "configure", "fork", "merge", "verify", "delete"}
    assert {"perdure." + name for name in names} <= spans.keys(), sorted(spans)
    inside = [span for span in exporter.get_finished_spans() if span.context.trace_id == caller.trace_id and span.name != "turn"]
    assert len(inside) >= len(names), inside
    for name in names - {"list"}:
        span = spans["perdure." + name]
        assert span.attributes["perdure.tenant"] == "default", span.attributes
        assert span.attributes["perdure.session"] in ("s", "f"), span.attributes
    failed = [span for span in inside if not span.status.is_ok and span.status.status_code.name == "ERROR"]
    assert [span.name for span in failed] == ["perdure.append"], failed
    for commit in commits[:-1]:
        version, trace_id, span_id, flags = commit.trace.split("-")
        assert (version, int(trace_id, 16), int(flags, 16) & 1) == ("00", caller.trace_id, 1), commit.trace
        assert int(span_id, 16) in {caller.span_id, *[span.context.span_id for span in inside]}
    assert commits[-1].trace is None or int(commits[-1].trace.split("-")[1], 16) != caller.trace_id
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = metric
    total = sum(point.value for point in found["perdure.commits"].data.data_points)
    assert total >= 5, total
    tiers = {point.attributes["tier"] for point in found["perdure.cache.hits"].data.data_points}
    assert tiers == {"memory"}, tiers
    cached = {name: sum(point.value for point in found["perdure.cache." + name].data.data_points) for name in ("hits", "misses", "bytes")}
    assert cached["hits"] >= info.hits - 1 > 0, (cached, info)
    assert cached["misses"] > 0, cached
    assert cached["bytes"] == 0, "the store is closed"
    assert "perdure.operation.duration" in found, sorted(found)
    print("seen", len(inside))

asyncio.run(main(sys.argv[1]))
"""


def test_with_an_sdk_every_call_is_seen(url: str) -> None:
    """Each public call is a span with tenant and session, failures are marked, commits are counted and carry the caller's trace."""
    pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")
    run = subprocess.run([sys.executable, "-W", "error", "-c", WITH_SDK, url], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("seen")


async def test_without_an_sdk_no_span_is_made(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of calls ask for no tracer, no meter and no span."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(perdure.telemetry.trace, "get_tracer", never)
    monkeypatch.setattr(metrics, "get_meter", never)
    monkeypatch.setattr(trace.NoOpTracer, "start_as_current_span", never)
    monkeypatch.setattr(trace.NoOpTracer, "start_span", never)

    async with perdure.open(url) as store:
        for number in range(150):
            await store.append("s", Event("x", number, (op.add("/n", 1),)))
        async with store.edit("s") as draft:
            draft.state["a"] = 1
        await store.read("s")
        assert {commit.trace async for commit in store.history("s")} == {None}


@pytest.mark.parametrize("flags", [0, 1])
async def test_the_callers_context_is_stored_without_an_sdk(url: str, flags: int) -> None:
    """A trace context that some middleware put there is stored on the commit as it is, and covered by the hash."""
    context = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=True, trace_flags=TraceFlags(flags))

    async with perdure.open(url) as store:
        with trace.use_span(NonRecordingSpan(context)):
            await store.append("s", Event("x"))
            async with store.edit("s") as draft:
                draft.state["a"] = 1
            await store.configure("s", tags={})
        await store.append("s", Event("x"))
        found = [commit.trace async for commit in store.history("s")]
        assert found == [f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{flags}"] * 3 + [None]
        await store.verify("s")


async def test_commits_of_one_batch_keep_the_contexts_of_their_callers(url: str) -> None:
    """What is encoded together belongs to different calls: each commit has the trace of its own."""
    contexts = [SpanContext(number, number, is_remote=True) for number in range(1, 9)]

    async def write(store: perdure.Store, context: SpanContext) -> None:
        with trace.use_span(NonRecordingSpan(context)):
            for _ in range(3):
                await store.append(f"s{context.trace_id}", Event("x"))

    async with perdure.open(url) as store:
        await asyncio.gather(*[write(store, context) for context in contexts])
        for context in contexts:
            found = {commit.trace async for commit in store.history(f"s{context.trace_id}")}
            assert found == {f"00-{context.trace_id:032x}-{context.span_id:016x}-00"}


ARCHIVING = """
import asyncio, sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import perdure
from perdure import Event

async def main(url, place):
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    async with perdure.open(url, archive=place) as store:
        for number in range(20):
            await store.append("s", Event("x", number))
        first = await store.compact("s", keep=5)
        second = await store.archive("s")
        await store.archive("s")
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = sum(point.value for point in metric.data.data_points if hasattr(point, "value"))
    assert found["perdure.archive.bytes"] == first.segment_bytes + second.segment_bytes > 0, (found, first, second)
    assert found["perdure.archive.commits"] == first.commits + second.commits, (found, first, second)

asyncio.run(main(*sys.argv[1:]))
"""


def test_what_goes_to_the_archive_is_metered(url: str, tmp_path: Path) -> None:
    """With an SDK the bytes and the commits of segments are counted, once each."""
    pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")
    command = [sys.executable, "-W", "error", "-c", ARCHIVING, url, f"file://{tmp_path}/archive"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
