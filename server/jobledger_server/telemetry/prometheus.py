"""Metrics for Prometheus, whose values are read at each scrape."""

import gzip
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from threading import BoundedSemaphore, Lock, Thread
from time import monotonic
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from jobledger_server.telemetry.instruments import Histogram, Readings
from jobledger_server.telemetry.process_metrics import ProcessMetrics

REQUEST_SECONDS = 10.0
"""How long a connection lasts at most: each has a thread and a descriptor."""

MAX_CONNECTIONS = 16
"""Connections at once. The next one ends the oldest."""

CACHE_SECONDS = 1.0
"""How old an answer may be. To make one takes up to 60 ms of a core."""

FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class MetricsUnavailable(Exception):
    """The metrics cannot be served or sent. The message says why."""


@asynccontextmanager
async def serving_metrics(listen: str, readings: Readings) -> AsyncIterator[None]:
    """Serve `http://HOST:PORT/metrics` during the block, in a thread.

    Raises MetricsUnavailable.
    """
    collectors = CollectorRegistry()
    collectors.register(_Collector(readings))
    collectors.register(ProcessMetrics())
    try:
        server = _Server(listen, lambda: generate_latest(collectors))
    except (OSError, ValueError, OverflowError) as error:
        raise MetricsUnavailable(f"cannot serve metrics on {listen}: {error}") from None
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """Serves each connection in a thread, a bounded number of them for a bounded time."""

    request_queue_size = 128

    def __init__(self, listen: str, render: Callable[[], bytes]) -> None:
        self._render = render
        self._rendering = Lock()
        self._pages = b"", b""
        self._stale = 0.0
        self._ends: dict[socket.socket, float] = {}
        """When each open connection has to end, the oldest first."""
        self._free = BoundedSemaphore(MAX_CONNECTIONS)
        name, _, port = listen.rpartition(":")
        host = name.strip("[]")
        found = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.address_family = found[0][0]
        super().__init__((host, int(port)), _Handler)

    def page(self, *, compressed: bool) -> bytes:
        """Return the metrics as Prometheus reads them."""
        with self._rendering:
            if monotonic() >= self._stale:
                page = self._render()
                self._pages = page, gzip.compress(page, compresslevel=1)
                self._stale = monotonic() + CACHE_SECONDS
            return self._pages[compressed]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection. If there are too many, end the oldest first."""
        for oldest in tuple(self._ends)[: len(self._ends) + 1 - MAX_CONNECTIONS]:
            _end(oldest)
        self._free.acquire()
        self._ends[request] = monotonic() + REQUEST_SECONDS
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End the connections that have lasted too long. Called every half second."""
        now = monotonic()
        for connection, end in tuple(self._ends.items()):
            if now >= end:
                _end(connection)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been served."""
        super().shutdown_request(request)
        del self._ends[request]
        self._free.release()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of any path with the metrics."""

    server: _Server

    def do_GET(self) -> None:
        compressed = "gzip" in self.headers.get("Accept-Encoding", "")
        page = self.server.page(compressed=compressed)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(page)))
        if compressed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


def _end(connection: socket.socket) -> None:
    """Have the thread of a connection end it: what it reads or writes fails."""
    with suppress(OSError):  # it has ended
        connection.shutdown(socket.SHUT_RDWR)


class _Collector(Collector):
    """Shows the metrics to Prometheus' library."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for metric, values in self._readings():
            labels = [label.replace(".", "_") for label in metric.labels]
            family = FAMILIES[metric.kind](
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
