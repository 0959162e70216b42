"""Retries: a policy, failures that another attempt may mend, and releases that wait."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.app import App
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import FAILED, PROCESSING, Caller, policy, refusal
from tests.support.work_stream import reason, working

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


async def test_a_retry_policy_has_every_field_and_defaults(call: Caller) -> None:
    given = (await call.job()).retry_policy
    assert given == job_pb2.RetryPolicy(
        max_attempts=3,
        initial_backoff=Duration(seconds=1),
        max_backoff=Duration(seconds=300),
        backoff_multiplier=2,
    )
    # Where only the first backoff is given, the longest one is not shorter.
    given = (await call.job(retry_policy={"initial_backoff": Duration(seconds=600)})).retry_policy
    assert given.max_backoff == Duration(seconds=600)


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
        job_pb2.RetryPolicy(
            max_attempts=3,
            initial_backoff=Duration(nanos=123_456_000),
            max_backoff=Duration(seconds=1, nanos=1000),
            backoff_multiplier=1.1,
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


async def test_every_violation_of_a_retry_policy_is_named(call: Caller) -> None:
    bad = job_pb2.RetryPolicy(
        max_attempts=1001,
        initial_backoff=Duration(seconds=86_401),
        max_backoff=Duration(seconds=7 * 86_400 + 1),
        backoff_multiplier=0.5,
    )
    refused = await refusal(call.job(retry_policy=bad))
    assert [each.field for each in refused.details["BadRequest"].field_violations] == [
        "retry_policy.max_attempts",
        "retry_policy.initial_backoff",
        "retry_policy.max_backoff",
        "retry_policy.backoff_multiplier",
    ]


# --- retryable failures, by each way to report one -----------------------------------------------

Fail = Callable[..., Any]
"""Reports a failure of a job, and returns the job as it is afterwards, or the reason why not."""


@asynccontextmanager
async def by_mark(call: Caller, _: App) -> AsyncIterator[Fail]:
    async def fail(job: Any, **fields: Any) -> Any:
        return (await call.MarkFailed(job_id=job.id, attempt=job.attempt, finish=fields)).job

    yield fail


@asynccontextmanager
async def by_transition(call: Caller, _: App) -> AsyncIterator[Fail]:
    async def fail(job: Any, **fields: Any) -> Any:
        names = {"job_id": job.id, "attempt": job.attempt, "target_status": FAILED}
        return (await call.TransitionJob(**names, finish=fields)).job

    yield fail


@asynccontextmanager
async def by_stream(call: Caller, app: App) -> AsyncIterator[Fail]:
    async with (
        grpc.aio.insecure_channel(app.address) as channel,
        working(channel, worker_id="w1") as worker,
    ):

        async def fail(job: Any, **fields: Any) -> Any:
            finish = pb.FinishUpdate(status=FAILED, **fields)
            update = pb.JobUpdate(job_id=job.id, attempt=job.attempt, finish=finish)
            await worker.send(updates=[update])
            (result,) = await worker.results()
            assert reason(result) == ""
            stored = (await call.GetJob(job_id=job.id, user_id="ada", view="JOB_VIEW_BASIC")).job
            assert (result.version, result.applied) == (stored.version, True)
            return stored

        yield fail


each_way = in_turn("way", [by_mark, by_transition, by_stream])


@each_way
async def test_a_retryable_failure_waits_and_the_next_attempt_goes_on(
    call: Caller, app: App, way: Any
) -> None:
    async with way(call, app) as fail:
        job = await call.running(retry_policy=policy(2), parameters={"n": 1})
        await call.UpdateProgress(
            job_id=job.id, attempt=1, progress={"progress": 60, "checkpoint": {"step": 3}}
        )
        failure = {"error": ERROR, "result": {"lost": 1}, "assets": [ASSET], "retryable": True}
        waiting = await fail(job, **failure)
        assert (waiting.status, waiting.held, waiting.attempt) == (PROCESSING, False, 1)
        assert (waiting.last_error.reason, waiting.last_error.message) == (
            "NO_NETWORK",
            "Das Netz ist fort",
        )
        assert not waiting.HasField("error")
        assert 0.08 <= pause_of(waiting) <= 0.12
        assert waiting.queue_expire_time.ToMicroseconds() == (
            waiting.schedule_time.ToMicroseconds() + 7 * 86_400 * 10**6
        )
        assert await fail(job, **failure) == waiting  # a retry after a lost answer

        again = await claimed(call)
        assert (again.id, again.attempt, again.worker_id, again.progress) == (job.id, 2, "w2", 0)
        assert (dict(again.checkpoint), again.last_error) == ({"step": 3}, waiting.last_error)
        assert again.parameters["n"] == 1
        assert not again.HasField("result")
        assert not again.HasField("schedule_time")

        last = {**ERROR, "message": "noch immer"}
        ended = await fail(again, error=last, retryable=True)
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
        steps = (await call.ListTransitions(job_id=job.id, user_id="ada")).transitions
        assert [(each.to_status, each.reason) for each in steps] == [
            (PROCESSING, ""),
            (FAILED, "NO_NETWORK"),
        ]


@each_way
async def test_a_retry_delay_replaces_the_pause(call: Caller, app: App, way: Any) -> None:
    async with way(call, app) as fail:
        job = await call.running(retry_policy=policy(2))
        waiting = await fail(
            job, error=ERROR, retryable=True, retry_delay=Duration(seconds=365 * 86_400)
        )
        assert pause_of(waiting) == 365 * 86_400
        job = await call.running(retry_policy=policy(2))
        waiting = await fail(job, error=ERROR, retryable=True, retry_delay=Duration())
        assert not waiting.HasField("schedule_time")
        again = await claimed(call, wait=None)  # at once
        assert (again.id, again.attempt) == (job.id, 2)


# --- releases ------------------------------------------------------------------------------------


@asynccontextmanager
async def released_by_call(call: Caller, _: App) -> AsyncIterator[Any]:
    async def release(job: Any, **fields: Any) -> Any:
        return (await call.ReleaseJob(job_id=job.id, attempt=job.attempt, release=fields)).job

    yield release


@asynccontextmanager
async def released_by_stream(call: Caller, app: App) -> AsyncIterator[Any]:
    async with (
        grpc.aio.insecure_channel(app.address) as channel,
        working(channel, worker_id="w1") as worker,
    ):

        async def release(job: Any, **fields: Any) -> Any:
            update = pb.ReleaseUpdate(**fields)
            await worker.send(
                updates=[pb.JobUpdate(job_id=job.id, attempt=job.attempt, release=update)]
            )
            (result,) = await worker.results()
            assert reason(result) == ""
            return (await call.GetJob(job_id=job.id, user_id="ada", view="JOB_VIEW_BASIC")).job

        yield release


each_release = in_turn("way", [released_by_call, released_by_stream])


@each_release
async def test_a_release_waits_for_its_delay(call: Caller, app: App, way: Any) -> None:
    async with way(call, app) as release:
        job = await call.running()
        waiting = await release(job, delay=Duration(seconds=3600))
        assert (waiting.status, waiting.held, pause_of(waiting)) == (PROCESSING, False, 3600)
        assert not waiting.HasField("last_error")
        assert await release(job, delay=Duration(seconds=1)) == waiting  # a retry
    assert not (await call.ClaimJobs(worker_id="w", job_types=["render"])).jobs


async def test_a_late_retryable_failure_is_refused(call: Caller) -> None:
    job = await call.running(retry_policy=policy(3))
    failure = {"job_id": job.id, "finish": {"error": ERROR, "retryable": True}}
    await call.MarkFailed(attempt=1, **failure)
    other = {**failure, "finish": {"error": {"message": "another one"}, "retryable": True}}
    assert (await refusal(call.MarkFailed(attempt=1, **other))).reason == "LEASE_LOST"
    await claimed(call)
    assert (await refusal(call.MarkFailed(attempt=1, **failure))).reason == "LEASE_LOST"
