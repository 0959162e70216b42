"""An attempt without news: when it is lost, and what counts as news."""

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
from jobledger_server.domain.job import AttemptOutcome, Instant, Job, JobStatus, Micros
from jobledger_server.domain.leases import deadline
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    JOB_ID,
    LINK,
    NOW,
    OWNER,
    QUEUED,
    SECOND,
    attempt_of,
    claim_due,
    ids,
    job_in,
    when_due,
)

LIMIT = Micros(10 * SECOND)
LEASE = Micros(60 * SECOND)


def claimed(job: Job, now: int = NOW) -> Job:
    command = Claim(worker_id="w", job_types=frozenset(), max_jobs=1, lease_duration=LEASE)
    decision = claim_due(job, command, Instant(now))
    assert decision is not None
    return decision.job


def after(job: Job, command: JobCommand, now: int, resumed_at: int | None = None) -> Decision:
    resumed = None if resumed_at is None else Instant(resumed_at)
    return decide(job, command, now=Instant(now), new_id=ids(), resumed_at=resumed)


STARTED = claimed(replace(job_in(QUEUED), stall_timeout=LIMIT))
STALLS_AT = NOW + LIMIT


@pytest.mark.parametrize(
    "news",
    [
        Report(job_id=JOB_ID, attempt=1, progress=1),
        Report(job_id=JOB_ID, progress_message="drawing"),
        LinkAsset(job_id=JOB_ID, link=LINK),
        Report(job_id=JOB_ID, attempt=1, progress=0, progress_message="once more"),
    ],
)
def test_new_progress_restarts_the_stall_timeout(news: JobCommand) -> None:
    job = after(STARTED, news, STALLS_AT - 1).job
    assert (job.progress_time, deadline(job)) == (STALLS_AT - 1, STALLS_AT - 1 + LIMIT)


@pytest.mark.parametrize(
    "command",
    [
        Report(job_id=JOB_ID, attempt=1),
        Report(job_id=JOB_ID, progress=0, progress_message=""),
        ChangeStatus(job_id=JOB_ID, target=JobStatus.PROCESSING, worker_id="w", progress=1),
        Cancel(job_id=JOB_ID, user_id=OWNER),
    ],
)
def test_no_other_command_restarts_the_stall_timeout(command: JobCommand) -> None:
    job = after(STARTED, command, STALLS_AT - 1).job
    assert (job.progress_time, deadline(job)) == (NOW, STALLS_AT)


def test_a_stalled_attempt_is_lost_although_its_lease_is_valid() -> None:
    job = after(STARTED, Report(job_id=JOB_ID, attempt=1), STALLS_AT).job
    decision = after(job, Expire(job_id=JOB_ID), STALLS_AT)
    assert decision.ended == attempt_of(
        job, AttemptOutcome.STALLED, STALLS_AT, "worker 'w' had no news"
    )
    lost = decision.job
    assert (lost.status, lost.leased, lost.stall_expire_time) == (JobStatus.PROCESSING, False, None)
    due = when_due(lost)
    again = claimed(lost, due)
    assert (again.attempt, again.progress_time) == (2, due)
    assert deadline(again) == due + LIMIT


def test_a_job_that_waits_does_not_stall() -> None:
    waiting = after(STARTED, Release(job_id=JOB_ID, attempt=1), NOW + 1).job
    assert deadline(waiting) == waiting.queue_expire_time
    reported = after(waiting, Report(job_id=JOB_ID, progress=1), NOW + 2).job
    assert deadline(reported) == waiting.queue_expire_time


def test_the_stall_timeout_restarts_after_an_outage() -> None:
    expire, resumed = Expire(job_id=JOB_ID), STALLS_AT + SECOND
    decision = after(STARTED, expire, resumed, resumed)
    assert (decision.changed, decision.renewed) == (False, True)
    assert deadline(decision.job) == resumed + LIMIT
    assert after(decision.job, expire, resumed + LIMIT, resumed).job.leased is False
