"""The library against the real service: what its users see."""

import asyncio

import pytest

from jobledger import Asset, JobError, JobStatus, RetryPolicy
from jobledger.worker import Completed, Partial, Worker


async def test_a_cancelled_job_of_a_worker_that_stops_is_failed_as_cancelled(
    client, running, job_type
):
    worker = Worker(client, grace=0)
    started = asyncio.Event()

    @worker.handler(job_type)
    async def render(job):
        started.set()
        await asyncio.Event().wait()

    job = await client.create_job(job_type, retry_policy=RetryPolicy(max_attempts=5))
    run = running(worker)
    await started.wait()
    await client.cancel_job(job.id)
    worker.stop()
    await run
    assert (await client.get_job(job.id)).error.reason == "CANCELLED"


async def test_a_result_that_is_too_big_makes_the_job_failed_at_once(client, running, job_type):
    worker = Worker(client)

    @worker.handler(job_type)
    async def render(job):
        size = job.parameters["size"]
        return Completed({f"part {part}": "x" * 200_000 for part in range(size)})

    # Too big for a result, for a message of the service's, and for one of grpc's.
    jobs = [await client.create_job(job_type, {"size": size}) for size in (2, 8, 40)]
    running(worker)
    for job in jobs:
        done = await client.wait(job.id, timeout=20)
        assert done.status == JobStatus.FAILED
        assert "refused" in done.error.message, done.error
        assert done.attempt == 1


async def test_a_result_at_the_depth_limit_is_accepted_and_a_deeper_one_refused_at_once(
    client, running, job_type
):
    worker = Worker(client)

    @worker.handler(job_type)
    async def render(job):
        value = {}
        for _ in range(job.parameters["levels"] - 1):
            value = {"a": value}
        return value

    jobs = [await client.create_job(job_type, {"levels": levels}) for levels in (32, 33, 34, 40)]
    running(worker)
    done = [await client.wait(job.id, timeout=20) for job in jobs]
    assert [each.status.value for each in done] == ["COMPLETED", *["FAILED"] * 3]
    assert all("deeper than 32 levels" in each.error.message for each in done[1:])


async def test_jobs_that_are_larger_together_than_a_message_are_all_done_in_one_attempt(
    client, running, job_type
):
    worker = Worker(client, concurrency=40)

    @worker.handler(job_type)
    async def render(job):
        return {"size": len(job.parameters["blob"])}

    # More than the eight MiB that a client receives, more than the four of gRPC's default.
    jobs = [await client.create_job(job_type, {"blob": "x" * 240_000}) for _ in range(40)]
    running(worker)
    for job in jobs:
        done = await client.wait(job.id, timeout=30)
        assert (done.status, done.attempt) == (JobStatus.COMPLETED, 1)


async def test_an_outcome_with_every_part_is_accepted(client, running, job_type):
    worker = Worker(client)

    @worker.handler(job_type)
    async def render(job):
        asset = Asset("image/png", url="https://example.com/a.png")
        return Partial({"half": True}, "no sound", "NO_SOUND", details={"a": 0}, assets=[asset])

    job = await client.create_job(job_type)
    running(worker)
    done = await client.wait(job.id, timeout=20)
    assert (done.status, done.result) == (JobStatus.PARTIAL, {"half": True})
    assert done.error == JobError("no sound", reason="NO_SOUND", details={"a": 0})
    assert [asset.asset_type async for asset in client.list_assets(job.id)] == ["image/png"]


async def test_plain_functions_run_at_the_same_time(client, running, job_type):
    worker = Worker(client, concurrency=4)
    import threading

    together = threading.Barrier(4, timeout=20)

    @worker.handler(job_type)
    def render(job):
        together.wait()
        asset = job.add_asset("image/png", url="https://example.com/a.png")
        return Completed({"asset": asset.id})

    jobs = [await client.create_job(job_type) for _ in range(4)]
    running(worker)
    for job in jobs:
        done = await client.wait(job.id, timeout=20)
        (asset,) = [asset async for asset in client.list_assets(job.id)]
        assert done.result["asset"] == asset.id


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="new in Python 3.12")
async def test_a_worker_whose_tasks_start_at_once_stops_as_any_other(
    client, running, job_type, caplog
):
    caplog.set_level("INFO", "jobledger.worker")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    started, done = asyncio.Event(), asyncio.Event()
    worker = Worker(client, grace=30)

    @worker.handler(job_type)
    async def render(job):
        started.set()
        await done.wait()

    job = await client.create_job(job_type)
    run = running(worker)
    await started.wait()
    worker.stop()
    async with asyncio.timeout(20):
        while "stopping; jobs running" not in caplog.text:
            await asyncio.sleep(0.01)
    done.set()
    await run
    assert (await client.get_job(job.id)).status == JobStatus.COMPLETED
