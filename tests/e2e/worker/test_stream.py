"""How the reports of a worker travel: over one stream, or as calls where there is none."""

import asyncio
import contextlib
import itertools

import grpc
import pytest

from jobledger import AsyncClient, JobStatus
from jobledger.worker import Completed, Worker
from tests.support.observed_channel import ObservedChannel

LEASE = 0.9

with_streams = pytest.mark.parametrize("way", ["stream"])
without_streams = pytest.mark.parametrize("way", ["calls"])


def called(service):
    """Count the reports that came as calls."""
    return len(service.requests("UpdateProgress")) - service.streamed


@contextlib.asynccontextmanager
async def busy(service, client, running, jobs=1, **options):
    """A worker whose jobs run until the end of this, and then end well."""
    worker = Worker(client, concurrency=jobs, **options)
    done = asyncio.Event()

    @worker.handler("render")
    async def render(job):
        step = 0
        while not done.is_set():
            step += 1
            await job.progress(step % 100)
            await asyncio.sleep(0.01)
        return Completed({"steps": step})

    for _ in range(jobs):
        service.offer()
    running(worker)
    yield
    done.set()
    ends = [await service.called("TransitionJob", each + 1) for each in range(jobs)]
    assert {end.target_status for end in ends} == {JobStatus.COMPLETED.to_proto()}


@with_streams
async def test_the_reports_of_all_jobs_share_one_stream(service, fake_client, running):
    async with busy(service, fake_client, running, jobs=20):
        await service.called("UpdateProgress", 100)
    assert (service.streams, called(service)) == (1, 0)
    assert len({request.job_id for request in service.requests("UpdateProgress")}) == 20


@without_streams
async def test_a_service_that_does_not_know_the_stream_is_asked_once(service, fake_client, running):
    async with busy(service, fake_client, running, jobs=5, lease=LEASE):
        await service.called("UpdateProgress", 50)
    # All five may have had their first report under way.
    assert 1 <= service.streams <= 5
    assert called(service) >= 50


async def hang(requests, context):
    await asyncio.Event().wait()


@with_streams
@pytest.mark.parametrize("how", ["breaks", "hangs", "is forbidden"])
async def test_where_a_stream_does_not_get_through_calls_keep_the_jobs(
    service, fake_client, running, how
):
    service.rules["ReportProgress"] = {
        "breaks": service.refuse(grpc.StatusCode.UNAVAILABLE),
        "hangs": hang,
        "is forbidden": service.refuse(grpc.StatusCode.PERMISSION_DENIED),
    }[how]
    async with busy(service, fake_client, running, jobs=3, lease=LEASE):
        # For longer than their leases, and while the stream is tried again.
        await service.called("UpdateProgress", 60)
    assert service.streamed == 0
    assert service.streams >= 2


@with_streams
async def test_a_stream_that_works_again_is_used_again(service, fake_client, running):
    service.rules["ReportProgress"] = service.refuse(grpc.StatusCode.UNAVAILABLE)
    async with busy(service, fake_client, running, jobs=3):
        await service.called("UpdateProgress", 5)
        del service.rules["ReportProgress"]
        async with asyncio.timeout(20):
            while service.streamed < 20:
                await asyncio.sleep(0.01)
        before = called(service)
        await service.called("UpdateProgress", len(service.requests("UpdateProgress")) + 20)
        assert called(service) == before


@with_streams
async def test_an_unavailable_service_is_no_reason_to_leave_the_stream(
    service, fake_client, running
):
    unavailable = service.refuse(grpc.StatusCode.UNAVAILABLE, 6)
    service.rules["ReportProgress"] = service.rules["UpdateProgress"] = unavailable
    async with busy(service, fake_client, running, lease=20):
        await service.called("UpdateProgress", 20)
    # A call was tried when three streams had broken, and answered no better.
    assert (called(service), service.streams) == (1, 6)


async def test_a_busy_worker_reports_to_the_real_service_over_one_stream(running, job_type, server):
    """With the real one: a watcher receives what a worker reports over the stream."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        observed = ObservedChannel(channel)
        client = AsyncClient(channel=observed, user_id="ada")
        worker = Worker(client, concurrency=3)
        go = asyncio.Event()

        @worker.handler(job_type)
        async def render(job):
            await job.progress(40, "halfway")
            await go.wait()
            return Completed()

        jobs = [await client.create_job(job_type) for _ in range(3)]
        working = running(worker)
        for job in jobs:
            async with client.watch(job.id) as changes:
                async for change in changes:
                    if change.job.progress_message == "halfway":
                        break
        go.set()
        for job in jobs:
            done = await client.wait(job.id, timeout=20)
            assert done.status == JobStatus.COMPLETED
        worker.stop()
        await working
    assert (observed.count("ReportProgress"), observed.count("UpdateProgress")) == (1, 0)


async def test_the_reason_of_a_cancellation_comes_over_the_stream(server, running, job_type):
    async with AsyncClient(server.target, user_id="ada") as client:
        worker = Worker(client, lease=5)
        reasons = []

        @worker.handler(job_type)
        async def render(job):
            try:
                for step in itertools.count():
                    await job.progress(step % 100)
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                reasons.append(job.cancel_reason)
                raise

        job = await client.create_job(job_type)
        running(worker)
        async with client.watch(job.id) as changes:
            async for change in changes:
                if change.job.progress:
                    break
        await client.cancel_job(job.id, "not needed")
        done = await client.wait(job.id, timeout=20)
        assert (reasons, done.error.message) == (["not needed"], "not needed")
