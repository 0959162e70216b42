"""Each job has exactly one outcome, or none if it is no longer this worker's."""

import asyncio
import time

import grpc
import pytest

from jobledger import Asset
from jobledger.v1.job_pb2 import JobStatus
from jobledger.worker import Completed, Failed, Partial, Release, Worker
from tests.e2e.worker.rules import refuse, refuse_with

COMPLETED = JobStatus.JOB_STATUS_COMPLETED
PARTIAL = JobStatus.JOB_STATUS_PARTIAL
FAILED = JobStatus.JOB_STATUS_FAILED
LEASE = 0.9


async def end_of(service, client, running, function, **options):
    """Run one job with this handler; return the call that ended it."""
    worker = Worker(client)
    worker.handler("render", **options)(function)
    service.offer()
    running(worker)
    return await service.called("TransitionJob")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Completed({"a": 1}), COMPLETED), (Partial({"a": 1}), PARTIAL), (Failed("no"), FAILED)],
)
async def test_what_a_handler_returns_is_the_outcome(
    service, fake_client, running, outcome, status
):
    async def render(job):
        return outcome

    end = await end_of(service, fake_client, running, render)
    assert end.target_status == status
    assert end.finish.HasField("result") == (status != FAILED)


async def test_assets_and_details_are_sent_with_the_outcome(service, fake_client, running):
    asset = Asset(asset_type="image/png", url="https://example.com/a.png")

    async def render(job):
        return Partial({"a": 1}, "no sound", "NO_SOUND", details={"track": 2}, assets=[asset])

    end = await end_of(service, fake_client, running, render)
    assert [*end.finish.assets] == [asset.to_new_proto()]
    assert (end.finish.error.reason, end.finish.error.message) == ("NO_SOUND", "no sound")
    assert end.finish.error.details["track"] == 2


async def test_a_handler_can_release_its_job(service, fake_client, running):
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        return Release()

    job = service.offer()
    running(worker)
    request = await service.called("ReleaseJob")
    assert (request.job_id, request.attempt) == (job.id, 1)
    assert service.requests("TransitionJob") == []


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


@pytest.mark.parametrize("on_cancel", ["raise", "flag"])
async def test_a_handler_whose_job_is_gone_is_stopped_and_its_outcome_discarded(
    service, fake_client, running, on_cancel
):
    service.rules["UpdateProgress"] = refuse_with("LEASE_LOST")
    assert await lost_handler(service, fake_client, running, on_cancel=on_cancel) == []


async def test_a_handler_without_a_renewal_in_time_is_stopped_and_its_job_released(
    service, fake_client, running
):
    service.rules["UpdateProgress"] = refuse(grpc.StatusCode.UNAVAILABLE)
    # No answer said that another worker has the job.
    assert len(await lost_handler(service, fake_client, running)) == 1


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


async def test_a_lease_that_is_lost_otherwise_is_not_blamed_on_the_event_loop(
    service, fake_client, running, caplog
):
    service.rules["UpdateProgress"] = refuse(grpc.StatusCode.UNAVAILABLE)
    await lost_handler(service, fake_client, running)
    lost = [each.getMessage() for each in warnings(caplog)]
    assert any("no longer this worker's" in each for each in lost)
    assert not any("blocked" in each for each in lost)


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


async def test_an_asset_that_the_service_refuses_raises_in_the_handler(
    service, fake_client, running
):
    service.rules["CreateAsset"] = refuse(grpc.StatusCode.INVALID_ARGUMENT)

    async def render(job):
        await job.add_asset("image/png")

    end = await end_of(service, fake_client, running, render)
    assert (end.target_status, end.finish.error.reason) == (FAILED, "JOBLEDGER_ERROR")


async def test_an_outcome_that_comes_too_late_is_discarded_and_the_worker_goes_on(
    service, fake_client, running
):
    worker = Worker(fake_client)
    service.rules["TransitionJob"] = refuse_with("LEASE_LOST")

    @worker.handler("render")
    async def render(job):
        return Completed({})

    service.offer()
    running(worker)
    await service.called("TransitionJob")
    service.rules.clear()
    job = service.offer()
    assert (await service.called("TransitionJob", 2)).job_id == job.id
