"""The domain's values to messages."""

from collections.abc import Iterable

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1 import asset_pb2, job_pb2, job_service_pb2, worker_service_pb2
from jobledger_server.domain.machine import Decision
from jobledger_server.domain.model import Asset, Instant, Job, JobStatus, Payload, Transition
from jobledger_server.store import Change

_STATUSES = {s: job_pb2.JobStatus.Value(f"JOB_STATUS_{s.value}") for s in JobStatus}


def job_message(job: Job) -> job_pb2.Job:
    message = job_pb2.Job(
        id=job.id,
        user_id=job.user_id,
        job_type=job.job_type,
        status=_STATUSES[job.status],
        progress=job.progress,
        progress_message=job.progress_message,
        labels=job.labels,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        worker_id=job.worker_id,
        create_time=_time(job.create_time),
        start_time=_time(job.start_time),
        update_time=_time(job.update_time),
        complete_time=_time(job.complete_time),
        lease_expire_time=_time(job.lease_expire_time),
        queue_expire_time=_time(job.queue_expire_time),
        cancel_request_time=_time(job.cancel_request_time),
        cancel_reason=job.cancel_reason,
        run_expire_time=_time(job.run_expire_time),
        version=job.version,
    )
    if job.parameters is not None:
        _fill(message.parameters, job.parameters)
    if job.result is not None:
        _fill(message.result, job.result)
    if job.error is not None:
        message.error.reason = job.error.reason
        message.error.message = job.error.message
        if job.error.details is not None:
            _fill(message.error.details, job.error.details)
    return message


def asset_message(asset: Asset) -> asset_pb2.Asset:
    link = asset.link
    return asset_pb2.Asset(
        id=asset.id,
        job_id=asset.job_id,
        user_id=asset.user_id,
        asset_type=link.asset_type,
        url=link.url,
        storage_path=link.storage_path,
        file_size=link.file_size,
        create_time=_time(asset.create_time),
    )


def transition_message(step: Transition) -> job_pb2.JobTransition:
    return job_pb2.JobTransition(
        job_id=step.job_id,
        from_status=_STATUSES[step.from_status],
        to_status=_STATUSES[step.to_status],
        version=step.version,
        attempt=step.attempt,
        actor=step.actor,
        reason=step.reason,
        time=_time(step.time),
    )


def watch_message(
    job: Job, transitions: Iterable[Transition] = (), *, heartbeat: bool = False
) -> job_service_pb2.WatchJobResponse:
    return job_service_pb2.WatchJobResponse(
        job=job_message(job),
        transitions=map(transition_message, transitions),
        heartbeat=heartbeat,
    )


def change_message(change: Change, resume_token: str) -> job_service_pb2.WatchJobsResponse:
    return job_service_pb2.WatchJobsResponse(
        job=_deleted_message(change.job) if change.deleted else job_message(change.job),
        transitions=map(transition_message, change.transitions),
        deleted=change.deleted,
        resume_token=resume_token,
    )


def report_message(decision: Decision) -> worker_service_pb2.ReportProgressResponse:
    job = decision.job
    asked = job.cancel_request_time
    return worker_service_pb2.ReportProgressResponse(
        job=job_pb2.Job(
            id=job.id,
            status=_STATUSES[job.status],
            progress=job.progress,
            attempt=job.attempt,
            version=job.version,
            update_time=_time(job.update_time),
            lease_expire_time=_time(job.lease_expire_time),
            cancel_request_time=_time(asked),
            cancel_reason=job.cancel_reason,
        ),
        applied=decision.applied,
        cancel_requested=asked is not None,
    )


def _deleted_message(job: Job) -> job_pb2.Job:
    """Make the message of a deleted job: the same whether or not its contents are still known."""
    return job_pb2.Job(
        id=job.id,
        user_id=job.user_id,
        job_type=job.job_type,
        status=_STATUSES[job.status],
        labels=job.labels,
        create_time=_time(job.create_time),
        update_time=_time(job.update_time),
        version=job.version,
    )


def _time(instant: Instant | None) -> Timestamp | None:
    if instant is None:
        return None
    seconds, micros = divmod(instant, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def _fill(message: Struct, payload: Payload) -> None:
    message.SetInParent()  # an empty Struct is there all the same
    message.MergeFromString(payload)
