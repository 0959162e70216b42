"""Metrics as they are kept here: plain numbers, which prometheus_client reads when it is scraped.

Whoever counts needs no library. prometheus_client is imported only where metrics are served.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeVar

from jobledger.core.status_server import Page

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

Source = TypeVar("Source")

Values = float | Mapping[str, float] | Mapping[tuple[str, ...], float]
"""One value, or one for each value of the labels."""


class Metric(NamedTuple, Generic[Source]):
    """What is measured, and how it is read from its source."""

    name: str
    """In Prometheus: `jobledger_gateway_streams`."""
    kind: Literal["counter", "gauge"]
    description: str
    labels: tuple[str, ...]
    read: Callable[[Source], Values]


class MetricsCollector(Generic[Source]):
    """Shows metrics to a registry of prometheus_client: `registry.register(collector)`.

    Args:
        metrics: what is measured.
        source: what it is read from, at each scrape.
    """

    def __init__(self, metrics: tuple[Metric[Source], ...], source: Source) -> None:
        self._metrics = metrics
        self._source = source

    def collect(self) -> "Iterator[Family]":
        """Yield the metrics with their present values."""
        from prometheus_client import metrics_core  # noqa: PLC0415

        families: Final[Mapping[str, Any]] = {
            "counter": metrics_core.CounterMetricFamily,
            "gauge": metrics_core.GaugeMetricFamily,
        }
        for metric in self._metrics:
            family = families[metric.kind](metric.name, metric.description, labels=metric.labels)
            for labels, value in _labelled(metric.read(self._source)):
                family.add_metric(labels, value)
            yield family


def _labelled(values: Values) -> list[tuple[tuple[str, ...], float]]:
    if not isinstance(values, Mapping):
        return [((), values)]
    # Copied at once: the program may add an entry during a scrape in another thread.
    items: list[tuple[str | tuple[str, ...], float]] = list(values.items())
    return [((labels,) if isinstance(labels, str) else labels, value) for labels, value in items]


def metrics_page(collector: MetricsCollector[Any]) -> Callable[[], Page]:
    """Return what makes the page of these metrics, and of those of the process.

    Raises ImportError without prometheus_client.
    """
    from prometheus_client import (  # noqa: PLC0415
        CONTENT_TYPE_PLAIN_0_0_4,
        CollectorRegistry,
        ProcessCollector,
        generate_latest,
    )

    registry: Any = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return lambda: Page(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
