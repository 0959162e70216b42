"""Changes of a job that is not started: its priority, and when it may start."""

from msgspec.structs import replace

from jobledger_server.domain.commands import Update
from jobledger_server.domain.errors import (
    IsAGroup,
    JobNotFound,
    JobStarted,
    JobTerminal,
    VersionMismatch,
)
from jobledger_server.domain.job import Instant, Job, JobStatus, Phase
from jobledger_server.domain.state_machine import TERMINAL, Decision


def update(job: Job, command: Update, now: Instant, *, full: bool) -> Decision:
    """Decide an update. Idempotent: a job that is so already stays as it is.

    Args:
        job: The job.
        command: The command.
        now: The database server's time.
        full: Whether the job's concurrency key is probably at its limit. If so, a scheduled job
            that becomes due is blocked: a claim would only pass over it.

    Raises:
        JobNotFound: The job is another user's.
        IsAGroup: The job is a group.
        VersionMismatch: The job has another version than the expected one.
        JobStarted: The job was started.
        JobTerminal: The job is terminal.
    """
    if job.user_id != command.user_id:
        raise JobNotFound(job.id)
    if job.children is not None:
        raise IsAGroup(job.id)
    updated = _with_schedule(_with_priority(job, command), command, now, full=full)
    if updated == job:
        return Decision(job=job, changed=False)
    if job.status in TERMINAL:
        raise JobTerminal(job.id, job.status, "UPDATED")
    if job.status is not JobStatus.QUEUED:
        raise JobStarted(job.id, job.status)
    if command.expected_version is not None and command.expected_version != job.version:
        raise VersionMismatch(job.id, job.version)
    return Decision(
        job=replace(updated, updates=job.updates + 1, update_time=now, version=job.version + 1)
    )


def _with_priority(job: Job, command: Update) -> Job:
    return job if command.priority is None else replace(job, priority=command.priority)


def _with_schedule(job: Job, command: Update, now: Instant, *, full: bool) -> Job:
    """Return the job with its new time.

    A time that has passed is stored as this moment: the wait for a worker begins now, and with it
    the queue timeout.
    """
    asked = command.schedule_time
    # A job that is due already is as one that is asked to be.
    if asked is None or asked == job.schedule_time or max(asked, job.due_time) <= now:
        return job
    time = Instant(max(asked, now))
    phase = job.phase
    if time > now:
        phase = Phase.SCHEDULED
    elif phase is Phase.SCHEDULED:
        phase = Phase.BLOCKED if full else Phase.READY
    return replace(
        job,
        phase=phase,
        schedule_time=time,
        queue_expire_time=Instant(time + job.queue_timeout),
    )
