"""Builds what a worker sends on a stream of Work.

Each function raises a TypeError or a ValueError that names the argument.
"""

from collections.abc import Iterable

from jobledger.core.conversion import build, to_duration, to_struct
from jobledger.core.models import Asset, Job
from jobledger.v1.worker_service_pb2 import (
    AssetUpdate,
    FinishUpdate,
    HeldJob,
    JobUpdate,
    OutputUpdate,
    ProgressUpdate,
    ReleaseUpdate,
    WorkHello,
)
from jobledger.worker.outcomes import STATUSES, Failed, Finish, Release, error_of, json_result
from jobledger.worker.session.reports import Report


def hello(
    worker_id: str, job_types: Iterable[str], lease: float, holding: Iterable[Job]
) -> WorkHello:
    """Greet the service, with the jobs that the worker still holds."""
    return build(
        WorkHello,
        worker_id=worker_id,
        job_types=job_types,
        lease_duration=to_duration(lease, "lease_duration"),
        holding=[HeldJob(job_id=job.id, attempt=job.attempt) for job in holding],
    )


def progress_update(job: Job, report: Report, number: int) -> JobUpdate:
    """Report progress. The number tells the service a late retry from a newer report."""
    update = build(
        ProgressUpdate,
        progress=report.progress,
        progress_message=report.message,
        checkpoint=to_struct(report.checkpoint, "checkpoint"),
        report_number=number,
    )
    return JobUpdate(job_id=job.id, attempt=job.attempt, progress=update)


def asset_update(job: Job, asset: Asset, request_id: str) -> JobUpdate:
    """Link an asset."""
    update = build(AssetUpdate, asset=asset.to_new_proto(), request_id=request_id)
    return JobUpdate(job_id=job.id, attempt=job.attempt, asset=update)


def output_update(job: Job, stream: str, data: bytes, content_type: str, number: int) -> JobUpdate:
    """Append to a stream of output. The number tells the service a retry from a new append."""
    update = OutputUpdate(stream=stream, data=data, content_type=content_type, number=number)
    return JobUpdate(job_id=job.id, attempt=job.attempt, output=update)


def finish_update(job: Job, outcome: Finish) -> JobUpdate:
    """Finish a job."""
    error = error_of(outcome)
    failed = outcome if isinstance(outcome, Failed) else None
    update = build(
        FinishUpdate,
        status=STATUSES[type(outcome)].to_proto(),
        result=to_struct(json_result(outcome), "result"),
        error=None if error is None else error.to_proto(),
        assets=[asset.to_new_proto() for asset in outcome.assets],
        retryable=failed is not None and failed.retryable,
        retry_delay=None if failed is None else to_duration(failed.retry_after, "retry_after"),
    )
    return JobUpdate(job_id=job.id, attempt=job.attempt, finish=update)


def release_update(job: Job, outcome: Release) -> JobUpdate:
    """Release a job."""
    update = ReleaseUpdate(delay=to_duration(outcome.after, "after"))
    return JobUpdate(job_id=job.id, attempt=job.attempt, release=update)
