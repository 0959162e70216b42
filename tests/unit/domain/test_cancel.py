"""Cancelling: at once where nobody holds the job, else by asking; once is as good as twice."""

from typing import Any

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import Cancel, Release
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Job, JobError, JobStatus, Phase, Transition
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    ENDED_BY,
    HELD,
    JOB_ID,
    NOW,
    OWNER,
    QUEUED,
    RELEASED,
    REQUEUED,
    RUN_TIMEOUT,
    WORKER,
    State,
    end_step,
    ids,
    job_in,
    name_of,
    outcome_of,
    start_step,
)

CANCEL = Cancel(job_id=JOB_ID, user_id=OWNER, reason="too dear")


def failed(version: int, actor: str, attempt: int = 1) -> Transition:
    return end_step(JobStatus.FAILED, version, actor, "CANCELLED", attempt=attempt)


def cancelled(job: Job) -> Job:
    return decide(job, CANCEL, now=NOW, new_id=ids()).job


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"phases": frozenset({Phase.HELD})}, "asks"),
        ({"phases": frozenset({Phase.READY, Phase.BLOCKED})}, "repeats"),
        ({"worker_id": WORKER}, "asks"),
        ({"worker_id": "another"}, "repeats"),
        ({"phases": frozenset({Phase.HELD}), "held": False}, "repeats"),
    ],
)
def test_a_job_that_does_not_match_any_more_is_not_cancelled(
    filters: dict[str, Any], said: str
) -> None:
    job = job_in(HELD)
    assert name_of(job, outcome_of(job, replace(CANCEL, **filters))) == said


def test_cancelling_a_queued_job_fails_it_by_both_transitions_without_an_attempt() -> None:
    job = replace(job_in(QUEUED), run_timeout=RUN_TIMEOUT)
    decision = decide(job, CANCEL, now=NOW, new_id=ids())
    ended = replace(
        job,
        status=JobStatus.FAILED,
        phase=None,
        error=JobError("CANCELLED", "too dear"),
        complete_time=NOW,
        queue_expire_time=None,
        cancel_request_time=NOW,
        cancel_reason="too dear",
        update_time=NOW,
        version=3,
    )
    assert (decision.job, decision.transition) == (ended, failed(3, OWNER, attempt=0))
    via = decision.via
    assert via is not None
    assert via.transition == start_step(2, OWNER, attempt=0)
    assert via.job == replace(
        ended,
        status=JobStatus.PROCESSING,
        phase=Phase.READY,
        error=None,
        queue_expire_time=job.queue_expire_time,
        complete_time=None,
        version=2,
    )


@pytest.mark.parametrize("state", REQUEUED)
def test_cancelling_a_job_that_waits_for_its_next_worker_fails_it_at_once(state: State) -> None:
    job = job_in(state)
    assert decide(job, CANCEL, now=NOW, new_id=ids()) == Decision(
        job=replace(
            job,
            status=JobStatus.FAILED,
            phase=None,
            error=JobError("CANCELLED", "too dear"),
            queue_expire_time=None,
            retry_time=None,
            complete_time=NOW,
            cancel_request_time=NOW,
            cancel_reason="too dear",
            update_time=NOW,
            version=5,
        ),
        transition=failed(5, OWNER),
    )


def test_cancelling_a_leased_job_asks_its_worker() -> None:
    job = job_in(HELD)
    assert decide(job, CANCEL, now=NOW, new_id=ids()) == Decision(
        job=replace(
            job, cancel_request_time=NOW, cancel_reason="too dear", update_time=NOW, version=4
        )
    )


def test_a_cancellation_without_a_reason_has_a_default_message() -> None:
    for state in (QUEUED, RELEASED):
        decision = decide(job_in(state), replace(CANCEL, reason=""), now=NOW, new_id=ids())
        assert decision.job.error == JobError("CANCELLED", "cancelled")
        assert decision.job.cancel_reason == ""


@pytest.mark.parametrize(("worker", "actor"), [(WORKER, WORKER), ("", "worker")])
def test_releasing_a_cancelled_job_fails_it(worker: str, actor: str) -> None:
    job = cancelled(replace(job_in(HELD), worker_id=worker))
    release = Release(job_id=JOB_ID, attempt=1)
    assert decide(job, release, now=NOW, new_id=ids()) == Decision(
        job=replace(
            job,
            status=JobStatus.FAILED,
            phase=None,
            error=JobError("CANCELLED", "too dear"),
            lease_duration=None,
            lease_expire_time=None,
            complete_time=NOW,
            version=5,
        ),
        transition=failed(5, actor),
    )


def test_a_terminal_state_set_by_the_service_cannot_be_repeated_by_a_report() -> None:
    """It has no report's fingerprint, so that even the same words are another report."""
    job = decide(job_in(RELEASED), CANCEL, now=NOW, new_id=ids()).job
    same = replace(ENDED_BY[JobStatus.FAILED], error=job.error)
    assert job.outcome_digest is None
    assert outcome_of(job, same) == "ended"
