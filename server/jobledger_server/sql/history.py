"""Transitions, which are kept in the row of their job: a job has two at most.

The start is the first, and has columns for what later changes overwrite. Nothing but a deletion
follows a terminal state, so the job's own columns describe the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from jobledger_server.domain.job import Job, JobStatus, Micros, Transition
from jobledger_server.domain.state_machine import TERMINAL, VERSION_OF_START, stall_expire_time
from jobledger_server.sql.tables import jobs

HISTORY_COLUMNS = (
    "start_seq",
    "start_actor",
    "start_worker_id",
    "start_progress",
    "start_progress_message",
    "start_lease_expire_time",
    "end_actor",
)
"""The columns of a job's transitions. Once written, none changes."""

NO_HISTORY: Sequence[Any] = (None,) * len(HISTORY_COLUMNS)
"""The values of HISTORY_COLUMNS where no transition is to be written."""

_FIRST = tuple(jobs.c.keys()).index(HISTORY_COLUMNS[0])
_END_SEQ = tuple(jobs.c.keys()).index("change_seq")


def with_transition(
    history: Sequence[Any], transition: Transition, job: Job, seq: int
) -> Sequence[Any]:
    """Return the values of HISTORY_COLUMNS with a transition added, which led to the job."""
    *start, end_actor = history
    if transition.to_status in TERMINAL:
        return (*start, transition.actor)
    return (
        seq,
        transition.actor,
        job.worker_id,
        job.progress,
        job.progress_message,
        job.lease_expire_time,
        end_actor,
    )


def transitions_from_row(job: Job, row: Sequence[Any]) -> Mapping[int, Transition]:
    """Return the job's transitions by their sequence numbers, from its whole row of `jobs`."""
    history = row[_FIRST : _FIRST + len(HISTORY_COLUMNS)]
    start_seq, start_actor, end_actor = history[0], history[1], history[-1]
    found: dict[int, Transition] = {}
    if start_seq is not None and job.start_time is not None:
        found[start_seq] = Transition(
            job_id=job.id,
            from_status=JobStatus.QUEUED,
            to_status=JobStatus.PROCESSING,
            version=VERSION_OF_START,
            attempt=1,
            actor=start_actor,
            reason="",
            time=job.start_time,
        )
    if job.complete_time is not None:
        found[row[_END_SEQ]] = Transition(
            job_id=job.id,
            from_status=JobStatus.PROCESSING,
            to_status=job.status,
            version=job.version,
            attempt=job.attempt,
            actor=end_actor,
            reason=job.error.reason if job.error else "",
            time=job.complete_time,
        )
    return found


def job_after_start(job: Job, start: Transition, row: Sequence[Any]) -> Job:
    """Return the job as it was after its start, from its newest state and whole row."""
    _, _, worker_id, progress, message, lease_expire_time, _ = row[
        _FIRST : _FIRST + len(HISTORY_COLUMNS)
    ]
    # If cancellation was requested before the start, the job only passes through PROCESSING, and
    # its lease expires at once. Times cannot be compared: a transaction that commits later may
    # have begun earlier.
    cancelled_before = lease_expire_time == start.time
    return replace(
        job,
        status=start.to_status,
        progress=progress,
        progress_message=message,
        result=None,
        error=None,
        attempt=start.attempt,
        releases=0,
        worker_id=worker_id,
        update_time=start.time,
        complete_time=None,
        lease_duration=Micros(lease_expire_time - start.time),
        lease_expire_time=lease_expire_time,
        progress_time=start.time,
        stall_expire_time=stall_expire_time(job.stall_timeout, start.time),
        queue_expire_time=None,
        cancel_request_time=job.cancel_request_time if cancelled_before else None,
        cancel_reason=job.cancel_reason if cancelled_before else "",
        version=start.version,
        outcome_digest=None,
    )
