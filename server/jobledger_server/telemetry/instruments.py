"""Metrics as the server keeps them: plain numbers, which exporters read when they need them.

Recording a value costs a fraction of a microsecond and takes no lock, so metrics are always on.
The event loop writes, and exporters read in their own threads: a value that is read may be one
call old, and counts never decrease.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar

Source = TypeVar("Source")

LATENCY_SECONDS = (
    *(0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005),
    *(0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13),
    *(0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
"""Boundaries of the latency of calls, as gRFC A66 has them."""

MESSAGE_BYTES = (0.0, *(float(2**power) for power in (10, 11, 12, *range(14, 33, 2))))
"""Boundaries of the bytes of messages, as gRFC A66 has them."""

JOB_SECONDS = (
    *(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 3600.0 * 3),
    *(3600.0 * 6, 3600.0 * 12, 86400.0, 86400.0 * 7),
)
"""Boundaries of the times of jobs: a few milliseconds to a week."""

COUNTS = tuple(float(2**power) for power in range(11))
"""Boundaries of small numbers: 1 to 1,024."""


class Histogram:
    """How often a value was in each range, and the sum of all values."""

    __slots__ = ("boundaries", "buckets", "sum")

    def __init__(self, boundaries: tuple[float, ...]) -> None:
        self.boundaries = boundaries
        """The upper bounds of all buckets but the last, which has none."""
        self.buckets = [0] * (len(boundaries) + 1)
        self.sum = 0.0

    def record(self, value: float) -> None:
        """Count a value."""
        self.buckets[bisect_left(self.boundaries, value)] += 1
        self.sum += value


def histograms(boundaries: tuple[float, ...]) -> dict[Any, Histogram]:
    """Return a histogram for each value of the labels, which exists once it is looked up."""
    return defaultdict(partial(Histogram, boundaries))


Value = float | Histogram
Values = Value | Mapping[str, Value] | Mapping[tuple[str, ...], Value]
"""One value, or one for each value of the labels."""


class Metric(NamedTuple, Generic[Source]):
    """What is measured, in OpenTelemetry's terms, and how it is read from its source."""

    name: str
    """With dots, as OpenTelemetry names metrics: `jobledger.feed.seq`."""

    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    """In UCUM: `s`, `By`, `{call}`."""

    description: str
    labels: tuple[str, ...]
    read: Callable[[Source], Values]

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, by OpenTelemetry's rules: with the unit, and `_total`."""
        name = self.name.replace(".", "_")
        suffix = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        if not name.endswith(suffix):
            name += suffix
        return f"{name}_total" if self.kind == "counter" else name


Reading = tuple[Metric[Any], list[tuple[tuple[str, ...], Value]]]
"""A metric, and its values at one time by the values of its labels."""

Readings = Callable[[], Iterator[Reading]]
"""Yields all metrics of a server with their present values, to every exporter."""


def readings(metrics: tuple[Metric[Source], ...], source: Source) -> Iterator[Reading]:
    """Yield these metrics with their present values."""
    for metric in metrics:
        yield metric, _values(metric.read(source))


def _values(values: Values) -> list[tuple[tuple[str, ...], Value]]:
    if not isinstance(values, Mapping):
        return [((), values)]
    # Copied at once, because the event loop may add an entry during the iteration.
    items: list[tuple[str | tuple[str, ...], Value]] = list(values.items())
    return [((labels,) if isinstance(labels, str) else labels, value) for labels, value in items]
