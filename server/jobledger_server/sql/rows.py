"""Between rows and the domain's values. The order of a table's columns is read here only."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from msgspec.structs import replace

from jobledger_server.domain.job import (
    Asset,
    AssetLink,
    Job,
    JobError,
    JobStatus,
    Micros,
    Transition,
)
from jobledger_server.domain.leases import deadline
from jobledger_server.sql.tables import jobs
from jobledger_server.store import Change

Row = tuple[Any, ...]
"""One row to write, its values in the order of the columns named beside it."""

_STATUS = {status.value: status for status in JobStatus}

_CHANGE_SEQ = jobs.c.keys().index("change_seq")

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
    "outcome_digest",
    "change_seq",
)
"""What can change of a job. The rest never does."""

REPORT_COLUMNS = (
    "progress",
    "progress_message",
    "update_time",
    "lease_duration",
    "lease_expire_time",
    "deadline",
    "version",
    "change_seq",
)
"""What a report changes of a job: few of the indexes are about any of it."""

JOB_COLUMNS = (
    "id",
    "user_id",
    "job_type",
    "parameters",
    "labels",
    "request_id",
    "create_time",
    "max_attempts",
    "queue_timeout",
    "run_timeout",
    *MUTABLE_COLUMNS,
)

TRANSITION_COLUMNS = (
    "job_id",
    "version",
    "from_status",
    "to_status",
    "attempt",
    "actor",
    "reason",
    "time",
    "change_seq",
    "progress",
    "progress_message",
    "worker_id",
    "lease_expire_time",
)

ASSET_COLUMNS = (
    "id",
    "job_id",
    "user_id",
    "asset_type",
    "url",
    "storage_path",
    "file_size",
    "create_time",
    "request_id",
)

TOMBSTONE_COLUMNS = (
    "job_id",
    "user_id",
    "job_type",
    "status",
    "labels",
    "version",
    "create_time",
    "delete_time",
    "change_seq",
)


def labels_from_text(text: str) -> dict[str, str]:
    """Read labels as the database keeps them."""
    return {} if text == "{}" else json.loads(text)


def labels_to_text(labels: Mapping[str, str]) -> str:
    """Write labels as the database keeps them."""
    return f"{{{', '.join([_label_to_text(key, labels[key]) for key in labels])}}}"


# A few labels are those of nearly all jobs.
@lru_cache(maxsize=4096)
def _label_to_text(key: str, value: str) -> str:
    return f"{json.dumps(key)}: {json.dumps(value)}"


def _labels(value: str | dict[str, str]) -> dict[str, str]:
    """Take labels of a row: text from the driver; SQLAlchemy has read them already."""
    return labels_from_text(value) if isinstance(value, str) else value


def job_from_row(row: Sequence[Any]) -> Job:
    """Make a Job of a row of the whole `jobs` table."""
    (
        job_id,
        user_id,
        job_type,
        status,
        progress,
        progress_message,
        error_reason,
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
        outcome_digest,
        _change_seq,
        error_message,
        error_details,
        parameters,
        result,
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
        labels=_labels(labels),
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
        outcome_digest=outcome_digest,
    )


def history_from_row(row: Sequence[Any]) -> tuple[Job, Transition | None]:
    """Make a Job, and one of its steps if it has any, of rows of both tables side by side."""
    job, step = row[: len(jobs.c)], row[len(jobs.c) :]
    return job_from_row(job), None if step[0] is None else transition_from_row(step)


def change_from_row(row: Sequence[Any], as_of: int = 0) -> Change:
    """Make the change that a row of the whole `jobs` table stands for."""
    return Change(job_from_row(row), seq=row[_CHANGE_SEQ], as_of=as_of)


def job_row(job: Job, change_seq: int) -> Row:
    """Make a row of JOB_COLUMNS."""
    return (
        job.id,
        job.user_id,
        job.job_type,
        job.parameters,
        labels_to_text(job.labels),
        job.request_id,
        job.create_time,
        job.max_attempts,
        job.queue_timeout,
        job.run_timeout,
        *mutable_row(job, change_seq),
    )


def mutable_row(job: Job, change_seq: int) -> Row:
    """Make a row of MUTABLE_COLUMNS."""
    error = job.error
    return (
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
        job.outcome_digest,
        change_seq,
    )


def report_row(job: Job, change_seq: int) -> Row:
    """Make a row of REPORT_COLUMNS."""
    return (
        job.progress,
        job.progress_message,
        job.update_time,
        job.lease_duration,
        job.lease_expire_time,
        deadline(job),
        job.version,
        change_seq,
    )


_BESIDE_REPORTS = attrgetter(
    "status",
    "attempt",
    "releases",
    "worker_id",
    "start_time",
    "complete_time",
    "queue_expire_time",
    "run_expire_time",
    "cancel_request_time",
    "cancel_reason",
    "result",
    "error",
    "outcome_digest",
)


def only_reported(before: Job, after: Job) -> bool:
    """Whether nothing differs but what is in REPORT_COLUMNS."""
    return bool(_BESIDE_REPORTS(before) == _BESIDE_REPORTS(after))


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
        outcome_digest=None,
    )


def transition_row(step: Transition, job: Job, change_seq: int) -> Row:
    """Make a row of TRANSITION_COLUMNS of a step and the job as it stood after it."""
    return (
        step.job_id,
        step.version,
        step.from_status.value,
        step.to_status.value,
        step.attempt,
        step.actor,
        step.reason,
        step.time,
        change_seq,
        job.progress,
        job.progress_message,
        job.worker_id,
        job.lease_expire_time,
    )


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


def asset_row(asset: Asset) -> Row:
    """Make a row of ASSET_COLUMNS."""
    link = asset.link
    return (
        asset.id,
        asset.job_id,
        asset.user_id,
        link.asset_type,
        link.url,
        link.storage_path,
        link.file_size,
        asset.create_time,
        asset.request_id,
    )


def tombstone_from_row(row: Sequence[Any], as_of: int) -> Change:
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
        labels=_labels(labels),
        version=version,
        create_time=create_time,
        update_time=delete_time,
        queue_timeout=Micros(0),
    )
    return Change(job, change_seq, deleted=True, as_of=as_of)


def tombstone_row(job: Job, change_seq: int) -> Row:
    """Make a row of TOMBSTONE_COLUMNS of a deleted job."""
    return (
        job.id,
        job.user_id,
        job.job_type,
        job.status.value,
        labels_to_text(job.labels),
        job.version,
        job.create_time,
        job.update_time,
        change_seq,
    )
