"""The domain's values to messages."""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1 import asset_pb2, job_pb2, job_service_pb2, worker_service_pb2
from jobledger_server.domain.machine import Decision
from jobledger_server.domain.model import Asset, Instant, Job, JobStatus, Transition
from jobledger_server.store import Change
from jobledger_server.wire.encoding import (
    answer,
    brief_job_bytes,
    first_field,
    job_bytes,
    with_job,
)

_STATUSES = {s: job_pb2.JobStatus.Value(f"JOB_STATUS_{s.value}") for s in JobStatus}


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


def watch_message(job: Job, transitions: Sequence[Transition]) -> bytes:
    kind = job_service_pb2.WatchJobResponse
    rest = kind(transitions=map(transition_message, transitions)) if transitions else b""
    return cast("bytes", answer(kind, job, rest))


def heartbeat_message(message: bytes) -> bytes:
    """Return a heartbeat with the job of a `watch_message`."""
    return first_field(message) + _HEARTBEAT


_HEARTBEAT = job_service_pb2.WatchJobResponse(heartbeat=True).SerializeToString()


def change_message(change: Change, resume_token: str) -> bytes:
    rest = job_service_pb2.WatchJobsResponse(
        transitions=map(transition_message, change.transitions),
        deleted=change.deleted,
        resume_token=resume_token,
    )
    job = change.job
    data = _deleted_message(job).SerializeToString() if change.deleted else job_bytes(job)
    return cast("bytes", with_job(job_service_pb2.WatchJobsResponse, data, rest))


def report_message(decision: Decision) -> worker_service_pb2.ReportProgressResponse:
    kind = worker_service_pb2.ReportProgressResponse
    return with_job(kind, brief_job_bytes(decision.job), _outcome(kind, *_told(decision)))


def progress_message(decision: Decision) -> worker_service_pb2.UpdateProgressResponse:
    kind = worker_service_pb2.UpdateProgressResponse
    return answer(kind, decision.job, _outcome(kind, *_told(decision)))


def _told(decision: Decision) -> tuple[bool, bool]:
    return decision.applied, decision.job.cancel_request_time is not None


@cache
def _outcome(kind: Any, applied: bool, cancel_requested: bool) -> bytes:  # noqa: FBT001
    """Serialize what a report is told beside its job. There are four of it of each kind."""
    data: bytes = kind(applied=applied, cancel_requested=cancel_requested).SerializeToString()
    return data


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
