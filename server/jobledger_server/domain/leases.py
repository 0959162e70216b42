"""Leases and deadlines: every job reaches a terminal state, even if its worker and client crash.

Leases are from C. Gray and D. Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism
for Distributed File Cache Consistency" (1989). The attempt as a fencing token is from
M. Kleppmann, "How to do distributed locking" (2016). The fence is the attempt and never
the time: a worker may use an expired lease until the reaper has requeued or failed the job.
"""

import math
from collections.abc import Sequence
from operator import attrgetter
from zlib import crc32

from msgspec.structs import replace

from jobledger_server.domain.commands import Cancel, Claim, Release
from jobledger_server.domain.errors import JobNotFound, JobTerminal, LeaseLost
from jobledger_server.domain.job import (
    CANCELLED,
    REPORT_FIELDS,
    Attempt,
    AttemptOutcome,
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
    Phase,
)
from jobledger_server.domain.state_machine import (
    SYSTEM,
    TERMINAL,
    Decision,
    awaits_worker,
    fail,
    illegal_transition,
    last_attempt,
    requeue,
    start_attempt,
)

CANCEL_GRACE = Micros(30_000_000)
"""How long a worker that was asked to cancel may take to finish the job itself."""

LEASE_EXPIRED = "LEASE_EXPIRED"
QUEUE_EXPIRED, RUN_EXPIRED = "QUEUE_EXPIRED", "RUN_EXPIRED"
STALLED = "STALLED"
CHILDREN_FAILED = "CHILDREN_FAILED"

SERVICE_REASONS = frozenset(
    {CANCELLED, CHILDREN_FAILED, LEASE_EXPIRED, QUEUE_EXPIRED, RUN_EXPIRED, STALLED}
)
"""The reasons of errors that only the service gives."""


_NOT_REPORTED = attrgetter(*(name for name in Job.__struct_fields__ if name not in REPORT_FIELDS))


def deadline(job: Job) -> Instant | None:
    """Return when `expire` changes the job, or None in a terminal state."""
    if job.status in TERMINAL:
        return None
    earliest = job.queue_expire_time
    if job.children is not None:
        return earliest
    for time in (
        job.lease_expire_time,
        job.stall_expire_time,
        job.run_expire_time,
        _cancel_time(job),
    ):
        if time is not None and (earliest is None or time < earliest):
            earliest = time
    return earliest


def is_report(before: Job, after: Job, now: Instant) -> bool:
    """Return whether the jobs differ in REPORT_FIELDS only, and a kept deadline may stay as it is.

    It may if it is not later than that of the job. It is to be corrected where it has passed, or
    else the reaper would find the job again and again.
    """
    soon, late = deadline(after), deadline(before)
    return (
        before != after
        and bool(_NOT_REPORTED(before) == _NOT_REPORTED(after))
        and (soon is None or late is None or now < late <= soon)
    )


def _cancel_time(job: Job) -> Instant | None:
    requested = job.cancel_request_time
    return None if requested is None else Instant(requested + CANCEL_GRACE)


def _passed(time: Instant | None, now: Instant) -> bool:
    return time is not None and time <= now


def check_attempt(job: Job, attempt: int | None) -> None:
    """Raise LeaseLost if a given attempt is not the job's current one, or lost its lease."""
    if attempt is None:
        return
    requeued = job.status is JobStatus.PROCESSING and not job.leased
    lost = _finished_as(job, LEASE_EXPIRED) or _finished_as(job, STALLED)
    if attempt != job.attempt or requeued or lost:
        raise LeaseLost(job.id, job.attempt)


def _finished_as(job: Job, reason: str) -> bool:
    """Whether the service, and not a worker's report, finished the job for this reason."""
    return job.error is not None and job.error.reason == reason and job.outcome_digest is None


def claim(job: Job, command: Claim, now: Instant) -> Decision | None:
    """Start an attempt for the worker; None if the job is not ready or its deadline passed."""
    if job.phase is not Phase.READY or _passed(deadline(job), now):
        return None
    worker_id = command.worker_id
    return start_attempt(
        job, worker_id=worker_id, lease=command.lease_duration, actor=worker_id, now=now
    )


def expire(job: Job, now: Instant, resumed_at: Instant | None = None) -> Decision:
    """Fail or requeue the job if its deadline has passed.

    Args:
        job: The job, loaded under its lock: its deadline may have moved since it was found.
        now: The database server's time.
        resumed_at: When the service's last outage ended. Every lease lasts at least one
        lease duration from then on, so that its worker has time to reconnect. The stall
        timeout starts again then, too.
    """
    if job.status in TERMINAL:
        return Decision(job=job, changed=False)
    extended = _extended(job, resumed_at) if _passed(deadline(job), now) else job
    if not _passed(deadline(extended), now):
        return Decision(job=extended, changed=False, renewed=True)
    if job.cancel_request_time is not None:
        error = _cancelled(job)
    elif _passed(job.run_expire_time, now):
        error = JobError(RUN_EXPIRED, "the job did not finish within its run timeout")
    elif not job.leased:
        error = JobError(QUEUE_EXPIRED, "no worker claimed the job within its queue timeout")
    else:
        worker = f"worker {job.worker_id!r}" if job.worker_id else "the worker"
        if _passed(job.lease_expire_time, now):
            outcome, cause = AttemptOutcome.LEASE_EXPIRED, f"{worker} lost its lease"
        else:
            outcome, cause = AttemptOutcome.STALLED, f"{worker} had no news"
        if has_attempts_left(job):
            error = JobError(outcome.value, cause)
            return requeue(job, outcome, error=error, pause=backoff(job), now=now)
        error = JobError(outcome.value, f"{cause}, and no attempts are left")
    return fail(job, error, actor=SYSTEM, now=now)


def _extended(job: Job, resumed_at: Instant | None) -> Job:
    """Return the job with its lease and its stall timeout as if they began at `resumed_at`."""
    if resumed_at is None or job.lease_expire_time is None or job.lease_duration is None:
        return job
    expire_time = Instant(max(job.lease_expire_time, resumed_at + job.lease_duration))
    stall_time = job.stall_expire_time
    if stall_time is not None and job.stall_timeout is not None:
        stall_time = Instant(max(stall_time, resumed_at + job.stall_timeout))
    return replace(job, lease_expire_time=expire_time, stall_expire_time=stall_time)


def cancels(job: Job, command: Cancel) -> bool:
    """Return whether the command cancels the job: it is meant, and was not cancelled before."""
    if job.user_id != command.user_id:
        raise JobNotFound(job.id)
    done = job.status in TERMINAL or job.cancel_request_time is not None
    meant = (
        (not command.statuses or job.status in command.statuses)
        and command.held in (None, job.leased)
        and (not command.phases or job.phase in command.phases)
        and command.worker_id in ("", job.worker_id)
    )
    return meant and not done


def cancel(job: Job, command: Cancel, now: Instant) -> Decision:
    """Fail a job that no worker leases, or ask its worker to cancel it."""
    requested = replace(job, cancel_request_time=now, cancel_reason=command.reason)
    if awaits_worker(job):
        return fail(requested, _cancelled(requested), actor=command.user_id, now=now)
    return Decision(job=replace(requested, update_time=now, version=job.version + 1))


def release(job: Job, command: Release, now: Instant) -> Decision:
    """Requeue a job that its worker releases. The attempt is not used up.

    A release is quick if the attempt took less than its lease, and asks for less of a pause than
    the first backoff. From the second quick one in a row on the job waits longer each time:
    otherwise a program that releases each job would run in a loop.
    """
    if command.attempt != job.attempt:
        raise LeaseLost(job.id, job.attempt)
    if job.status is JobStatus.QUEUED:
        raise illegal_transition(job, JobStatus.PROCESSING.value)
    if awaits_worker(job) or _finished_as(job, CANCELLED):
        return Decision(job=job, changed=False)  # a retry
    if job.status in TERMINAL:
        check_attempt(job, command.attempt)
        raise JobTerminal(job.id, job.status, JobStatus.PROCESSING.value)
    if job.cancel_request_time is not None:
        return fail(job, _cancelled(job), actor=job.worker_id or "worker", now=now)
    in_row, pause = 0, command.delay
    if command.delay < job.initial_backoff and _began_within_lease(job, now):
        in_row = job.quick_releases + 1
        pause = max(pause, _backoff(job, in_row - 1))
    return requeue(
        job, AttemptOutcome.RELEASED, error=None, pause=pause, now=now, quick_releases=in_row
    )


def _began_within_lease(job: Job, now: Instant) -> bool:
    return now - (job.attempt_time or 0) < (job.lease_duration or 0)


def renewed_by_output(job: Job, now: Instant) -> Job:
    """Return the job with its lease and its stall timeout renewed, if a third of either is over.

    Output is the most frequent news. Most of it is written without a write of its job.
    """
    lease, stall = job.lease_duration, job.stall_timeout
    if not (
        _is_third_over(job.lease_expire_time, lease, now)
        or _is_third_over(job.stall_expire_time, stall, now)
    ):
        return job
    expire_time = job.lease_expire_time if lease is None else Instant(now + lease)
    stall_time = job.stall_expire_time if stall is None else Instant(now + stall)
    return replace(job, lease_expire_time=expire_time, stall_expire_time=stall_time)


def _is_third_over(expire_time: Instant | None, lasts: Micros | None, now: Instant) -> bool:
    return expire_time is not None and lasts is not None and 3 * (expire_time - now) < 2 * lasts


def has_attempts_left(job: Job) -> bool:
    """Whether the job may have another attempt if this one is used up.

    An attempt that was started by the job's id is the last one, unless its creator or the defaults
    of its type set a policy:
    perhaps no worker claims jobs of this type, and the job would wait in its queue for days.
    """
    if job.started_by_id and not job.max_attempts:
        return False
    return job.attempt - job.releases < job.attempts_allowed


def backoff(job: Job) -> Micros:
    """Return how long the job pauses if its attempt is used up and another one is left."""
    return _backoff(job, job.attempt - job.releases)


def _backoff(job: Job, number: int) -> Micros:
    """Return the backoff before the retry of this number, with jitter; 0 for number 0.

    As in gRPC's retry policy: the pause is drawn evenly from 0.8 to 1.2 times the backoff
    (gRFC A6). The draw follows from the job and its attempt, so that a decision depends on nothing
    else, and jobs that failed together do not come back together.
    """
    if number == 0:
        return Micros(0)
    try:
        longer = job.initial_backoff * job.backoff_multiplier ** (number - 1)
    except OverflowError:
        longer = math.inf
    drawn = crc32(f"{job.id} {job.attempt}".encode()) / 2**32
    return Micros(int(min(longer, job.max_backoff) * (0.8 + 0.4 * drawn)))


def attempts(job: Job, ended: Sequence[Attempt]) -> list[Attempt]:
    """Return all attempts of a job, oldest first.

    Args:
        job: The job.
        ended: Those that ended without ending it, oldest first.
    """
    found = list(ended)
    last = last_attempt(job, _last_outcome(job), job.error, end_time=job.complete_time)
    if last is not None and (not found or found[-1].number < last.number):
        found.append(last)
    return found


def _last_outcome(job: Job) -> AttemptOutcome | None:
    """Return how the attempt ended that was the job's last when it finished."""
    if job.status not in TERMINAL:
        return None
    for outcome in (AttemptOutcome.LEASE_EXPIRED, AttemptOutcome.STALLED):
        if _finished_as(job, outcome.value):
            return outcome
    return AttemptOutcome(job.status.value)


def _cancelled(job: Job) -> JobError:
    return JobError(CANCELLED, job.cancel_reason or "cancelled")
