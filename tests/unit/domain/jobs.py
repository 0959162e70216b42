"""One job in each state, as it would be after a plain history, and the commands that act on it."""

import enum
from collections.abc import Callable, Mapping
from itertools import count

from msgspec.structs import replace

from jobledger_server.domain.commands import ChangeStatus, Claim, JobCommand
from jobledger_server.domain.decisions import NewId, decide, outcome_digest
from jobledger_server.domain.errors import (
    ConcurrencyLimitReached,
    DomainError,
    IllegalTransition,
    JobNotDue,
    JobNotFound,
    JobStarted,
    JobTerminal,
    LeaseLost,
    Paused,
    RequestIdReused,
    VersionMismatch,
)
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    Asset,
    AssetLink,
    Attempt,
    AttemptOutcome,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Payloads,
    Phase,
    Transition,
)
from jobledger_server.domain.leases import claim
from jobledger_server.domain.queues import NO_LIMITS, Limits, make_ready
from jobledger_server.domain.state_machine import Decision, due_time

JOB_ID = JobId("01900000-0000-7000-8000-000000000001")
OWNER = "ada"
WORKER = "worker-1"
NOW = Instant(5_000_000)
LATER = Instant(104_000_000)
SECOND = 1_000_000
LEASE = Micros(60 * SECOND)
QUEUE_TIMEOUT = Micros(600 * SECOND)
RUN_TIMEOUT = Micros(3600 * SECOND)
LINK = AssetLink(
    asset_type="image/png",
    url="https://files.example/a.png",
    storage_path="a.png",
    file_size=7,
    name="a.png",
    sha256="0123456789abcdef" * 4,
    etag='"1"',
)
OTHER_LINK = AssetLink(
    asset_type="text/plain", url="", storage_path="b.txt", file_size=0, name="b.txt"
)
ERROR = JobError(reason="OUT_OF_MEMORY", message="64 GiB were not enough")
PARAMETERS = Payload(b"p")

ENDED_BY = {
    JobStatus.COMPLETED: ChangeStatus(
        job_id=JOB_ID, target=JobStatus.COMPLETED, result=Payload(b"r"), assets=(LINK,)
    ),
    JobStatus.PARTIAL: ChangeStatus(
        job_id=JOB_ID,
        target=JobStatus.PARTIAL,
        result=Payload(b"r"),
        error=ERROR,
        error_details=Payload(b"details"),
    ),
    JobStatus.FAILED: ChangeStatus(
        job_id=JOB_ID, target=JobStatus.FAILED, error=ERROR, error_details=Payload(b"details")
    ),
}
"""The report that finished the job of `job_in`, for each terminal state."""


class State(enum.Enum):
    """The states of a job: its status, whether it is leased, and what it waits for."""

    QUEUED = JobStatus.QUEUED, "never started"
    SCHEDULED = JobStatus.QUEUED, "never started, before its time"
    BLOCKED = JobStatus.QUEUED, "never started, its concurrency key is full"
    HELD = JobStatus.PROCESSING, "leased to a worker"
    RELEASED = JobStatus.PROCESSING, "released, and claimable"
    PAUSED = JobStatus.PROCESSING, "released, before its time"
    LEFT = JobStatus.PROCESSING, "requeued after its lease expired, and claimable"
    RETRYING = JobStatus.PROCESSING, "requeued after a retryable failure, before its time"
    COMPLETED = JobStatus.COMPLETED, "terminal"
    PARTIAL = JobStatus.PARTIAL, "terminal"
    FAILED = JobStatus.FAILED, "terminal"

    @property
    def status(self) -> JobStatus:
        return self.value[0]


STATES = list(State)
QUEUED, SCHEDULED, BLOCKED, HELD, RELEASED, PAUSED, LEFT, RETRYING, COMPLETED, PARTIAL, FAILED = (
    STATES
)
DUE = (QUEUED, RELEASED, LEFT)
REQUEUED = (RELEASED, PAUSED, LEFT, RETRYING)
WAITING = (QUEUED, SCHEDULED, BLOCKED, *REQUEUED)
ENDED = (COMPLETED, PARTIAL, FAILED)


def job_in(state: State) -> Job:
    """Return a job that was created at 1 s, started at 2 s, reported 40 and left or ended at 4 s.

    It has three attempts, of which it has used one at most, 600 s to wait, and no
    run timeout. Before its time, which is at 104 s, it is not claimed.
    """
    fresh = Job(
        id=JOB_ID,
        user_id=OWNER,
        job_type="render",
        create_time=Instant(1_000_000),
        update_time=Instant(1_000_000),
        parameters_bytes=len(PARAMETERS),
        labels={"team": "red"},
        max_attempts=3,
        request_id="request-1",
        queue_timeout=QUEUE_TIMEOUT,
        queue_expire_time=Instant(601_000_000),
    )
    held = replace(
        fresh,
        status=JobStatus.PROCESSING,
        phase=Phase.HELD,
        progress=40,
        progress_message="drawing",
        attempt=1,
        worker_id=WORKER,
        start_time=Instant(2_000_000),
        attempt_time=Instant(2_000_000),
        lease_duration=LEASE,
        lease_expire_time=Instant(63_000_000),
        queue_expire_time=None,
        update_time=Instant(3_000_000),
        version=3,
    )
    left = replace(
        held,
        phase=Phase.READY,
        worker_id="",
        lease_duration=None,
        lease_expire_time=None,
        queue_expire_time=Instant(604_000_000),
        update_time=Instant(4_000_000),
        version=4,
    )
    expired = JobError("LEASE_EXPIRED", f"worker {WORKER!r} lost its lease")
    until = Instant(LATER + QUEUE_TIMEOUT)
    pauses = replace(left, phase=Phase.SCHEDULED, retry_time=LATER, queue_expire_time=until)
    match state:
        case State.QUEUED:
            return fresh
        case State.SCHEDULED:
            scheduled = replace(fresh, phase=Phase.SCHEDULED, schedule_time=LATER)
            return replace(scheduled, queue_expire_time=until)
        case State.BLOCKED:
            return replace(fresh, phase=Phase.BLOCKED, concurrency_key="stripe")
        case State.HELD:
            return held
        case State.RELEASED:
            return replace(left, releases=1)
        case State.PAUSED:
            return replace(pauses, releases=1)
        case State.LEFT:
            return replace(left, retry_time=Instant(4_900_000), last_error=expired)
        case State.RETRYING:
            return replace(pauses, last_error=ERROR)
    end = ENDED_BY[state.status]
    return replace(
        held,
        status=state.status,
        phase=None,
        progress=40 if state is State.FAILED else 100,
        outcome_bytes=payloads_of(end).outcome_bytes,
        error=end.error,
        lease_duration=None,
        lease_expire_time=None,
        update_time=Instant(4_000_000),
        complete_time=Instant(4_000_000),
        version=4,
        outcome_digest=outcome_digest(end),
    )


def payloads_of(end: ChangeStatus) -> Payloads:
    """Return the payloads that a report on the end of a job brings."""
    return Payloads(result=end.result, error_details=end.error_details)


def attempt_of(
    job: Job, outcome: AttemptOutcome, end_time: int, error: str | JobError = ""
) -> Attempt:
    """Return the attempt of the held job as it is kept if it ends without ending the job."""
    assert job.attempt_time is not None
    return Attempt(
        job_id=JOB_ID,
        number=job.attempt,
        worker_id=job.worker_id,
        start_time=job.attempt_time,
        progress=job.progress,
        end_time=Instant(end_time),
        outcome=outcome,
        error=JobError(outcome.value, error) if isinstance(error, str) and error else error or None,
    )


def start_step(version: int, actor: str, *, attempt: int = 1, time: Instant = NOW) -> Transition:
    """Return the first transition of the job."""
    end = end_step(JobStatus.PROCESSING, version, actor, attempt=attempt, time=time)
    return replace(end, from_status=JobStatus.QUEUED)


def end_step(
    to: JobStatus,
    version: int,
    actor: str,
    reason: str = "",
    *,
    attempt: int = 1,
    time: Instant = NOW,
) -> Transition:
    """Return the last transition of the job."""
    return Transition(
        job_id=JOB_ID,
        from_status=JobStatus.PROCESSING,
        to_status=to,
        version=version,
        attempt=attempt,
        actor=actor,
        reason=reason,
        time=time,
    )


def when_due(job: Job) -> Instant:
    """Return the time before which a job that waits is not claimed; if it has none, its last."""
    return due_time(job) or job.update_time


def claim_due(job: Job, command: Claim, now: Instant) -> Decision | None:
    """Claim the job, which the promoter makes ready before if its time has come."""
    return claim(make_ready(job, now).job, command, now)


def ids() -> NewId:
    """Return a source of ids that counts."""
    numbers = count(1)
    return lambda: f"id-{next(numbers):06}"


def table(text: str) -> dict[tuple[str, State], str]:
    """Read a table whose columns are the states and whose rows are what is asked."""
    head, *rows = [line.split() for line in text.strip().splitlines()]
    assert head[1:] == [state.name for state in STATES]
    return {
        (name, State[state]): cell
        for name, *cells in rows
        for state, cell in zip(head[1:], cells, strict=True)
    }


REFUSALS = {
    "illegal": IllegalTransition,
    "ended": JobTerminal,
    "lease": LeaseLost,
    "version": VersionMismatch,
    "reused": RequestIdReused,
    "absent": JobNotFound,
    "notdue": JobNotDue,
    "started": JobStarted,
    "paused": Paused,
    "full": ConcurrencyLimitReached,
}


def outcome_of(
    job: Job,
    command: JobCommand,
    linked: Asset | None = None,
    *,
    named: Mapping[str, Asset] | None = None,
    now: int = NOW,
    resumed_at: Instant | None = None,
    limits: Limits = NO_LIMITS,
) -> Decision | str:
    return decision_or_refusal(
        lambda: decide(
            job,
            command,
            now=Instant(now),
            new_id=ids(),
            linked=linked,
            named=named or {},
            resumed_at=resumed_at,
            limits=limits,
        )
    )


def decision_or_refusal(decide_it: Callable[[], Decision]) -> Decision | str:
    try:
        return decide_it()
    except DomainError as refusal:
        return next(name for name, kind in REFUSALS.items() if type(refusal) is kind)


def name_of(job: Job, outcome: Decision | str) -> str:
    """Say in the tables' words what came of a command."""
    if isinstance(outcome, str):
        return outcome
    after = outcome.job
    if not outcome.changed:
        assert (outcome.transition, outcome.via, outcome.ended) == (None, None, None)
        assert outcome.payloads == NO_PAYLOADS
        if after.phase is not job.phase:
            assert outcome.renewed
            assert after == replace(job, phase=after.phase)
            return "readies" if after.phase is Phase.READY else "blocks"
        if outcome.renewed and after != job:
            assert after == replace(job, lease_expire_time=after.lease_expire_time)
            return "renews"
        assert after == job, "what is not changed is returned as it was"
        return "repeats" if outcome.applied else "late"
    assert outcome.applied
    if outcome.via:
        assert outcome.transition
        return "passes"
    if outcome.deleted:
        return "deletes"
    if outcome.transition:
        return "moves"
    if after.attempt != job.attempt:
        return "takes"
    if job.leased and not after.leased:
        assert outcome.ended, "an attempt that does not end its job is kept"
        return "leaves"
    assert outcome.ended is None
    if after.cancel_request_time != job.cancel_request_time:
        return "asks"
    return "links" if outcome.assets else "reports"
