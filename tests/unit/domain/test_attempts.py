"""The attempts of a job: those that are kept, and the one that is a part of the job."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import Claim, Expire, JobCommand, Release, Report
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Attempt, AttemptOutcome, Instant, Job, JobError, JobStatus
from jobledger_server.domain.leases import attempts
from tests.unit.domain.jobs import (
    COMPLETED,
    ENDED,
    ENDED_BY,
    ERROR,
    FAILED,
    HELD,
    JOB_ID,
    LEASE,
    NOW,
    QUEUED,
    SECOND,
    WORKER,
    State,
    claim_due,
    ids,
    job_in,
)


class Life:
    """A job, and the attempts that a store would keep of it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.kept: list[Attempt] = []

    def claim(self, now: int, worker: str = "w") -> None:
        command = Claim(worker_id=worker, job_types=frozenset(), max_jobs=1, lease_duration=LEASE)
        decision = claim_due(self.job, command, Instant(now))
        assert decision is not None
        self.job = decision.job

    def send(self, command: JobCommand, now: int) -> None:
        decision = decide(self.job, command, now=Instant(now), new_id=ids())
        self.job = decision.job
        if decision.ended is not None:
            self.kept.append(decision.ended)

    def outcomes(self) -> list[tuple[int, str, AttemptOutcome | None]]:
        return [(a.number, a.worker_id, a.outcome) for a in attempts(self.job, self.kept)]


@pytest.mark.parametrize("state", ENDED)
def test_the_attempt_that_finished_the_job_has_its_outcome(state: State) -> None:
    assert attempts(job_in(state), []) == [
        Attempt(
            job_id=JOB_ID,
            number=1,
            worker_id=WORKER,
            start_time=Instant(2 * SECOND),
            end_time=Instant(4 * SECOND),
            progress=40 if state is FAILED else 100,
            outcome=AttemptOutcome(state.name),
            error=None if state is COMPLETED else ERROR,
        )
    ]


def test_each_attempt_keeps_its_worker_its_times_its_progress_and_how_it_ended() -> None:
    life = Life(job_in(QUEUED))
    life.claim(10 * SECOND, "first")
    life.send(Report(job_id=JOB_ID, attempt=1, progress=70), 20 * SECOND)
    life.send(Expire(job_id=JOB_ID), 80 * SECOND)
    life.claim(90 * SECOND, "second")
    life.send(Release(job_id=JOB_ID, attempt=2), 100 * SECOND)
    life.claim(110 * SECOND, "third")
    life.send(replace(ENDED_BY[JobStatus.COMPLETED], attempt=3), 120 * SECOND)
    expired = JobError("LEASE_EXPIRED", "worker 'first' lost its lease")
    assert [
        (a.number, a.worker_id, a.start_time, a.end_time, a.progress, a.outcome, a.error)
        for a in attempts(life.job, life.kept)
    ] == [
        (1, "first", 10 * SECOND, 80 * SECOND, 70, AttemptOutcome.LEASE_EXPIRED, expired),
        (2, "second", 90 * SECOND, 100 * SECOND, 0, AttemptOutcome.RELEASED, None),
        (3, "third", 110 * SECOND, 120 * SECOND, 100, AttemptOutcome.COMPLETED, None),
    ]


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [
        ({"max_attempts": 1}, AttemptOutcome.LEASE_EXPIRED),
        ({"max_attempts": 1, "stall_expire_time": NOW}, AttemptOutcome.STALLED),
        ({"run_expire_time": NOW}, AttemptOutcome.FAILED),
        ({"cancel_request_time": Instant(0)}, AttemptOutcome.FAILED),
    ],
    ids=str,
)
def test_an_attempt_that_the_service_ended_with_its_job_says_how(
    limits: dict[str, object], outcome: AttemptOutcome
) -> None:
    life = Life(replace(job_in(HELD), **limits))
    life.send(Expire(job_id=JOB_ID), 62 * SECOND if "stall_expire_time" in limits else 70 * SECOND)
    assert life.job.error is not None
    assert life.kept == []
    assert life.outcomes() == [(1, WORKER, outcome)]
    assert attempts(life.job, [])[0].error == life.job.error


def test_a_job_that_was_read_before_its_attempts_shows_none_of_them_twice() -> None:
    life = Life(job_in(HELD))
    before = life.job
    life.send(Release(job_id=JOB_ID, attempt=1), NOW)
    assert [a.number for a in attempts(before, life.kept)] == [1]
