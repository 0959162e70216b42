"""The state machine: the legal transitions, and the functions that make them.

Pure: the time is passed in, and nothing is read or stored.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from jobledger_server.domain.errors import IllegalTransition
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    Asset,
    Attempt,
    AttemptOutcome,
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
    Payloads,
    Phase,
    Transition,
)
from jobledger_server.domain.limits import MAX_PROGRESS
from jobledger_server.domain.output import OutputPiece

TRANSITIONS: Mapping[JobStatus, tuple[JobStatus, ...]] = {
    JobStatus.QUEUED: (JobStatus.PROCESSING,),
    JobStatus.PROCESSING: (JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED),
    JobStatus.COMPLETED: (),
    JobStatus.PARTIAL: (),
    JobStatus.FAILED: (),
}
"""Every legal transition."""

TERMINAL = frozenset(status for status, targets in TRANSITIONS.items() if not targets)
"""The terminal states: those without a transition to another state."""

SYSTEM = "system"
"""The actor of transitions that the service itself makes."""


class Decision(Struct, frozen=True, kw_only=True):
    """The outcome of a command that was not refused.

    Attributes:
        job: The job afterwards.
        changed: Whether the job has changed. If not, the command was a retry, came too late, or
            its time has not come yet.
        renewed: Whether there is something to write that is not a change: the job's lease was
            renewed, it is in another phase of its wait, or its deadline turned out to be later than
            the store knew.
        applied: Whether the command took effect. False if it was too late.
        deleted: Whether the job is deleted.
        transition: The transition that the job makes, if it makes one.
        payloads: The payloads that the command brings, to be stored. Of a claim, once it is
            committed, those of the job.
        ended: The attempt that ended, if the job goes on without it.
        asset: The asset that a LinkAsset asked for.
        assets: The assets that are new.
        updated: Assets of earlier attempts that change.
        output: The output that is appended.
        next_offset: Where the output of an AppendOutput ends.
        via: The change to write before this one, in the same commit: a QUEUED job passes
            through PROCESSING on its way to FAILED, without an attempt, and so does a group.
    """

    job: Job
    changed: bool = True
    renewed: bool = False
    applied: bool = True
    deleted: bool = False
    transition: Transition | None = None
    payloads: Payloads = NO_PAYLOADS
    ended: Attempt | None = None
    asset: Asset | None = None
    assets: tuple[Asset, ...] = ()
    updated: tuple[Asset, ...] = ()
    output: OutputPiece | None = None
    next_offset: int = 0
    via: "Decision | None" = None


def illegal_transition(job: Job, target: str) -> IllegalTransition:
    """Return the error of a transition that is not in the table."""
    allowed = tuple(status.value for status in TRANSITIONS[job.status])
    return IllegalTransition(job.id, job.status, target, allowed)


def awaits_worker(job: Job) -> bool:
    """Whether no worker has the job and one may get it: it is queued, or it was requeued."""
    return job.status not in TERMINAL and not job.leased and job.children is None


def due_time(job: Job) -> Instant | None:
    """Return the time before which a job that waits is not claimed; None if there is none."""
    if not awaits_worker(job):
        return None
    return job.schedule_time if job.attempt == 0 else job.retry_time


VERSION_OF_START = 2
"""The version of a job after its first transition, if it was not updated before."""


def version_of_start(job: Job) -> int:
    """Return the job's version after its first transition: until then only updates change it."""
    return VERSION_OF_START + job.updates


def was_just_started(job: Job) -> bool:
    """Whether the job's latest change was its first transition."""
    return job.version == version_of_start(job)


def start_attempt(
    job: Job, *, worker_id: str, lease: Micros, actor: str, now: Instant, by_id: bool = False
) -> Decision:
    """Lease a claimable job to a worker, as its next attempt, which it claimed or started `by_id`.

    Only the first attempt is a transition. Each attempt resets the progress.
    """
    started = replace(
        job,
        status=JobStatus.PROCESSING,
        phase=Phase.HELD,
        progress=0,
        report_number=0,
        progress_message="",
        attempt=job.attempt + 1,
        started_by_id=by_id,
        worker_id=worker_id,
        lease_duration=lease,
        lease_expire_time=Instant(now + lease),
        progress_time=now,
        stall_expire_time=stall_expire_time(job.stall_timeout, now),
        queue_expire_time=None,
        retry_time=None,
        start_time=now if job.start_time is None else job.start_time,
        attempt_time=now,
        run_expire_time=job.run_expire_time
        if job.start_time is not None or job.run_timeout is None
        else Instant(now + job.run_timeout),
        update_time=now,
        version=job.version + 1,
    )
    return Decision(job=started, transition=_transition(job, started, actor))


def start_group(group: Job, now: Instant) -> Decision:
    """Start a group, without an attempt: a child of it was started."""
    started = replace(
        group,
        status=JobStatus.PROCESSING,
        start_time=now,
        update_time=now,
        version=group.version + 1,
    )
    return Decision(job=started, transition=_transition(group, started, SYSTEM))


def stall_expire_time(stall_timeout: Micros | None, progress_time: Instant) -> Instant | None:
    """Return when an attempt is lost if it reports nothing new; None without a stall timeout."""
    return None if stall_timeout is None else Instant(progress_time + stall_timeout)


def with_news(job: Job, now: Instant) -> Job:
    """Return the next version of a running job whose worker reported something new."""
    return replace(
        job,
        progress_time=now,
        stall_expire_time=stall_expire_time(job.stall_timeout, now) if job.leased else None,
        update_time=now,
        version=job.version + 1,
    )


def requeue(
    job: Job,
    outcome: AttemptOutcome,
    *,
    error: JobError | None,
    pause: Micros,
    now: Instant,
    quick_releases: int = 0,
) -> Decision:
    """Clear the lease and let the job wait. It stays PROCESSING: no transition goes back.

    Args:
        job: The job, which a worker holds.
        outcome: How its attempt ended.
        error: Why, unless it was released.
        pause: How long it is not claimed.
        now: The database server's time.
        quick_releases: How many times in a row it was released soon after its start.
    """
    due = Instant(now + pause)
    requeued = replace(
        job,
        phase=Phase.SCHEDULED if pause else Phase.READY,
        worker_id="",
        releases=job.releases + (outcome is AttemptOutcome.RELEASED),
        quick_releases=quick_releases,
        last_error=error or job.last_error,
        lease_duration=None,
        lease_expire_time=None,
        stall_expire_time=None,
        retry_time=due if pause else None,
        queue_expire_time=Instant(due + job.queue_timeout),
        update_time=now,
        version=job.version + 1,
    )
    return Decision(job=requeued, ended=last_attempt(job, outcome, error, end_time=now))


def last_attempt(
    job: Job,
    outcome: AttemptOutcome | None = None,
    error: JobError | None = None,
    *,
    end_time: Instant | None = None,
) -> Attempt | None:
    """Return the job's latest attempt; None if it was never started."""
    if job.attempt_time is None:
        return None
    return Attempt(
        job_id=job.id,
        number=job.attempt,
        worker_id=job.worker_id,
        start_time=job.attempt_time,
        progress=job.progress,
        end_time=end_time,
        outcome=outcome,
        error=error,
    )


def finish(
    job: Job,
    target: JobStatus,
    *,
    payloads: Payloads = NO_PAYLOADS,
    error: JobError | None = None,
    actor: str,
    now: Instant,
    digest: bytes | None = None,
) -> Decision:
    """Finish a PROCESSING job. `digest` is that of the worker's report, if there is one."""
    finished = replace(
        job,
        status=target,
        phase=None,
        progress=job.progress if target is JobStatus.FAILED else MAX_PROGRESS,
        error=error,
        outcome_bytes=payloads.outcome_bytes,
        lease_duration=None,
        lease_expire_time=None,
        stall_expire_time=None,
        queue_expire_time=None,
        retry_time=None,
        complete_time=now,
        update_time=now,
        version=job.version + 1,
        outcome_digest=digest,
    )
    transition = _transition(job, finished, actor)
    return Decision(job=finished, transition=transition, payloads=payloads)


def fail(job: Job, error: JobError, *, actor: str, now: Instant) -> Decision:
    """Fail a job that is not terminal. A QUEUED job passes through PROCESSING, unstarted."""
    if job.status is JobStatus.QUEUED:
        passing = replace(
            job,
            status=JobStatus.PROCESSING,
            phase=Phase.READY,  # the row does not keep which
            update_time=now,
            version=job.version + 1,
        )
        via = Decision(job=passing, transition=_transition(job, passing, actor))
        return replace(fail(passing, error, actor=actor, now=now), via=via)
    return finish(job, JobStatus.FAILED, error=error, actor=actor, now=now)


def _transition(before: Job, after: Job, actor: str) -> Transition | None:
    if before.status is after.status:
        return None
    return Transition(
        job_id=after.id,
        from_status=before.status,
        to_status=after.status,
        version=after.version,
        attempt=after.attempt,
        actor=actor,
        reason=after.error.reason if after.error else "",
        time=after.update_time,
    )
