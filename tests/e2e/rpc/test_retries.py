"""Retries: a policy, failures that another attempt may mend, and releases that wait."""

from typing import Any

from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_pb2
from tests.support.rpc_caller import FAILED, PROCESSING, Caller, policy

ERROR = {"reason": "NO_NETWORK", "message": "Das Netz ist fort", "details": {"host": "ü"}}
ASSET = {"asset_type": "text/plain", "url": "https://e.example/log"}
RETRIED = job_pb2.ATTEMPT_OUTCOME_RETRIED


def pause_of(job: Any) -> float:
    """Return the seconds that a job waits before its next attempt."""
    return (job.schedule_time.ToMicroseconds() - job.update_time.ToMicroseconds()) / 1e6


async def claimed(call: Caller, **fields: Any) -> Any:
    """Claim the one job there is, as soon as it is due."""
    claim = {"worker_id": "w2", "job_types": ["render"], "wait": Duration(seconds=20), **fields}
    (job,) = (await call.ClaimJobs(**claim)).jobs
    return job


# --- the policy ----------------------------------------------------------------------------------


async def test_a_retry_policy_is_kept_to_its_bounds(call: Caller) -> None:
    for bound in (
        job_pb2.RetryPolicy(
            max_attempts=1,
            initial_backoff=Duration(nanos=100_000_000),
            max_backoff=Duration(nanos=100_000_000),
            backoff_multiplier=1,
        ),
        job_pb2.RetryPolicy(
            max_attempts=1000,
            initial_backoff=Duration(seconds=86_400),
            max_backoff=Duration(seconds=7 * 86_400),
            backoff_multiplier=100,
        ),
        job_pb2.RetryPolicy(  # a number of seconds that a float does not hold exactly
            max_attempts=3,
            initial_backoff=Duration(seconds=2, nanos=7_000_000),
            max_backoff=Duration(seconds=2, nanos=7_000_000),
            backoff_multiplier=1,
        ),
    ):
        job = await call.job(retry_policy=bound)
        assert (await call.GetJob(job_id=job.id, user_id="ada")).job.retry_policy == bound


# --- retryable failures and releases: a stream of work takes the same (test_requests.py) --------


async def fail(call: Caller, job: Any, **fields: Any) -> Any:
    """Report a failure of a job; return the job as it is afterwards."""
    return (await call.MarkFailed(job_id=job.id, attempt=job.attempt, finish=fields)).job


async def test_a_retryable_failure_waits_and_the_next_attempt_goes_on(call: Caller) -> None:
    job = await call.running(retry_policy=policy(2), parameters={"n": 1})
    await call.UpdateProgress(
        job_id=job.id, attempt=1, progress={"progress": 60, "checkpoint": {"step": 3}}
    )
    failure = {"error": ERROR, "result": {"lost": 1}, "assets": [ASSET], "retryable": True}
    waiting = await fail(call, job, **failure)
    assert (waiting.status, waiting.held, waiting.attempt) == (PROCESSING, False, 1)
    assert (waiting.last_error.reason, waiting.last_error.message) == (
        "NO_NETWORK",
        "Das Netz ist fort",
    )
    assert not waiting.HasField("error")
    assert 0.08 <= pause_of(waiting) <= 0.12
    assert await fail(call, job, **failure) == waiting  # a retry after a lost answer

    again = await claimed(call)
    assert (again.id, again.attempt, again.worker_id, again.progress) == (job.id, 2, "w2", 0)
    assert (dict(again.checkpoint), again.last_error) == ({"step": 3}, waiting.last_error)
    assert again.parameters["n"] == 1
    assert not again.HasField("result")
    assert not again.HasField("schedule_time")

    ended = await fail(call, again, error={**ERROR, "message": "noch immer"}, retryable=True)
    assert (ended.status, ended.error.reason, ended.error.message) == (
        FAILED,
        "NO_NETWORK",
        "noch immer",
    )
    assert ended.last_error == waiting.last_error
    full = (await call.GetJob(job_id=job.id, user_id="ada")).job
    assert full.error.details["host"] == "ü"
    assert full.checkpoint["step"] == 3
    first, second = (await call.ListAttempts(job_id=job.id, user_id="ada")).attempts
    assert (first.outcome, first.progress, first.error) == (RETRIED, 60, waiting.last_error)
    assert second.outcome == job_pb2.ATTEMPT_OUTCOME_FAILED
    assert len((await call.ListAssets(job_id=job.id, user_id="ada")).assets) == 1


async def test_a_retry_delay_replaces_the_pause(call: Caller) -> None:
    year = Duration(seconds=365 * 86_400)
    job = await call.running(retry_policy=policy(2))
    waiting = await fail(call, job, error=ERROR, retryable=True, retry_delay=year)
    assert pause_of(waiting) == year.seconds
    job = await call.running(retry_policy=policy(2))
    waiting = await fail(call, job, error=ERROR, retryable=True, retry_delay=Duration())
    assert not waiting.HasField("schedule_time")
    again = await claimed(call, wait=None)  # at once
    assert (again.id, again.attempt) == (job.id, 2)
