"""Leases and deadlines: how every job comes to an end by itself, whoever dies.

The idea of the lease is that of C. Gray and D. Cheriton, "Leases: An Efficient
Fault-Tolerant Mechanism for Distributed File Cache Consistency" (1989); the
attempt as fencing token is M. Kleppmann's, "How to do distributed locking"
(2016). The fence is never the time: an expired lease may be used until somebody
has taken note of it.
"""

from msgspec.structs import replace

from jobledger_server.domain.commands import Cancel, Claim, Release
from jobledger_server.domain.errors import JobNotFound, JobTerminal, LeaseLost
from jobledger_server.domain.job import (
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
)
from jobledger_server.domain.state_machine import (
    SYSTEM,
    TERMINAL,
    Decision,
    fail,
    illegal,
    is_claimable,
    requeue,
    start_attempt,
)

CANCEL_GRACE = Micros(30_000_000)
"""How long a worker that was asked to cancel may take to end the job itself."""


CANCELLED, LEASE_EXPIRED = "CANCELLED", "LEASE_EXPIRED"
QUEUE_EXPIRED, RUN_EXPIRED = "QUEUE_EXPIRED", "RUN_EXPIRED"


def deadline(job: Job) -> Instant | None:
    """Return when something happens to the job by itself; None once it has ended."""
    if job.status in TERMINAL:
        return None
    earliest = job.queue_expire_time
    for time in (job.lease_expire_time, job.run_expire_time, _cancel_time(job)):
        if time is not None and (earliest is None or time < earliest):
            earliest = time
    return earliest


def _cancel_time(job: Job) -> Instant | None:
    requested = job.cancel_request_time
    return None if requested is None else Instant(requested + CANCEL_GRACE)


def _passed(time: Instant | None, now: Instant) -> bool:
    return time is not None and time <= now


def check_attempt(job: Job, attempt: int | None) -> None:
    """Raise LeaseLost where a caller names an attempt that is not under way, or was cut off."""
    if attempt is None:
        return
    left = job.status is JobStatus.PROCESSING and not job.leased
    if attempt != job.attempt or left or _finished_as(job, LEASE_EXPIRED):
        raise LeaseLost(job.id, job.attempt)


def _finished_as(job: Job, reason: str) -> bool:
    """Whether the service, and no report, ended the job for this reason."""
    return job.error is not None and job.error.reason == reason and job.outcome_digest is None


def claim(job: Job, command: Claim, now: Instant) -> Decision | None:
    """Give a job to a claiming worker; None where it does not wait, or not in time."""
    if not is_claimable(job) or _passed(deadline(job), now):
        return None
    worker_id = command.worker_id
    return start_attempt(
        job, worker_id=worker_id, lease=command.lease_duration, actor=worker_id, now=now
    )


def expire(job: Job, now: Instant, resumed_at: Instant | None = None) -> Decision:
    """Do what the job's deadline asks for, if it has passed: under the lock, with fresh eyes.

    `resumed_at` is when the service's last outage ended. A lease that was renewed before
    then is good until a whole lease after then, so that its holder has time to reconnect.
    """
    if not _passed(deadline(job), now):
        return Decision(job=job, changed=False)
    extended = _extended(job, resumed_at, now)
    if not _passed(deadline(extended), now):
        return Decision(job=extended)
    if job.cancel_request_time is not None:
        error = _cancelled(job)
    elif _passed(job.run_expire_time, now):
        error = JobError(RUN_EXPIRED, "the job did not end within its run timeout")
    elif not _passed(job.lease_expire_time, now):
        error = JobError(QUEUE_EXPIRED, "no worker took the job in time")
    elif job.attempt - job.releases < job.max_attempts:
        return requeue(job, released=False, now=now)
    else:
        worker = f"the worker {job.worker_id!r}" if job.worker_id else "its worker"
        error = JobError(LEASE_EXPIRED, f"{worker} fell silent, and no attempt is left")
    return fail(job, error, actor=SYSTEM, now=now)


def _extended(job: Job, resumed_at: Instant | None, now: Instant) -> Job:
    """Return the job with its lease as long as the outage that ended then makes it."""
    if resumed_at is None or job.lease_expire_time is None or job.lease_duration is None:
        return job
    expire_time = Instant(max(job.lease_expire_time, resumed_at + job.lease_duration))
    return replace(job, lease_expire_time=expire_time, update_time=now, version=job.version + 1)


def cancel(job: Job, command: Cancel, now: Instant) -> Decision:
    """End a job that nobody holds, or ask its worker to; twice is the same as once."""
    if job.user_id != command.user_id:
        raise JobNotFound(job.id)
    if job.status in TERMINAL or job.cancel_request_time is not None:
        return Decision(job=job, changed=False)
    asked = replace(job, cancel_request_time=now, cancel_reason=command.reason)
    if is_claimable(job):
        return fail(asked, _cancelled(asked), actor=command.user_id, now=now)
    return Decision(job=replace(asked, update_time=now, version=job.version + 1))


def release(job: Job, command: Release, now: Instant) -> Decision:
    """Take a job back from its worker; no attempt is used up."""
    if command.attempt != job.attempt:
        raise LeaseLost(job.id, job.attempt)
    if job.status is JobStatus.QUEUED:
        raise illegal(job, JobStatus.PROCESSING.value)
    if is_claimable(job) or _finished_as(job, CANCELLED):
        return Decision(job=job, changed=False)  # a repetition
    if job.status in TERMINAL:
        check_attempt(job, command.attempt)
        raise JobTerminal(job.id, job.status, JobStatus.PROCESSING.value)
    if job.cancel_request_time is not None:
        return fail(job, _cancelled(job), actor=job.worker_id or "worker", now=now)
    return requeue(job, released=True, now=now)


def _cancelled(job: Job) -> JobError:
    return JobError(CANCELLED, job.cancel_reason or "cancelled")
