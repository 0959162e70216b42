"""A lease that expires in an outage: how long it is extended, and what is not."""

from msgspec.structs import replace

from jobledger_server.domain.commands import Cancel, Expire
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Instant, Job
from jobledger_server.domain.leases import CANCEL_GRACE
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
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
