"""Converts rows to values of the domain, and back.

The columns of a table have the names and the order of the fields; `_COMPUTED` has those that
differ. So a new field of a job needs a column of the same name in the same position, and its
name in `FIXED_COLUMNS` if it never changes.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from jobledger_server.sql.tables import assets, job_transitions, jobs, tombstones
from jobledger_server.store import Change

Row = tuple[Any, ...]
"""One row to write. Its values are in the order of a given list of columns."""

_LINK_FIELDS = AssetLink.__struct_fields__

_STATUS = {status.value: status for status in JobStatus}

FIXED_COLUMNS = (
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
)
"""The columns of a job that never change."""

REPORT_COLUMNS = (
    "progress",
    "progress_message",
    "update_time",
    "lease_duration",
    "lease_expire_time",
    "version",
    "deadline",
    "change_seq",
)
"""The columns that a report changes. Few indexes are on any of them."""


def labels_from_text(text: str) -> dict[str, str]:
    """Read labels from their form in the database."""
    return {} if text == "{}" else json.loads(text)


def labels_to_text(labels: Mapping[str, str]) -> str:
    """Write labels in their form in the database."""
    return json.dumps(labels) if labels else "{}"


def _labels(value: str | dict[str, str]) -> dict[str, str]:
    """Return the labels of a row: the driver returns text, SQLAlchemy has parsed it already."""
    return labels_from_text(value) if isinstance(value, str) else value


_COMPUTED: Mapping[str, Callable[[Job], Any]] = {
    "status": lambda job: job.status.value,
    "labels": lambda job: labels_to_text(job.labels),
    "deadline": deadline,
    "error_reason": lambda job: job.error and job.error.reason,
    "error_message": lambda job: job.error and job.error.message,
    "error_details": lambda job: job.error and job.error.details,
}
"""The columns of `jobs` that are not a field of the job. `change_seq` is another: it is not part of
the job at all."""


class JobRows:
    """Makes rows of some columns of `jobs`."""

    def __init__(self, columns: Iterable[str]) -> None:
        names = [name for name in columns if name != "change_seq"]
        fields = [name for name in names if name not in _COMPUTED]
        computed = [name for name in names if name in _COMPUTED]
        self.columns = (*fields, *computed, "change_seq")
        """The columns, in the order of a row's values."""
        self._fields = attrgetter(*fields)
        self._computed = [_COMPUTED[name] for name in computed]

    def row(self, job: Job, change_seq: int) -> Row:
        return (*self._fields(job), *[value(job) for value in self._computed], change_seq)


_JOB_COLUMNS = tuple(jobs.c.keys())
_CHANGE_SEQ = _JOB_COLUMNS.index("change_seq")
_STATUS_COLUMN, _LABELS_COLUMN = map(_JOB_COLUMNS.index, ("status", "labels"))

job_rows = JobRows(_JOB_COLUMNS)
"""Makes whole rows."""

mutable_rows = JobRows(name for name in _JOB_COLUMNS if name not in FIXED_COLUMNS)
"""Makes rows of the columns that can change."""

report_rows = JobRows(REPORT_COLUMNS)
"""Makes rows of the columns that a report changes."""

_NOT_REPORTED = attrgetter(
    *(name for name in Job.__struct_fields__ if name not in (*FIXED_COLUMNS, *REPORT_COLUMNS))
)


def only_reported(before: Job, after: Job) -> bool:
    """Return whether the jobs differ only in fields of REPORT_COLUMNS."""
    return bool(_NOT_REPORTED(before) == _NOT_REPORTED(after))


def job_from_row(row: Sequence[Any]) -> Job:
    """Make a Job from a whole row of `jobs`."""
    *fields, _deadline, _change_seq, reason, message, details, parameters, result = row
    fields[_STATUS_COLUMN] = _STATUS[fields[_STATUS_COLUMN]]
    fields[_LABELS_COLUMN] = _labels(fields[_LABELS_COLUMN])
    error = None if message is None else JobError(reason, message, details)
    return Job(*(*fields, error, parameters, result))


def history_from_row(row: Sequence[Any]) -> tuple[Job, Transition | None]:
    """Make a Job, and one of its transitions if it has any, from a row of both tables joined."""
    job, transition = row[: len(jobs.c)], row[len(jobs.c) :]
    return job_from_row(job), None if transition[0] is None else transition_from_row(transition)


def change_from_row(row: Sequence[Any], as_of: int = 0) -> Change:
    """Make a Change from a whole row of `jobs`."""
    return Change(job_from_row(row), seq=row[_CHANGE_SEQ], as_of=as_of)


TRANSITION_COLUMNS = tuple(job_transitions.c.keys())


def transition_row(transition: Transition, job: Job, change_seq: int) -> Row:
    """Make a row of TRANSITION_COLUMNS from a transition and the job after it."""
    return (
        transition.job_id,
        transition.version,
        transition.from_status.value,
        transition.to_status.value,
        transition.attempt,
        transition.actor,
        transition.reason,
        transition.time,
        change_seq,
        job.progress,
        job.progress_message,
        job.worker_id,
        job.lease_expire_time,
    )


def transition_from_row(row: Sequence[Any]) -> Transition:
    """Make a Transition from a whole row of `job_transitions`."""
    values = dict(zip(TRANSITION_COLUMNS, row, strict=True))
    fields = {name: values[name] for name in Transition.__struct_fields__}
    fields["from_status"] = _STATUS[values["from_status"]]
    fields["to_status"] = _STATUS[values["to_status"]]
    return Transition(**fields)


_TRANSITION_SEQ = TRANSITION_COLUMNS.index("change_seq")


def transition_seq(row: Sequence[Any]) -> int:
    """Return the sequence number of a whole row of `job_transitions`."""
    seq: int = row[_TRANSITION_SEQ]
    return seq


def job_after_start(job: Job, row: Sequence[Any]) -> Job:
    """Return the job as it was after its start, from its newest state and the transition's row.

    No other transition needs this: nothing but a deletion follows a terminal state, so the
    job's own row shows the job after that.
    """
    values = dict(zip(TRANSITION_COLUMNS, row, strict=True))
    transition = transition_from_row(row)
    lease_expire_time = values["lease_expire_time"]
    # If cancellation was requested before the start, the job only passes through PROCESSING, and
    # its lease expires at once. Times cannot be compared: a transaction that commits later may
    # have begun earlier.
    cancelled_before = lease_expire_time == transition.time
    return replace(
        job,
        status=transition.to_status,
        progress=values["progress"],
        progress_message=values["progress_message"],
        result=None,
        error=None,
        attempt=transition.attempt,
        releases=0,
        worker_id=values["worker_id"],
        update_time=transition.time,
        complete_time=None,
        lease_duration=Micros(lease_expire_time - transition.time),
        lease_expire_time=lease_expire_time,
        queue_expire_time=None,
        cancel_request_time=job.cancel_request_time if cancelled_before else None,
        cancel_reason=job.cancel_reason if cancelled_before else "",
        version=transition.version,
        outcome_digest=None,
    )


ASSET_COLUMNS = (*(name for name in Asset.__struct_fields__ if name != "link"), *_LINK_FIELDS)


def asset_from_row(row: Sequence[Any]) -> Asset:
    """Make an Asset from a whole row of `assets`."""
    values = dict(zip(assets.c.keys(), row, strict=True))
    link = AssetLink(*[values.pop(name) for name in _LINK_FIELDS])
    return Asset(link=link, **values)


asset_row: Callable[[Asset], Row] = attrgetter(
    *(f"link.{name}" if name in _LINK_FIELDS else name for name in ASSET_COLUMNS)
)
"""Makes a row of ASSET_COLUMNS."""

TOMBSTONE_COLUMNS = tuple(tombstones.c.keys())


def tombstone_row(job: Job, change_seq: int) -> Row:
    """Make a row of TOMBSTONE_COLUMNS from a deleted job."""
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


def tombstone_from_row(row: Sequence[Any], as_of: int) -> Change:
    """Make the deletion from a whole row of `tombstones`."""
    values = dict(zip(TOMBSTONE_COLUMNS, row, strict=True))
    job = Job(
        id=values["job_id"],
        user_id=values["user_id"],
        job_type=values["job_type"],
        status=_STATUS[values["status"]],
        labels=_labels(values["labels"]),
        version=values["version"],
        create_time=values["create_time"],
        update_time=values["delete_time"],
        queue_timeout=Micros(0),
    )
    return Change(job, values["change_seq"], deleted=True, as_of=as_of)
