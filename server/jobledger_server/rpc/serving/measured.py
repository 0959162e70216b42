"""Calls as gRFC A66 measures them: how many, how long, with what status, and their bytes."""

from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any

import grpc

from jobledger_server.telemetry.instruments import LATENCY_SECONDS, MESSAGE_BYTES, Histogram
from jobledger_server.telemetry.traces import Traces

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Context = grpc.aio.ServicerContext[Any, Any]

STATUSES: dict[object, str] = {
    None: "OK",
    **{status: status.name for status in grpc.StatusCode},
    **{status.value[0]: status.name for status in grpc.StatusCode},
}
"""The names of statuses, by what a context may have as its code."""

Key = tuple[str, ...]
"""A method, as A66 writes it (`jobledger.v1.JobService/GetJob`), and a status."""


class CallMetrics:
    """The metrics of calls, by method and status."""

    def __init__(self, traces: Traces | None = None) -> None:
        self._traces = traces
        self.started: Counter[str] = Counter()
        self.seconds: dict[Key, Histogram] = {}
        self.sent: dict[Key, Histogram] = {}
        self.received: dict[Key, Histogram] = {}

    def begin(self, method: str, context: Context, *, traced: bool = True) -> "MeasuredCall":
        """Count a call, and return its context. It gets a span if it is `traced`."""
        self.started[method] += 1
        call = MeasuredCall(context)
        if traced and self._traces is not None:
            call.span = self._traces.begin(method, context.invocation_metadata() or ())
            call.traces = self._traces
        return call

    def end(self, method: str, call: "MeasuredCall") -> None:
        """Count the status of a call, its duration and its bytes."""
        status = STATUSES.get(call.status, "UNKNOWN")
        call.end_span(status)
        key = method, status
        seconds = self.seconds.get(key)
        if seconds is None:
            seconds = self.seconds[key] = Histogram(LATENCY_SECONDS)
            self.sent[key] = Histogram(MESSAGE_BYTES)
            self.received[key] = Histogram(MESSAGE_BYTES)
        seconds.record(perf_counter() - call.begun)
        self.sent[key].record(call.sent)
        self.received[key].record(call.received)


class MeasuredCall:
    """A call's context, which counts the bytes of messages."""

    __slots__ = ("_context", "begun", "received", "sent", "span", "status", "traces")

    def __init__(self, context: Context) -> None:
        self._context = context
        self.begun = perf_counter()
        self.received = self.sent = 0
        self.status: object = grpc.StatusCode.CANCELLED
        """A call is cancelled unless it ends otherwise."""
        self.span: Span | None = None
        self.traces: Traces | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def write(self, message: Any) -> Any:
        """Write a message, as the context does."""
        self.sent += size_of(message)
        if self.span is not None:
            self.end_span("OK")
        return self._context.write(message)

    async def read(self) -> Any:
        """Read a message, as the context does."""
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            self.received += size_of(message)
        return message

    def end_span(self, status: str) -> None:
        """End the call's span, if it has one that has not ended: that of a stream ends early."""
        if self.span is not None and self.traces is not None:
            self.traces.end(self.span, status)
            self.span = None


def size_of(message: Any) -> int:
    """Return the bytes of a message, which may be serialized."""
    if type(message) is bytes:
        return len(message)
    return 0 if isinstance(message, Exception) else int(message.ByteSize())
