"""All metrics of the process as Prometheus reads them: Perdure's, and those of the process and of Python."""

from __future__ import annotations

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from perdure import telemetry

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BUCKETS = {
    telemetry.REQUEST_DURATION: SECONDS, telemetry.DURATION: SECONDS, telemetry.APPEND_DURATION: SECONDS,
    telemetry.GROUP_SIZE: COUNTS, telemetry.REBASE_DEPTH: COUNTS,
}  # fmt: skip
"""The upper bounds of each histogram's buckets."""


def install(resource: Resource) -> None:
    """Collect the metrics of this process. Once: an SDK that is set already stays, and its metrics go where it sends them."""
    views = [View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds)) for name, bounds in BUCKETS.items()]
    reader = PrometheusMetricReader(disable_target_info=False)
    no_exemplars = AlwaysOffExemplarFilter()  # The reader shows none.
    metrics.set_meter_provider(MeterProvider([reader], resource=resource, exemplar_filter=no_exemplars, views=views))


def exposed(accept: str) -> tuple[bytes, str]:
    """The metrics, and their media type: Prometheus' text, or OpenMetrics where that is accepted. May take some milliseconds."""
    encode, media = choose_encoder(accept)
    return encode(REGISTRY), media
