"""Spans: one for each call, and for each job of a trace its wait and its run.

None lasts as long as a stream: the span of a stream ends with its first message. The spans of a job
are made when the job has started and finished, with the times that are stored, so that nothing is
kept while it runs and any server can make them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from jobledger_server.domain.job import Job, JobStatus
from jobledger_server.store import Change

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The statuses that are an error of the server, by OpenTelemetry's conventions."""

NANOS_PER_MICRO = 1000


class Traces:
    """Makes spans with a tracer."""

    def __init__(self, tracer: "Tracer") -> None:
        # An optional extra. A server that has a tracer has the rest.
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        self._tracer = tracer
        self._kinds = SpanKind
        self._error = StatusCode.ERROR
        self._none = Context()
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def begin(self, method: str, metadata: Collection[tuple[str, str | bytes]]) -> "Span":
        """Begin the span of a call, in the trace that its metadata names."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        return self._tracer.start_span(
            method,
            context=self._context(carrier),
            kind=self._kinds.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )

    def end(self, span: "Span", status: str) -> None:
        """End the span of a call."""
        span.set_attribute("rpc.response.status_code", status)
        if status in FAULTS:
            span.set_status(self._error)
        span.end()

    def committed(self, changes: Sequence[Change]) -> None:
        """Make the spans of what the changes have ended: a job's wait, or its run."""
        for change in changes:
            if change.transitions and change.job.traceparent:
                self._transition(change.job)

    def _transition(self, job: Job) -> None:
        if job.complete_time is None:
            # Until its time comes a scheduled job waits for no worker.
            self._span("wait", job, job.due_time, job.start_time)
        elif job.start_time is not None:
            self._span("run", job, job.start_time, job.complete_time)

    def _span(self, name: str, job: Job, begin: int, end: int | None) -> None:
        attributes: dict[str, str | int] = {
            "jobledger.job.id": job.id,
            "jobledger.job.type": job.job_type,
            "jobledger.job.status": job.status.value,
            "jobledger.job.attempt": job.attempt,
        }
        if job.error is not None:
            attributes["jobledger.job.reason"] = job.error.reason
        span = self._tracer.start_span(
            f"{name} {job.job_type}",
            context=self._context({"traceparent": job.traceparent}),
            attributes=attributes,
            start_time=begin * NANOS_PER_MICRO,
        )
        if job.status is JobStatus.FAILED:
            span.set_status(self._error)
        span.end(None if end is None else end * NANOS_PER_MICRO)

    def _context(self, carrier: Mapping[str, str]) -> "Context":
        return self._propagator.extract(carrier, self._none)
