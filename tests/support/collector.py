"""An OpenTelemetry collector that keeps what it is sent."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

PATIENCE = 30.0


class Collector:
    """Serves OTLP at `endpoint` during its `with` block.

    With `odd` it answers the first metrics with these trailing metadata.
    """

    def __init__(self, odd: Sequence[tuple[str, bytes]] = ()) -> None:
        self.odd = odd
        self._changed = threading.Condition()
        self._spans: list[Any] = []
        self._metrics: dict[str, Any] = {}
        self.resources: list[dict[str, str]] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        add_TraceServiceServicer_to_server(_Traces(self), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    @property
    def spans(self) -> list[Any]:
        """All spans that have come, in the order in which they ended."""
        with self._changed:
            return sorted(self._spans, key=lambda span: span.end_time_unix_nano)

    @property
    def metrics(self) -> dict[str, Any]:
        """The newest data of each metric."""
        with self._changed:
            return dict(self._metrics)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until what has come satisfies a condition."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), "the collector was not sent it"

    def take_spans(self, request: Any) -> None:
        with self._changed:
            for resource in request.resource_spans:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    self._spans += scope.spans
            self._changed.notify_all()

    def take_metrics(self, request: Any) -> None:
        with self._changed:
            for resource in request.resource_metrics:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_metrics:
                    self._metrics |= {metric.name: metric for metric in scope.metrics}
            self._changed.notify_all()


class _Metrics(MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        if odd := self._collector.odd:
            self._collector.odd = ()
            context.set_trailing_metadata(odd)
            context.abort(grpc.StatusCode.UNAVAILABLE, "odd")
        self._collector.take_metrics(request)
        return metrics_pb.ExportMetricsServiceResponse()


class _Traces(TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._collector.take_spans(request)
        return trace_pb.ExportTraceServiceResponse()


def attributes(of: Any) -> dict[str, Any]:
    """Return the attributes of a span, a data point or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
