"""Metrics for Prometheus, read when it asks: nothing is counted on the way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


class MetricsUnavailable(Exception):
    """The metrics cannot be served; the message says why."""


Metrics = Mapping[str, tuple[str, Callable[[], float | Mapping[str, float]]]]
"""By name: what it is, and its value now, or its values by `kind`. A name that ends with
`_total` only grows."""


@contextmanager
def serving_metrics(listen: str, metrics: Metrics) -> Iterator[None]:
    """Answer on `http://HOST:PORT/metrics` for as long as the block lasts, in a thread.

    Raises MetricsUnavailable.
    """
    try:
        # An extra, wanted only where it is used.
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

        for name, (meaning, value) in self._metrics.items():
            family: Any = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            now = value()
            if isinstance(now, Mapping):
                metric = family(name, meaning, labels=["kind"])
                for kind, number in now.items():
                    metric.add_metric([kind], number)
                yield metric
            else:
                yield family(name, meaning, value=now)
