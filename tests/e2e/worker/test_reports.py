"""What a worker reports while a handler runs, as the service sees it."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from jobledger import JobStatus
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.job_pb2 import RetryPolicy
from jobledger.worker import Worker
from jobledger_world.world import World
from tests.e2e.worker.rules import refuse


def test_the_lease_of_a_handler_that_never_reports_is_renewed():
    def make(client):
        worker = Worker(client, lease=5)

        @worker.handler("render")
        async def render(job):
            await asyncio.sleep(60)

        return worker

    async def work(world):
        world.worker(make)
        job = await world.client("ada").create_job("render")
        job = await world.finished(job, within=timedelta(minutes=2))
        # With its only attempt, which a lost lease would have used up.
        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)

    world = World(1)  # its time is simulated: no other process can make a renewal late
    world.run(work)
    assert world.loop.time() > 60


async def test_tasks_that_a_handler_leaves_running_are_stopped_by_their_next_call(
    service, fake_client, running
):
    async def wait(request, context):
        await returned.wait()

    service.rules["UpdateProgress"] = wait
    worker = Worker(fake_client)
    returned = asyncio.Event()
    left: list[asyncio.Task[None]] = []

    @worker.handler("render")
    async def render(job):
        async def late(call, **arguments):
            await returned.wait()
            await call(**arguments)

        calls = [
            job.progress(1, wait=True),  # waits while the handler returns
            late(job.progress),
            late(job.progress, progress=2),
            late(job.progress, progress=2, wait=True),
            late(job.add_asset, asset_type="image/png", url="https://example.com/a.png"),
        ]
        left.extend(map(asyncio.create_task, calls))
        await service.called("UpdateProgress")

    service.offer()
    running(worker)
    await service.called("TransitionJob")
    returned.set()
    async with asyncio.timeout(20):
        await asyncio.wait(left)
    assert all(task.cancelled() for task in left)
    assert service.requests("CreateAsset") == []


async def test_the_lease_of_a_handler_that_blocks_its_thread_is_renewed(
    service, fake_client, running
):
    # Longer than this process may stand still on a busy machine, and shorter than four renewals.
    worker = Worker(fake_client, lease=3)
    loop = asyncio.get_running_loop()

    @worker.handler("render")
    def render(job):
        asyncio.run_coroutine_threadsafe(service.called("UpdateProgress", 4), loop).result()

    service.offer()
    running(worker)
    await service.called("TransitionJob")


async def test_of_a_flood_of_progress_the_newest_arrives(service, fake_client, running):
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        for step in range(1000):
            await job.progress(step / 10, f"step {step}")

    service.offer()
    running(worker)
    await service.called("TransitionJob")
    # A slow run renews the lease meanwhile.
    updates = [each.progress for each in service.requests("UpdateProgress")]
    reports = [update for update in updates if update.HasField("progress")]
    progress = [report.progress for report in reports]
    assert progress == sorted(progress)
    assert (reports[-1].progress, reports[-1].progress_message) == (99, "step 999")


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_handler_that_waits_for_a_report_can_be_stopped(
    service, fake_client, running, blocking
):
    worker = Worker(fake_client, grace=0)
    service.rules["UpdateProgress"] = refuse(grpc.StatusCode.UNAVAILABLE)
    stopped = []

    def render_blocking(job):
        with pytest.raises(asyncio.CancelledError):
            job.progress(7, wait=True)
        stopped.append(job.id)
        raise asyncio.CancelledError

    async def render(job):
        with pytest.raises(asyncio.CancelledError):
            await job.progress(7, wait=True)
        stopped.append(job.id)
        raise asyncio.CancelledError

    worker.handler("render")(render_blocking if blocking else render)
    job = service.offer()
    run = running(worker)
    await service.called("UpdateProgress", 2)
    worker.stop()
    await run
    assert stopped == [job.id]
    assert [request.job_id for request in service.requests("ReleaseJob")] == [job.id]


async def test_a_single_report_is_sent_at_once(service, fake_client, running):
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        await job.progress(25, "decoded")
        await service.called("UpdateProgress")

    job = service.offer()
    running(worker)
    assert await service.called("UpdateProgress") == pb.UpdateProgressRequest(
        job_id=job.id,
        attempt=1,
        progress={"progress": 25, "progress_message": "decoded", "report_number": 1},
    )
    end = await service.called("TransitionJob")
    assert not end.HasField("progress")


async def test_every_call_carries_the_attempt(service, fake_client, running):
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        await job.progress(1)
        await job.add_asset("image/png", url="https://example.com/a.png")
        await service.called("UpdateProgress")
        assert (job.attempt, job.max_attempts) == (7, 9)

    service.offer(attempt=7, retry_policy=RetryPolicy(max_attempts=9))
    running(worker)
    await service.called("TransitionJob")
    calls = [request for name, request in service.calls if name != "Work"]
    assert len(calls) >= 3
    assert {request.attempt for request in calls} == {7}
