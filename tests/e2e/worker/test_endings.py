"""Each job has exactly one outcome, or none if it is no longer this worker's."""

import asyncio

import grpc
import pytest

from jobledger import Asset
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.job_pb2 import Job, JobStatus
from jobledger.worker import Completed, Failed, Partial, Release, Worker
from tests.e2e.worker.rules import asks_to_cancel, refuse, refuse_with

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


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Completed({"a": 1}), COMPLETED), (Partial({"a": 1}), PARTIAL), (Failed("no"), FAILED)],
)
async def test_what_a_handler_returns_is_the_outcome(
    service, fake_client, running, outcome, status, blocking
):
    def blocking_render(job):
        return outcome

    async def render(job):
        return outcome

    function = blocking_render if blocking else render
    end = await end_of(service, fake_client, running, function)
    assert end.target_status == status
    assert end.HasField("result") == (status != FAILED)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Completed({"a": 1}), "Completed"),
        (Partial({"a": 1}), "Partial"),
        (Failed("no space\nleft", "DISK_FULL"), "Failed (DISK_FULL: no space left)"),
        (Failed("x" * 4096), f"Failed (FAILED: {'x' * 200})"),
        (Partial({}, "no sound"), "Partial (no sound)"),
    ],
)
async def test_the_log_says_how_a_job_finished_and_why(
    service, fake_client, running, caplog, outcome, words
):
    caplog.set_level("INFO", "jobledger.worker")
    worker = Worker(fake_client)

    @worker.handler
    async def render(job):
        return outcome

    job = service.offer()
    run = running(worker)
    await service.called("TransitionJob")
    worker.stop()
    await run
    assert f"job {job.id} (render, attempt 1): {words}" in caplog.messages


async def test_assets_and_details_are_sent_with_the_outcome(service, fake_client, running):
    asset = Asset(asset_type="image/png", url="https://example.com/a.png")

    async def render(job):
        return Partial({"a": 1}, "no sound", "NO_SOUND", details={"track": 2}, assets=[asset])

    end = await end_of(service, fake_client, running, render)
    assert [Asset.from_proto(each) for each in end.assets] == [asset]
    assert (end.error.reason, end.error.message) == ("NO_SOUND", "no sound")
    assert end.error.details["track"] == 2


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_handler_can_release_its_job(service, fake_client, running, blocking):
    def blocking_render(job):
        return Release()

    async def render(job):
        return Release()

    worker = Worker(fake_client)
    worker.handler("render")(blocking_render if blocking else render)
    job = service.offer()
    running(worker)
    request = await service.called("ReleaseJob")
    assert (request.job_id, request.attempt) == (job.id, 1)
    assert service.requests("TransitionJob") == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "result has 300000 bytes"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"),
    ],
)
async def test_an_outcome_that_the_service_refuses_makes_the_job_failed(
    service, fake_client, running, code, words
):
    service.rules["TransitionJob"] = refuse(code, 1, words)

    async def render(job):
        return Completed({"a": 1})

    await end_of(service, fake_client, running, render)
    end = await service.called("TransitionJob", 2)
    assert (end.target_status, end.error.reason) == (FAILED, code.name)
    assert words in end.error.message


# --- cancellation ---------------------------------------------------------------------------------


async def test_a_cancelled_handler_gets_a_cancelled_error(service, fake_client, running):
    service.rules["UpdateProgress"] = asks_to_cancel
    seen = []

    async def render(job):
        await job.progress(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append((job.cancel_requested, job.cancel_reason))
            raise

    end = await end_of(service, fake_client, running, render)
    assert (end.target_status, end.error.reason) == (FAILED, "CANCELLED")
    assert end.error.message == "not needed"
    assert seen == [(True, "not needed")]


async def test_a_handler_with_a_cancellation_flag_is_not_interrupted(service, fake_client, running):
    service.rules["UpdateProgress"] = asks_to_cancel

    async def render(job):
        step = 0
        while not job.cancel_requested:
            step += 1
            await job.progress(step % 100)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)  # cleans up

    end = await end_of(service, fake_client, running, render, on_cancel="flag")
    assert (end.target_status, end.error.reason) == (FAILED, "CANCELLED")


@pytest.mark.parametrize("on_cancel", ["raise", "flag"])
async def test_the_outcome_of_a_cancelled_handler_is_reported(
    service, fake_client, running, on_cancel
):
    service.rules["UpdateProgress"] = asks_to_cancel

    async def render(job):
        await job.progress(1)
        try:
            while not job.cancel_requested:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass
        await job.add_asset("image/png", url="https://example.com/half.png")
        return Partial({"half": True})

    end = await end_of(service, fake_client, running, render, on_cancel=on_cancel)
    assert end.target_status == PARTIAL
    assert len(service.requests("CreateAsset")) == 1


async def test_a_cancellation_is_raised_in_a_plain_function_when_it_reports(
    service, fake_client, running
):
    service.rules["UpdateProgress"] = asks_to_cancel
    cleaned = []

    def render(job):
        try:
            while True:
                job.progress(1)
        finally:
            # Raised once; what belongs to cleaning up can still be reported.
            job.add_asset("image/png", url="https://example.com/half.png")
            cleaned.append(True)

    end = await end_of(service, fake_client, running, render)
    assert (end.error.reason, cleaned) == ("CANCELLED", [True])


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
@pytest.mark.parametrize(
    "reason", ["LEASE_LOST", "JOB_TERMINAL", "JOB_NOT_FOUND", "ILLEGAL_TRANSITION"]
)
async def test_a_handler_whose_job_is_gone_is_stopped_and_its_outcome_discarded(
    service, fake_client, running, reason, on_cancel
):
    service.rules["UpdateProgress"] = refuse_with(reason)
    assert await lost_handler(service, fake_client, running, on_cancel=on_cancel) == []


async def test_a_handler_whose_job_was_finished_by_others_is_stopped(service, fake_client, running):
    async def ended(request, context):
        return pb.UpdateProgressResponse(job=Job(id=request.job_id, status=FAILED))

    service.rules["UpdateProgress"] = ended
    assert await lost_handler(service, fake_client, running) == []
    # At the first such answer, not when the lease is over.
    assert len(service.requests("UpdateProgress")) == 1


async def test_a_handler_without_a_renewal_in_time_is_stopped_and_its_job_released(
    service, fake_client, running
):
    service.rules["UpdateProgress"] = refuse(grpc.StatusCode.UNAVAILABLE)
    # No answer said that another worker has the job.
    assert len(await lost_handler(service, fake_client, running)) == 1


async def test_an_asset_that_the_service_refuses_raises_in_the_handler(
    service, fake_client, running
):
    service.rules["CreateAsset"] = refuse(grpc.StatusCode.INVALID_ARGUMENT)

    async def render(job):
        await job.add_asset("image/png")

    end = await end_of(service, fake_client, running, render)
    assert (end.target_status, end.error.reason) == (FAILED, "JOBLEDGER_ERROR")


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
