"""The trace of a job's creator, continued by each attempt, if the worker uses OpenTelemetry."""

from collections.abc import Iterator
from contextlib import contextmanager

from jobledger.core.models import Job
from jobledger.core.tracing import tracing


@contextmanager
def continued_trace(job: Job) -> Iterator[None]:
    """Make the block a span of the trace that created the job, or of a new one."""
    if not tracing():
        yield
        return
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

    parent = tracecontext.TraceContextTextMapPropagator().extract(
        {"traceparent": job.traceparent}, Context()
    )
    attributes: dict[str, str | int] = {
        "jobledger.job.id": job.id,
        "jobledger.job.type": job.job_type,
        "jobledger.job.attempt": job.attempt,
    }
    with trace.get_tracer("jobledger").start_as_current_span(
        f"process {job.job_type}",
        context=parent,
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ):
        yield
