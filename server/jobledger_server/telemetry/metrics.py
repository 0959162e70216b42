"""Metrics for Prometheus, whose values are read at each scrape."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


class MetricsUnavailable(Exception):
    """The metrics cannot be served. The message says why."""


Metrics = Mapping[str, tuple[str, Callable[[], float | Mapping[str, float]]]]
"""By name: a description, and a function that returns the value, or the values by `kind`. A metric
whose name ends with `_total` is a counter, any other a gauge."""


@contextmanager
def serving_metrics(listen: str, metrics: Metrics) -> Iterator[None]:
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
    registry = prometheus.CollectorRegistry()
    registry.register(_Collector(metrics))
    prometheus.ProcessCollector(registry=registry)
    try:
        server, thread = prometheus.start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, ValueError, OverflowError) as error:
        raise MetricsUnavailable(f"cannot serve metrics on {listen}: {error}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.metrics_core import (  # noqa: PLC0415
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        for name, (description, value) in self._metrics.items():
            family: Any = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            now = value()
            if isinstance(now, Mapping):
                metric = family(name, description, labels=["kind"])
                for kind, count in now.items():
                    metric.add_metric([kind], count)
                yield metric
            else:
                yield family(name, description, value=now)
