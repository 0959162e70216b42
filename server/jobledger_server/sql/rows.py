"""Converts rows to values of the domain, and back.

The columns of a table have the names and the order of the fields; `_COMPUTED` has those that
differ. So a new field of a job needs a column of the same name in the same position. Parameters are
rows of a table of their own.
"""

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from msgspec.structs import replace

from jobledger_server.domain.groups import COUNT_FIELDS
from jobledger_server.domain.job import (
    CONTENT,
    NO_PAYLOADS,
    NO_STREAMS,
    REPORT_FIELDS,
    Asset,
    AssetLink,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobStatus,
    Payloads,
    Phase,
    UnknownPhase,
)
from jobledger_server.domain.leases import deadline
from jobledger_server.domain.queues import Queue, QueueName
from jobledger_server.sql.history import (
    DELETION_COLUMNS,
    HISTORY_COLUMNS,
    children_from_text,
    children_to_text,
    deletion_from_row,
    job_after_start,
    transitions_from_row,
)
from jobledger_server.sql.tables import (
    OUTCOME_COLUMNS,
    STATE,
    NewSeq,
    assets,
    attempts,
)
from jobledger_server.store import Change, Claimable, StoredJob

Row = tuple[Any, ...]
"""One row to write. Its values are in the order of a given list of columns."""

_LINK_FIELDS = AssetLink.__struct_fields__

_STATUS = {status.value: status for status in JobStatus}

_PHASE: Mapping[int | None, Phase | None] = {None: None, **{phase.value: phase for phase in Phase}}

MOVE_COLUMNS = ("queue_id", "updates", "priority", "schedule_time")
"""The columns that only an update of a job that is not started changes."""

FIXED_COLUMNS = (
    "id",
    "group_id",
    "parameters_bytes",
    "request_id",
    "traceparent",
    "create_time",
    "origin_job_id",
    *(name for name in CONTENT if name not in MOVE_COLUMNS),
)
"""The columns of a job that only its deletion changes: it frees the request id."""

REPORT_COLUMNS = (*REPORT_FIELDS, "change_seq")
"""The columns that a report or a new asset changes. No index is on any of them, so that PostgreSQL
need not add to the indexes (a HOT update)."""


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
    "children": lambda job: children_to_text(job.children),
    "output_streams": lambda job: json.dumps(job.output_streams) if job.output_streams else None,
    "last_error_reason": lambda job: job.last_error and job.last_error.reason,
    "last_error_message": lambda job: job.last_error and job.last_error.message,
    "error_reason": lambda job: job.error and job.error.reason,
    "error_message": lambda job: job.error and job.error.message,
}
"""The columns of `jobs` that are computed from the job. HISTORY_COLUMNS, OUTCOME_COLUMNS and
`change_seq` are not, nor are they fields of the job. The database has `queue_id`."""


class JobRows:
    """Makes rows of some columns of `jobs`."""

    def __init__(self, columns: Iterable[str]) -> None:
        names = list(columns)
        history = [name for name in names if name in HISTORY_COLUMNS]
        computed = [name for name in names if name in _COMPUTED]
        fields = [name for name in names if name in Job.__struct_fields__ and name not in computed]
        outcome = [name for name in names if name in OUTCOME_COLUMNS]
        self.columns = (*fields, *computed, *history, *outcome, "change_seq")
        """The columns, in the order of a row's values."""
        self._fields = attrgetter(*fields)
        self._computed = [_COMPUTED[name] for name in computed]
        self._history = len(history)
        self._outcome = bool(outcome)

    def row(
        self,
        job: Job,
        change_seq: NewSeq | None,
        history: Sequence[Any] = (),
        outcome: Payloads = NO_PAYLOADS,
    ) -> Row:
        """Make a row, with HISTORY_COLUMNS and OUTCOME_COLUMNS if they are among the columns.

        `change_seq` is that of a change that the row is written with; None if there is none.
        """
        computed = [value(job) for value in self._computed]
        ended = (outcome.result, outcome.error_details) if self._outcome else ()
        return (*self._fields(job), *computed, *history[: self._history], *ended, change_seq)


_JOB_COLUMNS = tuple(column.name for column in STATE)
_QUEUE_ID, _CHANGE_SEQ = map(_JOB_COLUMNS.index, ("queue_id", "change_seq"))
_STATUS_COLUMN, _PHASE_COLUMN, _LABELS_COLUMN, _STREAMS_COLUMN, _CHILDREN_COLUMN = map(
    _JOB_COLUMNS.index, ("status", "phase", "labels", "output_streams", "children")
)

job_rows = JobRows(_JOB_COLUMNS)
"""Makes rows of new jobs, without their `queue_id`."""

_QUEUE_NAME_AND_OWNER = itemgetter(
    *map(job_rows.columns.index, ("job_type", "priority", "fairness_key", "user_id"))
)


def queue_of_row(row: Row) -> QueueName:
    """Return the name of the queue of a new job."""
    job_type, priority, fairness_key, user_id = _QUEUE_NAME_AND_OWNER(row)
    return QueueName(job_type, priority, fairness_key or user_id)


end_rows = JobRows(
    name
    for name in (*_JOB_COLUMNS, *OUTCOME_COLUMNS)
    if name not in (*FIXED_COLUMNS, *MOVE_COLUMNS, *DELETION_COLUMNS)
)
"""Makes rows of the columns that can change between an update and the deletion, for jobs that have
ended."""

state_rows = JobRows(
    name for name in end_rows.columns if name not in ("complete_time", *OUTCOME_COLUMNS)
)
"""Makes rows of the same columns, but for those that an end sets. SQLite writes an index again
whose condition reads a column that is set, even to the value that it has."""

deletion_rows = JobRows(
    name
    for name in (*_JOB_COLUMNS, *OUTCOME_COLUMNS)
    if name == "request_id" or name not in (*FIXED_COLUMNS, *MOVE_COLUMNS)
)
"""Makes rows of all that can change, for jobs that are deleted. They may have changed, too."""

move_rows = JobRows(
    name
    for name in (*_JOB_COLUMNS, *OUTCOME_COLUMNS)
    if name == "request_id" or name not in FIXED_COLUMNS
)
"""Makes rows of all that can change, for jobs that are updated, without their `queue_id`. They may
have been started, ended and deleted, too."""

count_rows = JobRows((*COUNT_FIELDS, "change_seq"))
"""Makes rows of the columns that a group's counts change, which are in no index."""

group_rows = JobRows((*end_rows.columns, "updates"))
"""Makes rows of all that can change of a group until its deletion."""

report_rows = JobRows(REPORT_COLUMNS)
"""Makes rows of the columns that a report changes, also one that only renews the lease."""

KEPT_COLUMNS = (*HISTORY_COLUMNS, "change_seq")
"""The columns that keep their values where a row has NULL."""


def job_from_row(row: Sequence[Any]) -> Job:
    """Make a Job from a row of STATE."""
    *fields, last_reason, last_message, reason, message = row
    fields[_STATUS_COLUMN] = _STATUS[fields[_STATUS_COLUMN]]
    fields[_PHASE_COLUMN] = _PHASE.get(fields[_PHASE_COLUMN], UnknownPhase.UNKNOWN)
    fields[_LABELS_COLUMN] = _labels(fields[_LABELS_COLUMN])
    children = fields[_CHILDREN_COLUMN]
    if children is not None:
        fields[_CHILDREN_COLUMN] = children_from_text(children)
    streams = fields[_STREAMS_COLUMN]
    fields[_STREAMS_COLUMN] = NO_STREAMS if streams is None else json.loads(streams)
    del fields[_QUEUE_ID : _CHANGE_SEQ + 1]  # those that are not fields of a job
    return Job(*(*fields, _error(last_reason, last_message), _error(reason, message)))


def _error(reason: str | None, message: str | None) -> JobError | None:
    return None if reason is None or message is None else JobError(reason, message)


def stored_job_from_row(row: Sequence[Any]) -> StoredJob:
    """Make a StoredJob from a row of STATE, and its payloads if they follow."""
    columns = len(_JOB_COLUMNS)
    job = job_from_row(row[:columns])
    transitions = tuple(transitions_from_row(job, row).values())
    return StoredJob(job, transitions, Payloads(*row[columns:]))


def change_from_row(row: Sequence[Any]) -> Change:
    """Make the job's latest change, without its transition, from a row of STATE."""
    return Change(job_from_row(row), seq=row[_CHANGE_SEQ])


def queues_from_rows(rows: Iterable[Sequence[Any]]) -> list[Queue]:
    """Make the queues of rows of QUEUE_COLUMNS."""
    return [Queue(QueueName(*row[:3]), *row[3:]) for row in rows]


def ready_in_order(queues: Sequence[QueueName], rows: Iterable[Sequence[Any]]) -> list[Claimable]:
    """Return the jobs of these rows in the order of their queues, which has one entry a job.

    A queue may have fewer: others claimed them meanwhile, or they are overdue.
    """
    ready: defaultdict[QueueName, deque[Claimable]] = defaultdict(deque)
    for row in rows:
        job = Claimable(*row)
        ready[job.queue].append(job)
    return [ready[name].popleft() for name in queues if ready[name]]


def recorded_change(row: Sequence[Any], seq: int) -> Change:
    """Make the job's change at `seq` from a row of STATE.

    It is the job's latest change, its first transition, or its deletion.
    """
    job = job_from_row(row)
    delete_seq, delete_time = deletion_from_row(row)
    if seq == delete_seq and delete_time is not None:
        last = replace(job, version=job.version + 1, update_time=delete_time)
        return Change(last, seq, deleted=True)
    transition = transitions_from_row(job, row).get(seq)
    if transition is None:
        return Change(job, seq)
    if seq != row[_CHANGE_SEQ]:
        job = job_after_start(job, transition, row)
    return Change(job, seq, (transition,))


PARAMETERS, CHECKPOINT = 1, 2
"""The values of the column `kind`."""


ATTEMPT_COLUMNS = tuple(attempts.c.keys())

_attempt_fields = attrgetter(
    *(name for name in ATTEMPT_COLUMNS if name in Attempt.__struct_fields__)
)


def attempt_row(attempt: Attempt) -> Row:
    """Make a row of ATTEMPT_COLUMNS from an attempt that ended."""
    *fields, outcome = _attempt_fields(attempt)
    error = attempt.error
    return (*fields, outcome.value, error and error.reason, error and error.message)


def attempt_from_row(row: Sequence[Any]) -> Attempt:
    """Make an Attempt from a whole row of `attempts`."""
    *values, reason, message = row
    fields = dict(zip(ATTEMPT_COLUMNS, values, strict=False))
    fields["outcome"] = AttemptOutcome(fields["outcome"])
    return Attempt(**fields, error=_error(reason, message))


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
