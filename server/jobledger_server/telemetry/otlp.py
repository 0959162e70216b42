"""Metrics and spans for an OpenTelemetry collector, sent over OTLP.

OpenTelemetry's own variables (`OTEL_*`) set what `--otlp` does not: headers, certificates, the
sampler, the interval, attributes of the resource. Its libraries are an extra and are imported only
here.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from jobledger_server.telemetry.instruments import Histogram, Metric, Readings, Value
from jobledger_server.telemetry.prometheus import MetricsUnavailable
from jobledger_server.telemetry.traces import Traces

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

CLOSE_SECONDS = 2.0
"""How long the process waits at its end for the collector to take the last metrics and spans."""

INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
"""OpenTelemetry's variable of the milliseconds between two exports."""

MAX_INTERVAL = 2**31 - 1

log = logging.getLogger("jobledger.metrics")


@asynccontextmanager
async def sending_spans(endpoint: str) -> AsyncIterator[Traces]:
    """Yield what makes spans, and send these to the collector during the block.

    Raises MetricsUnavailable.
    """
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise MetricsUnavailable(
            "OpenTelemetry needs its libraries: pip install 'jobledger[otel]'"
        ) from None
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    try:
        yield Traces(provider.get_tracer("jobledger"))
    finally:
        _run_for(CLOSE_SECONDS, provider.shutdown)


@asynccontextmanager
async def sending_metrics(endpoint: str, readings: Readings) -> AsyncIterator[None]:
    """Send the metrics to the collector during the block, regularly and at its end.

    Raises MetricsUnavailable.
    """
    # `sending_spans` comes first, and says so if they are missing.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )

    exporter, resource = OTLPMetricExporter(endpoint), _resource()
    interval = _interval()
    begun, stop = time.time_ns(), threading.Event()

    def send() -> None:
        try:
            exporter.export(_metrics_data(readings, resource, begun))
        except Exception as error:  # noqa: BLE001
            # The collector is another program, and may answer anything.
            log.warning("metrics_not_sent", extra={"cause": repr(error)})

    def run() -> None:
        while not stop.wait(interval):
            send()
        send()
        exporter.shutdown()

    thread = threading.Thread(target=run, name="otlp", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(CLOSE_SECONDS)


def _interval() -> float:
    """Return the seconds between two exports."""
    text = os.environ.get(INTERVAL) or "60000"
    if not (text.isdecimal() and 0 < int(text) <= MAX_INTERVAL):
        raise MetricsUnavailable(f"{INTERVAL}={text} is not a number of milliseconds")
    return int(text) / 1000


@cache
def _resource() -> "Resource":
    """Return what spans and metrics come from: this process, as the variables name it."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    found = Resource.create()
    # Else a collector could not distinguish servers, nor the processes of one server.
    ours = {"service.instance.id": str(found.attributes.get("service.instance.id") or uuid.uuid4())}
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        ours["service.name"] = "jobledger"
    return found.merge(Resource(ours))


def _metrics_data(readings: Readings, resource: "Resource", begun: int) -> "MetricsData":
    from opentelemetry.sdk.metrics import export  # noqa: PLC0415
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

    now = time.time_ns()
    cumulative = export.AggregationTemporality.CUMULATIVE

    def point(labels: dict[str, str], value: Value) -> Any:
        if not isinstance(value, Histogram):
            return export.NumberDataPoint(labels, begun, now, value)
        buckets = tuple(value.buckets)
        return export.HistogramDataPoint(
            labels,
            begun,
            now,
            sum(buckets),
            value.sum,
            buckets,
            value.boundaries,
            # They are not known: OpenTelemetry's values for an empty histogram.
            min=float("inf"),
            max=float("-inf"),
        )

    def converted(metric: Metric[Any], values: list[tuple[tuple[str, ...], Value]]) -> Any:
        points = [
            point(dict(zip(metric.labels, labels, strict=True)), value) for labels, value in values
        ]
        match metric.kind:
            case "counter":
                return export.Sum(points, cumulative, is_monotonic=True)
            case "gauge":
                return export.Gauge(points)
            case "histogram":
                return export.Histogram(points, cumulative)

    metrics = [
        export.Metric(metric.name, metric.description, metric.unit, converted(metric, values))
        for metric, values in readings()
        if values
    ]
    scope = export.ScopeMetrics(InstrumentationScope("jobledger"), metrics, schema_url="")
    return export.MetricsData([export.ResourceMetrics(resource, [scope], schema_url="")])


def _run_for(seconds: float, function: Callable[[], object]) -> None:
    """Run the function, for at most `seconds`: a collector may not answer."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
