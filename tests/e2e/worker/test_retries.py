"""How a handler says that another attempt may succeed, and what becomes of its job."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from jobledger import JobStatus, RetryPolicy
from jobledger.worker import RetryLater, Worker
from tests.e2e.worker import process_handlers

HOUR = timedelta(hours=1)


async def until(client, job_id, reached):
    async with client.watch(job_id) as changes:
        async for change in changes:
            if reached(change.job):
                return change.job
    raise AssertionError("the job ended before")


def waits(job):
    return job.attempt == 1 and not job.held


FIRST_PAUSE = (0.8 * HOUR, 1.2 * HOUR)
EXACTLY = (HOUR, HOUR)


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_a_handler_of_any_kind_decides_whether_and_when_its_job_goes_on(
    client, running, job_type, executor
):
    expected = {
        "raises": (FIRST_PAUSE, "FILE_NOT_FOUND_ERROR", "no scene 'castle'"),
        "raises RetryLater": (FIRST_PAUSE, "RETRY_LATER", "busy"),
        "raises RetryLater after": (EXACTLY, "RETRY_LATER", "busy"),
        "returns Failed": (FIRST_PAUSE, "NO_DISK", "no disk"),
        "returns Failed after": (EXACTLY, "NO_DISK", "no disk"),
        "returns Release after": (EXACTLY, None, None),
    }
    worker = Worker(client)
    worker.handler(job_type, executor=executor, retry_on=(KeyError, OSError))(
        process_handlers.ends_as_told
    )
    policy = RetryPolicy(max_attempts=2, initial_backoff=HOUR, max_backoff=HOUR)
    jobs = [
        await client.create_job(job_type, {"end": end}, retry_policy=policy)
        for end in [*expected, "raises another"]
    ]
    running(worker)
    for job, (pause, reason, message) in zip(jobs, expected.values(), strict=False):
        waiting = await until(client, job.id, waits)
        assert waiting.status is JobStatus.PROCESSING
        assert pause[0] <= waiting.schedule_time - waiting.update_time <= pause[1]
        error = waiting.last_error
        assert (error and error.reason, error and error.message) == (reason, message)
    final = await client.wait(jobs[-1].id, timeout=20)
    assert (final.status, final.error.reason) == (JobStatus.FAILED, "VALUE_ERROR")


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_a_later_attempt_goes_on_with_the_checkpoint_and_knows_the_last_error(
    client, running, job_type, executor
):
    worker = Worker(client)
    worker.handler(job_type, executor=executor, retry_on=ConnectionError)(process_handlers.goes_on)
    policy = RetryPolicy(max_attempts=3, initial_backoff=0.1)
    job = await client.create_job(job_type, retry_policy=policy)
    running(worker)
    done = await client.wait(job.id, timeout=20)
    assert (done.status, done.attempt) == (JobStatus.COMPLETED, 3)
    assert done.result == {"checkpoint": {"frame": 2}, "last": "attempt 2"}


async def test_a_checkpoint_that_the_service_refuses_is_raised_where_it_is_waited_for(
    client, running, job_type
):
    worker = Worker(client)

    @worker.handler(job_type)
    async def render(job):
        await job.progress(checkpoint={"frame": float("nan")}, wait=True)

    job = await client.create_job(job_type)
    running(worker)
    done = await client.wait(job.id, timeout=20)
    assert done.error.reason == "INVALID_FIELD"
    assert "checkpoint" in done.error.message


async def test_a_worker_that_ends_no_job_waits_longer_each_time_and_serves_other_types(
    client, running, job_type
):
    attempts: dict[str, list[float]] = {}
    enough = asyncio.Semaphore(0)
    time = asyncio.get_running_loop().time
    worker = Worker(client, concurrency=4)

    @worker.handler(job_type)
    async def broken(job):
        times = attempts.setdefault(job.id, [])
        times.append(time())
        if len(times) == 4:
            enough.release()
        raise RetryLater("no database")

    @worker.handler(f"{job_type}-other")
    async def other(job):
        pass

    policy = RetryPolicy(max_attempts=100, initial_backoff=0.1)
    jobs = [await client.create_job(job_type, retry_policy=policy) for _ in range(20)]
    running(worker)
    for _ in range(20):
        healthy = await client.create_job(f"{job_type}-other")
        assert (await client.wait(healthy.id, timeout=20)).status is JobStatus.COMPLETED
    for _ in jobs:
        await enough.acquire()
    backoffs = [0.1, 0.2, 0.4]
    assert len(attempts) == len(jobs)
    for times in attempts.values():
        pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert all(pause >= 0.8 * backoff for pause, backoff in zip(pauses, backoffs, strict=False))
