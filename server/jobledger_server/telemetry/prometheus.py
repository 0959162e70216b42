"""Metrics for Prometheus, whose values are read at each scrape."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from jobledger_server.telemetry.instruments import Histogram, Registry

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

REQUEST_SECONDS = 10
"""How long a connection may take to send its request: each has a thread and a descriptor."""


class MetricsUnavailable(Exception):
    """The metrics cannot be served or sent. The message says why."""


@contextmanager
def serving_metrics(listen: str, registry: Registry[Any]) -> Iterator[None]:
    """Serve `http://HOST:PORT/metrics` during the block, in a thread.

    Raises MetricsUnavailable.
    """
    try:
        # An optional extra.
        import prometheus_client as prometheus  # noqa: PLC0415
    except ImportError:
        raise MetricsUnavailable(
            "metrics need their library: pip install 'jobledger[metrics]'"
        ) from None
    host, _, port = listen.rpartition(":")
    collectors = prometheus.CollectorRegistry()
    collectors.register(_Collector(registry))
    prometheus.ProcessCollector(registry=collectors)
    try:
        server, thread = prometheus.start_http_server(int(port), host.strip("[]"), collectors)
    except (OSError, ValueError, OverflowError) as error:
        raise MetricsUnavailable(f"cannot serve metrics on {listen}: {error}") from None
    handler: Any = server.RequestHandlerClass
    handler.timeout = REQUEST_SECONDS
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    def __init__(self, registry: Registry[Any]) -> None:
        self._registry = registry

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.metrics_core import (  # noqa: PLC0415
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        families: dict[str, Any] = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        for metric, values in self._registry.read():
            labels = [label.replace(".", "_") for label in metric.labels]
            family = families[metric.kind](
                metric.prometheus_name, metric.description, labels=labels
            )
            for label_values, value in values:
                if isinstance(value, Histogram):
                    bounds = (*map(repr, value.boundaries), "+Inf")
                    counts = accumulate(value.buckets)
                    family.add_metric(label_values, list(zip(bounds, counts)), value.sum)  # noqa: B905
                else:
                    family.add_metric(label_values, value)
            yield family
