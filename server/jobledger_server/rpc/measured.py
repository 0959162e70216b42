"""Calls as gRFC A66 measures them: how many, how long, with what status, and their bytes."""

from collections import Counter
from time import perf_counter
from typing import Any

import grpc

from jobledger_server.telemetry.instruments import LATENCY_SECONDS, MESSAGE_BYTES, Histogram

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

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.seconds: dict[Key, Histogram] = {}
        self.sent: dict[Key, Histogram] = {}
        self.received: dict[Key, Histogram] = {}

    def begin(self, method: str, context: Context) -> "MeasuredCall":
        """Count a call, and return its context."""
        self.started[method] += 1
        return MeasuredCall(context)

    def end(self, method: str, call: "MeasuredCall") -> None:
        """Count the status of a call, its duration and its bytes."""
        key = method, STATUSES.get(call.status, "UNKNOWN")
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

    __slots__ = ("_context", "begun", "received", "sent", "status")

    def __init__(self, context: Context) -> None:
        self._context = context
        self.begun = perf_counter()
        self.received = self.sent = 0
        self.status: object = grpc.StatusCode.CANCELLED
        """A call is cancelled unless it ends otherwise."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def write(self, message: Any) -> Any:
        """Write a message, as the context does."""
        self.sent += size_of(message)
        return self._context.write(message)

    async def read(self) -> Any:
        """Read a message, as the context does."""
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            self.received += size_of(message)
        return message


def size_of(message: Any) -> int:
    """Return the bytes of a message, which may be serialized."""
    if type(message) is bytes:
        return len(message)
    return 0 if isinstance(message, Exception) else int(message.ByteSize())
