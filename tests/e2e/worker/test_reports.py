"""What a worker reports while a handler runs, as the service sees it."""

import asyncio

import grpc
import pytest

from jobledger.v1.job_pb2 import RetryPolicy
from jobledger.worker import Worker
from tests.e2e.worker.rules import refuse


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
