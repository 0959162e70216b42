"""Builds what a worker sends on a stream of Work.

Each function raises a TypeError or a ValueError that names the argument.
"""

from collections.abc import Iterable

from jobledger.core.conversion import JsonObject, build, to_duration, to_struct
from jobledger.core.models import Asset, Job, JobError, JobStatus
from jobledger.v1.worker_service_pb2 import (
    AssetUpdate,
    FinishUpdate,
    HeldJob,
    JobUpdate,
    ProgressUpdate,
    ReleaseUpdate,
    WorkHello,
)


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


def progress_update(job: Job, progress: int | None, message: str | None) -> JobUpdate:
    """Report progress."""
    update = build(ProgressUpdate, progress=progress, progress_message=message)
    return JobUpdate(job_id=job.id, attempt=job.attempt, progress=update)


def asset_update(job: Job, asset: Asset, request_id: str) -> JobUpdate:
    """Link an asset."""
    update = build(AssetUpdate, asset=asset.to_proto(), request_id=request_id)
    return JobUpdate(job_id=job.id, attempt=job.attempt, asset=update)


def finish_update(
    job: Job,
    status: JobStatus,
    *,
    result: JsonObject | None,
    error: JobError | None,
    assets: Iterable[Asset],
) -> JobUpdate:
    """Finish a job."""
    update = build(
        FinishUpdate,
        status=status.to_proto(),
        result=to_struct(result, "result"),
        error=None if error is None else error.to_proto(),
        assets=[asset.to_proto() for asset in assets],
    )
    return JobUpdate(job_id=job.id, attempt=job.attempt, finish=update)


def release_update(job: Job) -> JobUpdate:
    """Release a job."""
    return JobUpdate(job_id=job.id, attempt=job.attempt, release=ReleaseUpdate())
