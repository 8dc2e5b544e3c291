"""The spool's depth and age as metrics, and the caller's trace context across the spool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import perdure
from perdure import Event

WITH_SDK = """
import asyncio, sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import perdure
from perdure import Event

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))


def gauges():
    found = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name.startswith("perdure.spool."):
                    (point,) = metric.data.data_points
                    assert list(point.attributes) == ["perdure.spool"] and point.attributes["perdure.spool"].endswith("spool.db")
                    found[metric.name.removeprefix("perdure.spool.")] = point.value
    return found


async def until(condition):
    while not condition(gauges()):
        await asyncio.sleep(0.05)


async def main(spool):
    async with perdure.open("memory:", spool=spool) as store:
        heads = store._core.backend.heads

        async def away(sessions):
            raise perdure.Unavailable("injected")

        store._core.backend.heads = away
        for number in range(3):
            await store.enqueue("s", Event("step", "x" * 100))
        await until(lambda found: found.get("entries") == 3 and found["bytes"] > 300 and found["age"] > 1)
        store._core.backend.heads = heads
        await until(lambda found: found == {"entries": 0, "bytes": 0, "age": 0})
    print("seen")

asyncio.run(main(sys.argv[1]))
"""


def test_depth_and_age_are_measured(spool: str) -> None:
    """While the store is away the gauges show how many writes wait, their bytes and the age of the oldest; shipped, all are 0 again."""
    pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")
    run = subprocess.run([sys.executable, "-W", "error", "-c", WITH_SDK, spool], capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout) == (0, "seen\n"), run.stderr


async def test_the_callers_trace_context_is_kept(spool: str, tmp_path: Path) -> None:
    """A commit carries the trace context of the call that enqueued it, though it is shipped elsewhere."""
    context = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=True, trace_flags=TraceFlags(1))
    async with perdure.open("memory:", spool=spool) as store:
        with trace.use_span(NonRecordingSpan(context)):
            await (await store.enqueue("s", Event("x"))).receipt()
        await (await store.enqueue("s", Event("x"))).receipt()
        found = [commit.trace async for commit in store.history("s")]
        assert found == ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None]
