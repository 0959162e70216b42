"""Between rows and the domain's values. The order of a table's columns is read here only."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobledger_server.domain.leases import deadline
from jobledger_server.domain.model import (
    Asset,
    AssetLink,
    Job,
    JobError,
    JobStatus,
    Micros,
    Transition,
)
from jobledger_server.store import Change

Values = dict[str, Any]
"""One row to write: values by column name."""

_STATUS = {status.value: status for status in JobStatus}

MUTABLE_COLUMNS = (
    "status",
    "progress",
    "progress_message",
    "result",
    "error_reason",
    "error_message",
    "error_details",
    "attempt",
    "releases",
    "worker_id",
    "start_time",
    "update_time",
    "complete_time",
    "lease_duration",
    "lease_expire_time",
    "queue_expire_time",
    "run_expire_time",
    "cancel_request_time",
    "cancel_reason",
    "deadline",
    "version",
    "end_digest",
    "change_seq",
)
"""What `job_to_update` writes; the rest of a job never changes."""


def job_from_row(row: Sequence[Any]) -> Job:
    """Make a Job of a row of the whole `jobs` table."""
    (
        job_id,
        user_id,
        job_type,
        status,
        progress,
        progress_message,
        parameters,
        result,
        error_reason,
        error_message,
        error_details,
        labels,
        attempt,
        max_attempts,
        releases,
        worker_id,
        request_id,
        create_time,
        start_time,
        update_time,
        complete_time,
        lease_duration,
        lease_expire_time,
        queue_timeout,
        queue_expire_time,
        run_timeout,
        run_expire_time,
        cancel_request_time,
        cancel_reason,
        _deadline,
        version,
        end_digest,
        _change_seq,
    ) = row
    return Job(
        id=job_id,
        user_id=user_id,
        job_type=job_type,
        status=_STATUS[status],
        progress=progress,
        progress_message=progress_message,
        parameters=parameters,
        result=result,
        error=None
        if error_message is None
        else JobError(error_reason, error_message, error_details),
        labels=labels,
        attempt=attempt,
        max_attempts=max_attempts,
        releases=releases,
        worker_id=worker_id,
        request_id=request_id,
        create_time=create_time,
        start_time=start_time,
        update_time=update_time,
        complete_time=complete_time,
        lease_duration=lease_duration,
        lease_expire_time=lease_expire_time,
        queue_timeout=queue_timeout,
        queue_expire_time=queue_expire_time,
        run_timeout=run_timeout,
        run_expire_time=run_expire_time,
        cancel_request_time=cancel_request_time,
        cancel_reason=cancel_reason,
        version=version,
        end_digest=end_digest,
    )


def change_from_row(row: Sequence[Any]) -> Change:
    """Make the change that a row of the whole `jobs` table stands for."""
    return Change(job_from_row(row), seq=row[-1])


def job_to_values(job: Job, change_seq: int) -> Values:
    """Make a whole row of `jobs`."""
    return {
        "id": job.id,
        "user_id": job.user_id,
        "job_type": job.job_type,
        "parameters": job.parameters,
        "labels": job.labels,
        "request_id": job.request_id,
        "create_time": job.create_time,
        "max_attempts": job.max_attempts,
        "queue_timeout": job.queue_timeout,
        "run_timeout": job.run_timeout,
        **_mutable_values(job, change_seq),
    }


def job_to_update(job: Job, change_seq: int) -> Values:
    """Make the part of a row that can change, with the id as `b_id`."""
    return {"b_id": job.id, **_mutable_values(job, change_seq)}


def _mutable_values(job: Job, change_seq: int) -> Values:
    error = job.error
    values = (
        job.status.value,
        job.progress,
        job.progress_message,
        job.result,
        error.reason if error else None,
        error.message if error else None,
        error.details if error else None,
        job.attempt,
        job.releases,
        job.worker_id,
        job.start_time,
        job.update_time,
        job.complete_time,
        job.lease_duration,
        job.lease_expire_time,
        job.queue_expire_time,
        job.run_expire_time,
        job.cancel_request_time,
        job.cancel_reason,
        deadline(job),
        job.version,
        job.end_digest,
        change_seq,
    )
    return dict(zip(MUTABLE_COLUMNS, values, strict=True))


def transition_from_row(row: Sequence[Any]) -> Transition:
    """Make a Transition of a row of the whole `job_transitions` table."""
    job_id, version, from_status, to_status, attempt, actor, reason, time, *_ = row
    return Transition(
        job_id=job_id,
        from_status=_STATUS[from_status],
        to_status=_STATUS[to_status],
        version=version,
        attempt=attempt,
        actor=actor,
        reason=reason,
        time=time,
    )


def step_place(row: Sequence[Any]) -> int:
    """Return the place in the feed of a row of the whole `job_transitions` table."""
    place: int = row[8]
    return place


def job_after_start(job: Job, row: Sequence[Any]) -> Job:
    """Make the job as it stood after its start, of its newest state and the step's whole row.

    That of another step is never asked for: nothing but a deletion follows the
    end, so a job's row shows how it stood after that.
    """
    step = transition_from_row(row)
    *_, progress, progress_message, worker_id, lease_expire_time = row
    # Only a job that passes through on the way to its end is asked to be cancelled before it
    # starts, and only that one is held for no time. Times do not tell: a transaction that
    # commits later can have begun sooner.
    asked_before = lease_expire_time == step.time
    return replace(
        job,
        status=step.to_status,
        progress=progress,
        progress_message=progress_message,
        result=None,
        error=None,
        attempt=step.attempt,
        releases=0,
        worker_id=worker_id,
        update_time=step.time,
        complete_time=None,
        lease_duration=Micros(lease_expire_time - step.time),
        lease_expire_time=lease_expire_time,
        queue_expire_time=None,
        cancel_request_time=job.cancel_request_time if asked_before else None,
        cancel_reason=job.cancel_reason if asked_before else "",
        version=step.version,
        end_digest=None,
    )


def transition_to_values(step: Transition, job: Job, change_seq: int) -> Values:
    """Make a row of `job_transitions` of a step and the job as it stood after it."""
    return {
        "job_id": step.job_id,
        "version": step.version,
        "from_status": step.from_status.value,
        "to_status": step.to_status.value,
        "attempt": step.attempt,
        "actor": step.actor,
        "reason": step.reason,
        "time": step.time,
        "change_seq": change_seq,
        "progress": job.progress,
        "progress_message": job.progress_message,
        "worker_id": job.worker_id,
        "lease_expire_time": job.lease_expire_time,
    }


def asset_from_row(row: Sequence[Any]) -> Asset:
    """Make an Asset of a row of the whole `assets` table."""
    (
        asset_id,
        job_id,
        user_id,
        asset_type,
        url,
        storage_path,
        file_size,
        create_time,
        request_id,
    ) = row
    return Asset(
        id=asset_id,
        job_id=job_id,
        user_id=user_id,
        link=AssetLink(asset_type, url, storage_path, file_size),
        create_time=create_time,
        request_id=request_id,
    )


def asset_to_values(asset: Asset) -> Values:
    """Make a row of `assets`."""
    link = asset.link
    return {
        "id": asset.id,
        "job_id": asset.job_id,
        "user_id": asset.user_id,
        "asset_type": link.asset_type,
        "url": link.url,
        "storage_path": link.storage_path,
        "file_size": link.file_size,
        "create_time": asset.create_time,
        "request_id": asset.request_id,
    }


def tombstone_from_row(row: Sequence[Any]) -> Change:
    """Make the deletion that a row of the whole `tombstones` table stands for."""
    (
        job_id,
        user_id,
        job_type,
        status,
        labels,
        version,
        create_time,
        delete_time,
        change_seq,
    ) = row
    job = Job(
        id=job_id,
        user_id=user_id,
        job_type=job_type,
        status=_STATUS[status],
        labels=labels,
        version=version,
        create_time=create_time,
        update_time=delete_time,
        queue_timeout=Micros(0),
    )
    return Change(job, change_seq, deleted=True)


def tombstone_to_values(job: Job, change_seq: int) -> Values:
    """Make a row of `tombstones` of a deleted job."""
    return {
        "job_id": job.id,
        "user_id": job.user_id,
        "job_type": job.job_type,
        "status": job.status.value,
        "labels": job.labels,
        "version": job.version,
        "create_time": job.create_time,
        "delete_time": job.update_time,
        "change_seq": change_seq,
    }
