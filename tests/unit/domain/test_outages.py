"""A lease that expires in an outage: how long it is extended, and what is not."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import Cancel, Expire, Report
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Instant, Job, JobStatus
from jobledger_server.domain.leases import CANCEL_GRACE
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    ENDED_BY,
    HELD,
    JOB_ID,
    LEASE,
    OWNER,
    RUN_TIMEOUT,
    SECOND,
    ids,
    job_in,
)

JOB = job_in(HELD)
assert JOB.lease_expire_time == 63 * SECOND
RESUMED = Instant(200 * SECOND)


def expire(job: Job, now: int, resumed_at: int | None = RESUMED) -> Decision:
    at = None if resumed_at is None else Instant(resumed_at)
    return decide(job, Expire(job_id=JOB_ID), now=Instant(now), new_id=ids(), resumed_at=at)


def test_a_lease_is_extended_to_a_full_lease_after_the_outage() -> None:
    assert expire(JOB, RESUMED + SECOND) == Decision(
        job=replace(JOB, lease_expire_time=Instant(RESUMED + LEASE)), changed=False, renewed=True
    )


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_worker_that_does_not_return_loses_the_extended_lease(max_attempts: int) -> None:
    job = replace(JOB, max_attempts=max_attempts)
    extended = expire(job, RESUMED).job
    assert expire(extended, RESUMED + LEASE - 1) == Decision(
        job=extended, changed=False, renewed=True
    )
    lost = expire(extended, RESUMED + LEASE).job
    if max_attempts == 1:
        assert (lost.status, lost.error and lost.error.reason) == (
            JobStatus.FAILED,
            "LEASE_EXPIRED",
        )
    else:
        assert (lost.status, lost.leased) == (JobStatus.PROCESSING, False)


def test_a_worker_that_returns_after_an_outage_keeps_its_attempt() -> None:
    extended = expire(replace(JOB, max_attempts=1), RESUMED).job
    end = replace(ENDED_BY[JobStatus.COMPLETED], attempt=1)
    done = decide(extended, end, now=Instant(RESUMED + LEASE - 1), new_id=ids()).job
    assert done.status is JobStatus.COMPLETED


def test_a_lease_is_extended_only_once_for_one_outage() -> None:
    """By another server, whose outage ended a little earlier or later."""
    extended = expire(JOB, RESUMED).job
    for resumed_at in (RESUMED - SECOND, RESUMED, RESUMED + SECOND):
        assert expire(extended, RESUMED + 2 * SECOND, resumed_at).job == extended


def test_a_lease_is_not_extended_when_the_outage_is_a_lease_ago() -> None:
    """Its worker has had the time: any report since then would have renewed it."""
    assert not expire(JOB, RESUMED + LEASE).job.leased


def test_a_lease_that_was_renewed_after_the_outage_is_not_extended() -> None:
    report = Report(job_id=JOB_ID, attempt=1)
    renewed = decide(JOB, report, now=Instant(RESUMED + 1), new_id=ids()).job
    assert renewed.lease_expire_time is not None
    assert not expire(renewed, renewed.lease_expire_time).job.leased


def test_a_lease_that_has_not_expired_is_not_extended() -> None:
    assert expire(JOB, 62 * SECOND, 61 * SECOND).job == JOB


def test_an_outage_extends_neither_the_run_timeout_nor_the_cancellation_grace() -> None:
    running = replace(JOB, run_timeout=RUN_TIMEOUT, run_expire_time=Instant(100 * SECOND))
    error = expire(running, RESUMED).job.error
    assert error is not None
    assert error.reason == "RUN_EXPIRED"
    cancel = Cancel(job_id=JOB_ID, user_id=OWNER)
    asked_at = RESUMED - CANCEL_GRACE + 5 * SECOND
    asked = decide(JOB, cancel, now=Instant(asked_at), new_id=ids()).job
    extended = expire(asked, RESUMED).job
    assert (extended.leased, extended.cancel_request_time) == (True, asked_at)
    ended = expire(extended, RESUMED + 5 * SECOND).job
    assert ended.error is not None
    assert ended.error.reason == "CANCELLED"
