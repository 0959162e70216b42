"""The state machine: which transition is legal, and the moves along its edges.

Pure: the time is passed in, nothing is read or kept.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from jobledger_server.domain.errors import IllegalTransition
from jobledger_server.domain.job import (
    Asset,
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
    Payload,
    Transition,
)
from jobledger_server.domain.limits import MAX_PROGRESS

TRANSITIONS: Mapping[JobStatus, tuple[JobStatus, ...]] = {
    JobStatus.QUEUED: (JobStatus.PROCESSING,),
    JobStatus.PROCESSING: (JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED),
    JobStatus.COMPLETED: (),
    JobStatus.PARTIAL: (),
    JobStatus.FAILED: (),
}
"""Every legal transition. There is no other edge."""

TERMINAL = frozenset(status for status, targets in TRANSITIONS.items() if not targets)
"""The states that a job never leaves."""

SYSTEM = "system"
"""The actor of what nobody but the service itself has caused."""


class Decision(Struct, frozen=True, kw_only=True):
    """What a command comes to.

    `job` is the job afterwards. Where `changed` is false nothing is to be
    written: the command was a repetition, or it was late (`applied` false).
    `via` is the change that comes before this one in the same commit, where a
    job passes through PROCESSING on its way from QUEUED to its end.
    """

    job: Job
    changed: bool = True
    applied: bool = True
    deleted: bool = False
    transition: Transition | None = None
    assets: tuple[Asset, ...] = ()
    via: "Decision | None" = None


def illegal(job: Job, wanted: str) -> IllegalTransition:
    """Return the refusal of a move that the table does not have."""
    allowed = tuple(status.value for status in TRANSITIONS[job.status])
    return IllegalTransition(job.id, job.status, wanted, allowed)


def is_claimable(job: Job) -> bool:
    """Whether the job waits for a worker: queued, given back, or left by a dead one."""
    return job.status not in TERMINAL and not job.leased


def start_attempt(job: Job, *, worker_id: str, lease: Micros, actor: str, now: Instant) -> Decision:
    """Give a waiting job to a worker: its next attempt.

    Only the first is a transition. Progress begins anew with each.
    """
    taken = replace(
        job,
        status=JobStatus.PROCESSING,
        progress=0,
        progress_message="",
        attempt=job.attempt + 1,
        worker_id=worker_id,
        lease_duration=lease,
        lease_expire_time=Instant(now + lease),
        queue_expire_time=None,
        start_time=now if job.start_time is None else job.start_time,
        run_expire_time=job.run_expire_time
        if job.start_time is not None or job.run_timeout is None
        else Instant(now + job.run_timeout),
        update_time=now,
        version=job.version + 1,
    )
    return Decision(job=taken, transition=_transition(job, taken, actor))


def requeue(job: Job, *, released: bool, now: Instant) -> Decision:
    """Take a job from its worker and let it wait for the next one: no backward edge."""
    left = replace(
        job,
        worker_id="",
        releases=job.releases + released,
        lease_duration=None,
        lease_expire_time=None,
        queue_expire_time=Instant(now + job.queue_timeout),
        update_time=now,
        version=job.version + 1,
    )
    return Decision(job=left)


def finish(
    job: Job,
    target: JobStatus,
    *,
    result: Payload | None = None,
    error: JobError | None = None,
    actor: str,
    now: Instant,
    digest: bytes | None = None,
) -> Decision:
    """End a PROCESSING job."""
    ended = replace(
        job,
        status=target,
        progress=job.progress if target is JobStatus.FAILED else MAX_PROGRESS,
        result=result,
        error=error,
        lease_duration=None,
        lease_expire_time=None,
        queue_expire_time=None,
        complete_time=now,
        update_time=now,
        version=job.version + 1,
        outcome_digest=digest,
    )
    return Decision(job=ended, transition=_transition(job, ended, actor))


def fail(job: Job, error: JobError, *, actor: str, now: Instant) -> Decision:
    """End a job as FAILED wherever it stands; a queued one passes through PROCESSING."""
    if job.status is JobStatus.QUEUED:
        via = start_attempt(job, worker_id="", lease=Micros(0), actor=actor, now=now)
        return replace(fail(via.job, error, actor=actor, now=now), via=via)
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
