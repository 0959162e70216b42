"""Each job has exactly one outcome, or none if it is no longer this worker's."""

import asyncio
import time

import grpc
import pytest

from jobledger.worker import Completed, Worker
from tests.e2e.worker.rules import refuse, refuse_with

LEASE = 0.9


# --- a job that is someone else's -----------------------------------------------------------------


async def lost_handler(service, client, running, **options):
    """Run a handler until it is cancelled, and see that its outcome is not sent."""
    worker = Worker(client, lease=LEASE)
    ended = asyncio.Event()

    @worker.handler("render", **options)
    async def render(job):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(asyncio.CancelledError):
                await job.progress(99)
            with pytest.raises(asyncio.CancelledError):
                await job.add_asset("image/png", url="https://example.com/late.png")
            return Completed({"late": True})
        finally:
            ended.set()

    @worker.handler("next")
    async def following(job):
        pass

    service.offer()
    running(worker)
    await ended.wait()
    # The slot is free for the next job, whose outcome is the only one that is sent.
    following_job = service.offer("next")
    end = await service.called("TransitionJob")
    assert end.job_id == following_job.id
    assert len(service.requests("TransitionJob")) == 1
    assert service.requests("CreateAsset") == []
    return [request.job_id for request in service.requests("ReleaseJob")]


async def test_a_handler_whose_job_is_gone_is_stopped_and_its_outcome_discarded(
    service, fake_client, running
):
    service.rules["UpdateProgress"] = refuse_with("LEASE_LOST")
    assert await lost_handler(service, fake_client, running, on_cancel="flag") == []


async def test_a_handler_without_a_renewal_in_time_is_stopped_and_its_job_released(
    service, fake_client, running, caplog
):
    service.rules["UpdateProgress"] = refuse(grpc.StatusCode.UNAVAILABLE)
    # No answer said that another worker has the job.
    assert len(await lost_handler(service, fake_client, running)) == 1
    lost = [each.getMessage() for each in warnings(caplog)]
    assert any("no longer this worker's" in each for each in lost)
    assert not any("blocked" in each for each in lost)


@pytest.mark.parametrize("returns", [False, True])
async def test_a_handler_that_blocks_the_event_loop_is_named_as_the_cause_of_a_lost_lease(
    service, fake_client, running, caplog, returns
):
    worker = Worker(fake_client, lease=LEASE, concurrency=2)
    service.rules["TransitionJob"] = refuse_with("LEASE_LOST")

    @worker.handler("waits")
    def waits(job):  # in a thread: it blocks nothing
        while True:
            job.progress()
            time.sleep(0.01)

    @worker.handler("blocks")
    async def blocks(job):
        if returns:
            await asyncio.sleep(0.05)
        time.sleep(2 * LEASE)  # the fault
        if not returns:
            await asyncio.Event().wait()

    service.offer("waits")
    job = service.offer("blocks")
    running(worker)
    await until(lambda: any(job.id in each.getMessage() for each in warnings(caplog)))
    (line,) = [each.getMessage() for each in warnings(caplog) if job.id in each.getMessage()]
    assert "; the event loop was blocked for 1." in line
    assert line.endswith("while it ran blocks: code that blocks belongs in a plain function")


def warnings(caplog):
    return [each for each in caplog.records if each.levelname == "WARNING"]


async def until(happened):
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0.01)


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


async def test_a_lost_lease_that_an_asset_finds_out_is_raised_once_so_that_a_handler_can_clean_up(
    service, fake_client, running
):
    service.rules["CreateAsset"] = refuse_with("LEASE_LOST")
    worker = Worker(fake_client)
    cleaned_up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @worker.handler("render")
    async def render(job):
        try:
            await job.add_asset("image/png", url="https://example.com/late.png")
        finally:
            try:
                await asyncio.sleep(0)
                cleaned_up.set_result(True)
            except asyncio.CancelledError:
                cleaned_up.set_result(False)

    service.offer()
    running(worker)
    assert await cleaned_up
