"""`progress()` without arguments asks the service whether to go on."""

import asyncio

import pytest

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.worker import Completed, Worker
from tests.e2e.worker.rules import asks_to_cancel, refuse_with
from tests.e2e.worker.test_endings import end_of


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_cancellation_is_raised_by_the_next_progress_call(
    service, fake_client, running, blocking
):
    service.rules["UpdateProgress"] = asks_to_cancel
    asked = []

    def blocking_render(job):
        try:
            job.progress()
        finally:
            asked.append((job.cancel_requested, job.cancel_reason))
        raise AssertionError("the call did not raise")

    async def render(job):
        try:
            await job.progress()
        finally:
            asked.append((job.cancel_requested, job.cancel_reason))
        raise AssertionError("the call did not raise")

    end = await end_of(service, fake_client, running, blocking_render if blocking else render)
    assert (end.error.reason, asked) == ("CANCELLED", [(True, "not needed")])
    (request,) = service.requests("UpdateProgress")
    assert request == pb.UpdateProgressRequest(job_id=end.job_id, attempt=1)


@pytest.mark.parametrize("blocking", [False, True])
async def test_with_a_flag_a_cancellation_is_known_when_the_call_returns(
    service, fake_client, running, blocking
):
    service.rules["UpdateProgress"] = asks_to_cancel

    def blocking_render(job):
        job.progress()
        return {"known": job.cancel_requested}

    async def render(job):
        await job.progress()
        return {"known": job.cancel_requested}

    function = blocking_render if blocking else render
    end = await end_of(service, fake_client, running, function, on_cancel="flag")
    assert end.result["known"] is True
    assert len(service.requests("UpdateProgress")) == 1


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_lost_lease_is_raised_by_the_next_progress_call(
    service, fake_client, running, blocking
):
    service.rules["UpdateProgress"] = refuse_with("LEASE_LOST")
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def blocking_render(job):
        with pytest.raises(asyncio.CancelledError):
            job.progress()
        loop.call_soon_threadsafe(asked.set)
        return Completed()

    async def render(job):
        with pytest.raises(asyncio.CancelledError):
            await job.progress()
        asked.set()
        return Completed()

    worker = Worker(fake_client)
    worker.handler("render")(blocking_render if blocking else render)
    service.offer()
    run = running(worker)
    await asked.wait()
    worker.stop()
    await run
    assert service.requests("TransitionJob") == []


async def test_a_handler_sees_a_cancellation_by_the_service_at_its_next_progress_call(
    client, running, job_type
):
    worker = Worker(client)
    started, cancelled = asyncio.Event(), asyncio.Event()

    @worker.handler(job_type)
    async def render(job):
        started.set()
        await cancelled.wait()
        await job.progress()
        raise AssertionError("the call did not raise")

    job = await client.create_job(job_type)
    running(worker)
    await started.wait()
    await client.cancel_job(job.id, "not needed")
    cancelled.set()
    done = await client.wait(job.id, timeout=10)
    assert (done.error.reason, done.error.message) == ("CANCELLED", "not needed")
