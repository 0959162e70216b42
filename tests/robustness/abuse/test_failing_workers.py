"""A worker that finishes no job of one type does not keep itself busy with them."""

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_pb2
from jobledger_server.app import App
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller

# A claim of two types begins with either by chance: with fewer good jobs the bad ones may not all
# have had their turns.
BAD, GOOD = 3, 40

PATIENT = job_pb2.RetryPolicy(
    max_attempts=1000, initial_backoff=Duration(seconds=3600), max_backoff=Duration(seconds=3600)
)
"""The pause is longer than a test, so that the number of attempts is exact."""


async def fail(call: Caller, job: Any) -> None:
    error = job_pb2.JobError(reason="BUSY", message="the printer is busy")
    await call.MarkFailed(
        job_id=job.id, attempt=job.attempt, finish={"error": error, "retryable": True}
    )


async def release(call: Caller, job: Any) -> None:
    await call.ReleaseJob(job_id=job.id, attempt=job.attempt)


@sqlite_only
@pytest.mark.parametrize(
    ("give_up", "attempts"),
    # A release may be quick once: the worker that made it shuts down, most often.
    [(fail, 1), (release, 2)],
)
async def test_jobs_that_always_fail_are_tried_a_few_times_and_others_are_served(
    app: App, give_up: Any, attempts: int
) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        bad = [await call.job(job_type="print", retry_policy=PATIENT) for _ in range(BAD)]
        tried, served = 0, 0
        for _ in range(GOOD):
            # The bad ones are older, and claims begin with the oldest.
            good = await call.job(job_type="render")
            while True:
                claim = {"worker_id": "w", "job_types": ["print", "render"]}
                (job,) = (await call.ClaimJobs(**claim)).jobs
                if job.id == good.id:
                    break
                tried += 1
                assert tried <= attempts * BAD, "the good job behind them is never served"
                await give_up(call, job)
            await call.MarkCompleted(job_id=job.id, attempt=1)
            served += 1
        assert (tried, served) == (attempts * BAD, GOOD)
        waiting = [(await call.GetJob(user_id="ada", job_id=job.id)).job for job in bad]
        assert {(job.attempt, job.held) for job in waiting} == {(attempts, False)}
