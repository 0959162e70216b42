"""How a job ends by itself: each deadline to the microsecond, and which of several wins."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import Expire
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Instant, Job, JobError, JobStatus
from jobledger_server.domain.leases import deadline
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    ENDED,
    HELD,
    JOB_ID,
    LEFT,
    PAUSED,
    QUEUED,
    RELEASED,
    RETRYING,
    RUN_TIMEOUT,
    SCHEDULED,
    SECOND,
    end_step,
    ids,
    job_in,
)

EXPIRE = Expire(job_id=JOB_ID)


def expire(job: Job, now: int) -> Decision:
    return decide(job, EXPIRE, now=Instant(now), new_id=ids())


def instant(seconds: int | None) -> Instant | None:
    return None if seconds is None else Instant(seconds * SECOND)


def held_until(
    *, lease: int, run: int | None = None, cancelled: int | None = None, max_attempts: int = 3
) -> Job:
    """Return a held job with deadlines at these seconds, asked to cancel at that one."""
    return replace(
        job_in(HELD),
        max_attempts=max_attempts,
        lease_expire_time=instant(lease),
        run_timeout=None if run is None else RUN_TIMEOUT,
        run_expire_time=instant(run),
        cancel_request_time=instant(cancelled),
        cancel_reason="too dear",
    )


@pytest.mark.parametrize(
    ("job", "seconds"),
    [
        (job_in(QUEUED), 601),
        (job_in(HELD), 63),
        (job_in(RELEASED), 604),
        (job_in(LEFT), 604),
        (job_in(SCHEDULED), 704),
        (job_in(PAUSED), 704),
        (job_in(RETRYING), 704),
        (replace(job_in(RETRYING), run_expire_time=instant(50)), 50),
        (replace(job_in(LEFT), run_expire_time=instant(603)), 603),
        (replace(job_in(LEFT), run_expire_time=instant(605)), 604),
        (held_until(lease=63, run=62), 62),
        (held_until(lease=63, run=64), 63),
        (held_until(lease=63, cancelled=32), 62),
        (held_until(lease=63, cancelled=34), 63),
        (held_until(lease=63, run=62, cancelled=31), 61),
        *((replace(job_in(state), run_expire_time=instant(70)), None) for state in ENDED),
        *((replace(job_in(state), cancel_request_time=instant(3)), None) for state in ENDED),
    ],
)
def test_the_deadline_is_the_earliest_of_the_times_that_apply(
    job: Job, seconds: int | None
) -> None:
    assert deadline(job) == instant(seconds)


# Which reason is recorded if several deadlines passed before the reaper came: a cancellation
# before the run timeout, and that before the lease.
@pytest.mark.parametrize(
    ("job", "now", "reason"),
    [
        # the grace is over, and so is …
        (held_until(lease=99, cancelled=10), 40, "CANCELLED"),
        (held_until(lease=20, cancelled=10), 40, "CANCELLED"),
        (held_until(lease=99, cancelled=10, run=20), 40, "CANCELLED"),
        (held_until(lease=20, cancelled=10, run=20), 40, "CANCELLED"),
        # the grace is not over, but the lease is: no worker is left to finish the job
        (held_until(lease=20, cancelled=10), 20, "CANCELLED"),
        (held_until(lease=20, cancelled=10, run=20), 20, "CANCELLED"),
        (held_until(lease=20, cancelled=10, max_attempts=1), 20, "CANCELLED"),
        # neither is over, but the time to run is
        (held_until(lease=99, cancelled=10, run=20), 20, "CANCELLED"),
        # nobody asked to cancel
        (held_until(lease=20, run=20), 20, "RUN_EXPIRED"),
        (held_until(lease=20, run=30), 40, "RUN_EXPIRED"),
        (held_until(lease=20, run=20, max_attempts=1), 20, "RUN_EXPIRED"),
        (held_until(lease=20, run=41, max_attempts=1), 40, "LEASE_EXPIRED"),
        (held_until(lease=20, run=41), 40, None),
        # perhaps no worker claims what was started by its id
        (replace(held_until(lease=20, max_attempts=0), started_by_id=True), 20, "LEASE_EXPIRED"),
        (replace(held_until(lease=20, max_attempts=2), started_by_id=True), 20, None),
        # nobody holds it
        (replace(job_in(LEFT), run_expire_time=instant(700)), 700, "RUN_EXPIRED"),
        (replace(job_in(LEFT), run_expire_time=instant(701)), 700, "QUEUE_EXPIRED"),
        (replace(job_in(LEFT), max_attempts=1), 700, "QUEUE_EXPIRED"),
    ],
)
def test_the_reported_reason_where_several_deadlines_have_passed(
    job: Job, now: int, reason: str | None
) -> None:
    decision = expire(job, now * SECOND)
    assert decision.changed
    error = decision.job.error
    assert (error.reason if error else None) == reason
    if reason is None:
        assert decision.job.status is JobStatus.PROCESSING
        assert not decision.job.leased


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (
            held_until(lease=20, max_attempts=1),
            JobError("LEASE_EXPIRED", "worker 'worker-1' lost its lease, and no attempts are left"),
        ),
        (
            held_until(lease=99, run=20),
            JobError("RUN_EXPIRED", "the job did not finish within its run timeout"),
        ),
        (held_until(lease=20, cancelled=10), JobError("CANCELLED", "too dear")),
        (
            replace(job_in(LEFT), queue_expire_time=instant(20)),
            JobError("QUEUE_EXPIRED", "no worker claimed the job within its queue timeout"),
        ),
    ],
)
def test_a_job_failed_by_the_service_keeps_what_was_reported(job: Job, error: JobError) -> None:
    now = Instant(20 * SECOND)
    decision = expire(job, now)
    assert decision == Decision(
        job=replace(
            job,
            status=JobStatus.FAILED,
            phase=None,
            error=error,
            lease_duration=None,
            lease_expire_time=None,
            queue_expire_time=None,
            retry_time=None,
            complete_time=now,
            update_time=now,
            version=job.version + 1,
        ),
        transition=end_step(JobStatus.FAILED, job.version + 1, "system", error.reason, time=now),
    )
    assert decision.job.progress == 40, "FAILED keeps it"
