"""Transitions and the deletion, which are kept in the row of their job: it has two and one at most.

The first transition has columns for what later changes overwrite. Nothing but the deletion follows
a terminal state, and it overwrites nothing, so the job's own columns describe the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from jobledger_server.domain.children import Children
from jobledger_server.domain.decisions import queue_expire_time
from jobledger_server.domain.groups import PASS_ON
from jobledger_server.domain.job import Instant, Job, JobStatus, Micros, Phase, Transition
from jobledger_server.domain.state_machine import TERMINAL, stall_expire_time, version_of_start
from jobledger_server.sql.tables import NewSeq, jobs

START_COLUMNS = (
    "start_seq",
    "start_actor",
    "start_worker_id",
    "start_progress",
    "start_progress_message",
    "start_lease_expire_time",
    "start_children",
)
"""The columns of a job's first transition."""

DELETION_COLUMNS = ("delete_seq", "delete_time")
"""The columns of its deletion."""

HISTORY_COLUMNS = (*START_COLUMNS, "end_actor", *DELETION_COLUMNS)
"""The columns of a job's transitions and of its deletion. Once written, none changes."""

SEQ_COLUMNS = ("start_seq", "change_seq", "delete_seq")
"""The columns that name the rows of a job in the feed: its first transition, its latest change but
its deletion, and its deletion."""

NO_HISTORY: Sequence[Any] = (None,) * len(HISTORY_COLUMNS)
"""The values of HISTORY_COLUMNS where nothing is to be written."""

_CHILDREN = msgspec.json.Decoder(Children)

_FIRST = tuple(jobs.c.keys()).index(HISTORY_COLUMNS[0])
_END_SEQ = tuple(jobs.c.keys()).index("change_seq")


def with_transition(
    history: Sequence[Any], transition: Transition, job: Job, seq: NewSeq
) -> Sequence[Any]:
    """Return the values of HISTORY_COLUMNS with a transition added, which led to the job."""
    *start, _, delete_seq, delete_time = history
    if transition.to_status in TERMINAL:
        return (*start, transition.actor, delete_seq, delete_time)
    return (
        seq,
        transition.actor,
        job.worker_id,
        job.progress,
        job.progress_message,
        job.lease_expire_time,
        children_to_text(job.children),
        *NO_HISTORY[len(START_COLUMNS) :],
    )


def with_deletion(history: Sequence[Any], deleted: Job, seq: NewSeq) -> Sequence[Any]:
    """Return the values of HISTORY_COLUMNS with the deletion added."""
    return (*history[:-2], seq, deleted.update_time)


def deletion_from_row(row: Sequence[Any]) -> tuple[int | None, Instant | None]:
    """Return the sequence number and the time of a job's deletion, from its whole row of `jobs`."""
    seq, time = row[_END_SEQ - 2 : _END_SEQ]
    return seq, time


def transitions_from_row(job: Job, row: Sequence[Any]) -> Mapping[int, Transition]:
    """Return the job's transitions by their sequence numbers, from its whole row of `jobs`."""
    start_seq, start_actor, *_, end_actor = row[_FIRST : _END_SEQ - 2]
    found: dict[int, Transition] = {}
    # A job that ended without a start passed through PROCESSING then.
    start_time = job.start_time or job.complete_time
    if start_seq is not None and start_time is not None:
        found[start_seq] = Transition(
            job_id=job.id,
            from_status=JobStatus.QUEUED,
            to_status=JobStatus.PROCESSING,
            version=version_of_start(job),
            attempt=0 if job.attempt_time is None else 1,
            actor=start_actor,
            reason="",
            time=start_time,
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
    """Return the job as it was after its first transition, from its newest state and its row."""
    start_columns = row[_FIRST : _FIRST + len(START_COLUMNS)]
    _, _, worker_id, progress, message, lease_expire_time, children = start_columns
    after = replace(
        job,
        status=start.to_status,
        phase=Phase.READY if lease_expire_time is None else Phase.HELD,
        progress=progress,
        report_number=0,
        checkpoint_bytes=0,
        progress_message=message,
        asset_count=0,
        asset_bytes=0,
        last_error=None,
        error=None,
        attempt=start.attempt,
        releases=0,
        quick_releases=0,
        worker_id=worker_id,
        update_time=start.time,
        complete_time=None,
        lease_duration=None,
        lease_expire_time=None,
        queue_expire_time=None,
        retry_time=None,
        version=start.version,
        outcome_digest=None,
        outcome_bytes=0,
    )
    if children is not None:
        return _group_after_start(after, children_from_text(children), start.time)
    if lease_expire_time is None:
        # It ended without a start: it still waited, and if it was cancelled, then before this.
        expire_time = queue_expire_time(job.schedule_time, job.queue_timeout, job.create_time)
        return replace(after, queue_expire_time=expire_time)
    return replace(
        after,
        attempt_time=start.time,
        lease_duration=Micros(lease_expire_time - start.time),
        lease_expire_time=lease_expire_time,
        progress_time=start.time,
        stall_expire_time=stall_expire_time(job.stall_timeout, start.time),
        cancel_request_time=None,
        cancel_reason="",
    )


def _group_after_start(group: Job, children: Children, start_time: Instant) -> Job:
    """Return the group with the children that it had at its start."""
    expire_time = None
    if not children.sealed:
        expire_time = queue_expire_time(None, group.queue_timeout, group.create_time)
    elif children.cancelling:
        expire_time = Instant(start_time + PASS_ON)
    after = replace(group, phase=Phase.WAITING, children=children, queue_expire_time=expire_time)
    if group.cancel_request_time is not None and group.cancel_request_time > start_time:
        return replace(after, cancel_request_time=None, cancel_reason="")
    return after


def children_to_text(children: Children | None) -> str | None:
    """Write the children of a group in their form in the database."""
    return None if children is None else msgspec.json.encode(children).decode()


def children_from_text(text: str) -> Children:
    """Read them from that form."""
    return _CHILDREN.decode(text)
