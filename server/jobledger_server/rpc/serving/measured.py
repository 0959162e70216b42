"""Calls as gRFC A66 measures them: how many, how long, with what status, and their bytes."""

from collections import Counter
from time import perf_counter

import grpc

from jobledger_server.rpc.call import Call
from jobledger_server.telemetry.instruments import LATENCY_SECONDS, MESSAGE_BYTES, histograms
from jobledger_server.telemetry.traces import Traces

STATUSES: dict[object, str] = {
    None: "OK",
    **{status: status.name for status in grpc.StatusCode},
    **{status.value[0]: status.name for status in grpc.StatusCode},
}
"""The names of statuses, by what a context may have as its code."""


class CallMetrics:
    """The metrics of calls, by method and status.

    A method is written as A66 has it: `jobledger.v1.JobService/GetJob`.
    """

    def __init__(self, traces: Traces | None = None) -> None:
        self._traces = traces
        self.started: Counter[str] = Counter()
        self.seconds = histograms(LATENCY_SECONDS)
        self.sent = histograms(MESSAGE_BYTES)
        self.received = histograms(MESSAGE_BYTES)

    def begin(self, method: str, call: Call, *, traced: bool = True) -> None:
        """Count a call. It gets a span if it is `traced`."""
        self.started[method] += 1
        if traced and self._traces is not None:
            call.span = self._traces.begin(method, call.metadata)
            call.traces = self._traces

    def end(self, method: str, call: Call) -> None:
        """Count the status of a call, its duration and its bytes."""
        status = STATUSES.get(call.status, "UNKNOWN")
        call.end_span(status)
        key = method, status
        self.seconds[key].record(perf_counter() - call.begun)
        self.sent[key].record(call.sent)
        self.received[key].record(call.received)
