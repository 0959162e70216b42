"""Who holds a job: claims, attempts, giving back, and the fence."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Claim,
    Expire,
    JobCommand,
    LinkAsset,
    Release,
    Report,
)
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.errors import JobTerminal, LeaseLost
from jobledger_server.domain.job import (
    AttemptOutcome,
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
    Phase,
)
from jobledger_server.domain.leases import SERVICE_REASONS, claim
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    ENDED_BY,
    HELD,
    JOB_ID,
    LEFT,
    LINK,
    NOW,
    OWNER,
    QUEUE_TIMEOUT,
    QUEUED,
    RUN_TIMEOUT,
    SECOND,
    WAITING,
    State,
    attempt_of,
    claim_due,
    ids,
    job_in,
    name_of,
    outcome_of,
    start_step,
    when_due,
)

CLAIM = Claim(
    worker_id="worker-2",
    job_types=frozenset(["render"]),
    max_jobs=1,
    lease_duration=Micros(30 * SECOND),
)
LEASE_EXPIRED_AT = 63 * SECOND
END = ENDED_BY[JobStatus.COMPLETED]


def after(job: Job, command: JobCommand, now: int = NOW) -> Job:
    return decide(job, command, now=Instant(now), new_id=ids()).job


def claimed(job: Job, now: int | None = None) -> Job:
    """Claim the job, by default as soon as it is due."""
    decision = claim_due(job, CLAIM, max(NOW, when_due(job)) if now is None else Instant(now))
    assert decision is not None
    return decision.job


def expired(job: Job) -> Job:
    """Let the job's lease run out, and take note of it."""
    assert job.lease_expire_time is not None
    return after(job, Expire(job_id=JOB_ID), job.lease_expire_time)


def test_a_claim_starts_a_queued_job() -> None:
    job = replace(job_in(QUEUED), run_timeout=RUN_TIMEOUT)
    assert claim(job, CLAIM, NOW) == Decision(
        job=replace(
            job,
            status=JobStatus.PROCESSING,
            phase=Phase.HELD,
            attempt=1,
            worker_id="worker-2",
            start_time=NOW,
            attempt_time=NOW,
            lease_duration=Micros(30 * SECOND),
            lease_expire_time=Instant(35 * SECOND),
            queue_expire_time=None,
            run_expire_time=Instant(3605 * SECOND),
            progress_time=NOW,
            update_time=NOW,
            version=2,
        ),
        transition=start_step(2, "worker-2"),
    )


@pytest.mark.parametrize("state", WAITING)
def test_a_job_can_be_claimed_until_its_queue_timeout_expires(state: State) -> None:
    job = job_in(state)
    assert job.queue_expire_time is not None
    assert claim_due(job, CLAIM, Instant(job.queue_expire_time - 1)) is not None
    assert claim_due(job, CLAIM, job.queue_expire_time) is None


def test_a_first_release_clears_only_the_worker_and_the_lease() -> None:
    job = replace(job_in(HELD), run_timeout=RUN_TIMEOUT, run_expire_time=Instant(3602 * SECOND))
    release = Release(job_id=JOB_ID, attempt=1)
    assert decide(job, release, now=NOW, new_id=ids()) == Decision(
        job=replace(
            job,
            phase=Phase.READY,
            worker_id="",
            releases=1,
            quick_releases=1,
            lease_duration=None,
            lease_expire_time=None,
            queue_expire_time=Instant(NOW + QUEUE_TIMEOUT),
            update_time=NOW,
            version=4,
        ),
        ended=attempt_of(job, AttemptOutcome.RELEASED, NOW),
    )


def test_an_expired_lease_clears_only_the_worker_and_the_lease_and_pauses() -> None:
    job = replace(job_in(HELD), run_timeout=RUN_TIMEOUT, run_expire_time=Instant(3602 * SECOND))
    now = Instant(LEASE_EXPIRED_AT)
    decision = decide(job, Expire(job_id=JOB_ID), now=now, new_id=ids())
    due = when_due(decision.job)
    assert now + 0.8 * SECOND <= due < now + 1.2 * SECOND, "its worker may be dead because of it"
    assert decision == Decision(
        job=replace(
            job,
            phase=Phase.SCHEDULED,
            worker_id="",
            releases=0,
            lease_duration=None,
            lease_expire_time=None,
            last_error=JobError("LEASE_EXPIRED", "worker 'worker-1' lost its lease"),
            retry_time=due,
            queue_expire_time=Instant(due + QUEUE_TIMEOUT),
            update_time=now,
            version=4,
        ),
        ended=attempt_of(
            job, AttemptOutcome.LEASE_EXPIRED, now, "worker 'worker-1' lost its lease"
        ),
    )


def test_the_lease_of_a_worker_without_a_name_expires_too() -> None:
    job = replace(job_in(HELD), worker_id="", max_attempts=1)
    assert expired(job).error == JobError(
        "LEASE_EXPIRED", "the worker lost its lease, and no attempts are left"
    )


def test_a_release_uses_up_no_attempt_however_often_it_is_repeated() -> None:
    job = replace(job_in(QUEUED), max_attempts=2)
    for attempt in range(1, 6):
        job = claimed(job)
        assert job.attempt == attempt, "the fence moves all the same"
        job = after(job, Release(job_id=JOB_ID, attempt=attempt))
    assert job.releases == 5
    job = expired(claimed(job))
    assert job.status is JobStatus.PROCESSING, "the first of two that are lost"
    job = expired(claimed(job))
    assert (job.status, job.attempt) == (JobStatus.FAILED, 7)
    assert job.error is not None
    assert job.error.reason == "LEASE_EXPIRED"


def test_identical_outcomes_of_two_attempts_are_distinguished_by_the_attempt() -> None:
    """Word for word the same end, by two workers: each is answered by its own attempt."""
    ended = after(claimed(job_in(LEFT)), replace(END, attempt=2))
    assert name_of(ended, outcome_of(ended, replace(END, attempt=2))) == "repeats"
    assert outcome_of(ended, replace(END, attempt=1)) == "lease"


LOST = ("LEASE_EXPIRED", "STALLED")


def ended_by_the_service(reason: str) -> Job:
    """Return a held job that the service ended for this reason."""
    job = replace(job_in(HELD), max_attempts=1)
    if reason == "CANCELLED":
        job = after(job, Cancel(job_id=JOB_ID, user_id=OWNER))
    if reason == "RUN_EXPIRED":
        job = replace(job, run_expire_time=NOW)
    late = Instant(NOW + 365 * 24 * 3600 * 1_000_000)
    if reason == "STALLED":
        job = replace(job, stall_timeout=Micros(1), stall_expire_time=NOW)
        late = NOW
    job = after(job, Expire(job_id=JOB_ID), late)
    assert job.error is not None
    assert job.error.reason == reason
    return job


@pytest.mark.parametrize("reason", ["LEASE_EXPIRED", "STALLED", "RUN_EXPIRED", "CANCELLED"])
def test_a_late_report_is_refused_as_lease_lost_if_that_failed_the_job(reason: str) -> None:
    job = ended_by_the_service(reason)
    lost: type[Exception] = LeaseLost if reason in LOST else JobTerminal
    done = ChangeStatus(job_id=JOB_ID, target=JobStatus.COMPLETED)
    link = LinkAsset(job_id=JOB_ID, link=LINK)
    for command in (done, link):
        with pytest.raises(lost):
            decide(job, replace(command, attempt=1), now=NOW, new_id=ids())
        with pytest.raises(JobTerminal):
            decide(job, command, now=NOW, new_id=ids())
    for attempt in (None, 1):
        late = decide(job, Report(job_id=JOB_ID, attempt=attempt), now=NOW, new_id=ids())
        assert late == Decision(job=job, changed=False, applied=False)
    with pytest.raises(LeaseLost):
        decide(job, Report(job_id=JOB_ID, attempt=2), now=NOW, new_id=ids())


def test_the_reasons_that_only_the_service_gives_are_those_that_it_gives() -> None:
    waiting = after(job_in(QUEUED), Expire(job_id=JOB_ID), NOW + QUEUE_TIMEOUT)
    assert waiting.error is not None
    given = {"LEASE_EXPIRED", "STALLED", "RUN_EXPIRED", "CANCELLED"}
    for reason in given:
        ended_by_the_service(reason)
    # The last one ends groups.
    assert given | {waiting.error.reason, "CHILDREN_FAILED"} == SERVICE_REASONS


@pytest.mark.parametrize("reason", ["LEASE_EXPIRED", "STALLED", "RUN_EXPIRED", "CANCELLED"])
def test_a_release_that_failed_a_cancelled_job_can_be_repeated(reason: str) -> None:
    job = ended_by_the_service(reason)
    release = Release(job_id=JOB_ID, attempt=1)
    if reason == "CANCELLED":
        assert decide(job, release, now=NOW, new_id=ids()) == Decision(job=job, changed=False)
    else:
        lost: type[Exception] = LeaseLost if reason in LOST else JobTerminal
        with pytest.raises(lost):
            decide(job, release, now=NOW, new_id=ids())
