"""What a worker reports while a handler runs, as the service sees it."""

import asyncio
import time

import grpc
import pytest

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.job_pb2 import JobStatus
from jobledger.worker import Completed, Worker

LEASE = 0.9


@pytest.fixture(params=["stream", "calls"])
def way(request):
    return request.param


async def test_the_lease_of_a_handler_that_never_reports_is_renewed(service, fake_client, running):
    worker = Worker(fake_client, lease=LEASE)
    done = asyncio.Event()

    @worker.handler("render")
    async def render(job):
        await done.wait()

    job = service.offer()
    running(worker)
    request = await service.called("UpdateProgress", 6)
    assert request == pb.UpdateProgressRequest(job_id=job.id, attempt=1)
    times = service.times("UpdateProgress")
    # Thirds, however busy the machine is: six of them are at least 1.8 of it.
    assert times[5] - times[0] > 5 * LEASE / 3 * 0.8
    done.set()
    await service.called("TransitionJob")


async def test_tasks_that_a_handler_leaves_running_are_stopped_by_their_next_call(
    service, fake_client, running
):
    async def hang(request, context):
        await asyncio.Event().wait()

    service.rules["UpdateProgress"] = hang
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


async def test_a_job_claimed_after_a_long_wait_has_a_full_lease(service, fake_client, running):
    worker = Worker(fake_client, lease=LEASE)

    @worker.handler("render")
    async def render(job):
        await service.called("UpdateProgress", 4)
        return Completed({"count": 1})

    running(worker)
    await service.called("Work")
    await asyncio.sleep(LEASE * 1.2)  # what is tested is time itself
    service.offer()
    await service.called("TransitionJob")


@pytest.mark.parametrize("way", ["calls"])
async def test_a_lease_of_unknown_start_is_renewed_at_once(service, fake_client, running):
    worker = Worker(fake_client, lease=3)
    started: list[float] = []

    @worker.handler("render")
    async def render(job):
        started.append(time.monotonic())
        await service.called("UpdateProgress")

    running(worker)
    await service.called("ClaimJobs")
    await asyncio.sleep(1.1)  # more than a third of the lease
    service.offer()
    await service.called("TransitionJob")
    # Without that it would be after 0.9 s.
    assert service.times("UpdateProgress")[0] - started[0] < 0.6


async def test_the_lease_of_a_handler_that_blocks_its_thread_is_renewed(
    service, fake_client, running
):
    worker = Worker(fake_client, lease=LEASE)
    loop = asyncio.get_running_loop()

    @worker.handler("render")
    def render(job):
        asyncio.run_coroutine_threadsafe(service.called("UpdateProgress", 4), loop).result()

    service.offer()
    running(worker)
    await service.called("TransitionJob")


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_flood_of_progress_is_at_most_ten_a_second_and_the_newest_arrives(
    service, fake_client, running, blocking, way
):
    worker = Worker(fake_client)
    if blocking:

        @worker.handler("render")
        def render_blocking(job):
            for step in range(1000):
                job.progress(step / 10, f"step {step}")
    else:

        @worker.handler("render")
        async def render(job):
            for step in range(1000):
                await job.progress(step / 10, f"step {step}")
                if step % 10 == 0:
                    await asyncio.sleep(0.01)

    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    times = service.times("UpdateProgress")
    seconds = service.times("TransitionJob")[0] - times[0]
    # Where the last one comes with the end, a stream has an update of its own for it.
    assert len(times) - (way == "stream") <= seconds / 0.1 + 1.5
    reports = [*service.requests("UpdateProgress"), end]
    progress = [report.progress for report in reports if report.HasField("progress")]
    assert progress == sorted(progress)
    messages = [
        report.progress_message for report in reports if report.HasField("progress_message")
    ]
    assert (progress[-1], messages[-1]) == (99, "step 999")


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_report_with_wait_is_sent_at_once_and_committed(
    service, fake_client, running, blocking, monkeypatch
):
    monkeypatch.setattr("jobledger.worker.runner.INTERVAL", 60.0)  # between others
    worker = Worker(fake_client, lease=600)
    committed = []

    def newest():
        request = service.requests("UpdateProgress")[-1]
        committed.append((request.progress, request.progress_message))

    if blocking:

        @worker.handler("render")
        def render_blocking(job):
            for step in range(20):
                job.progress(step, f"step {step}", wait=True)
                newest()
    else:

        @worker.handler("render")
        async def render(job):
            for step in range(20):
                await job.progress(step, f"step {step}", wait=True)
                newest()

    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    assert committed == [(step, f"step {step}") for step in range(20)]
    assert not end.HasField("progress")


async def test_a_report_with_wait_is_retried_until_the_service_accepts_it(
    service, fake_client, running
):
    worker = Worker(fake_client)
    service.rules["UpdateProgress"] = service.refuse(grpc.StatusCode.UNAVAILABLE, 3)

    @worker.handler("render")
    async def render(job):
        await job.progress(7, wait=True)
        return {"reports": len(service.requests("UpdateProgress"))}

    service.offer()
    running(worker)
    assert (await service.called("TransitionJob")).result["reports"] == 4


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_handler_that_waits_for_a_report_can_be_stopped(
    service, fake_client, running, blocking
):
    worker = Worker(fake_client, grace=0)
    service.rules["UpdateProgress"] = service.refuse(grpc.StatusCode.UNAVAILABLE)
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
        job_id=job.id, attempt=1, progress=25, progress_message="decoded"
    )
    end = await service.called("TransitionJob")
    assert not end.HasField("progress_message") or end.progress_message == "decoded"


async def test_the_last_report_is_sent_with_the_outcome_if_not_sent_before(
    service, fake_client, running, way
):
    worker = Worker(fake_client)
    gate = asyncio.Event()

    async def hang(request, context):
        gate.set()
        await service.called("TransitionJob")

    service.rules["UpdateProgress"] = hang

    @worker.handler("render")
    async def render(job):
        await job.progress(25, "decoded")
        await gate.wait()
        await job.progress(75)
        return Completed({"count": 1})

    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    # A stream has an update of its own for it, in the same message.
    last = service.requests("UpdateProgress")[-1] if way == "stream" else end
    assert (last.progress, last.progress_message) == (75, "decoded")
    assert end.target_status == JobStatus.JOB_STATUS_COMPLETED


@pytest.mark.parametrize("percent", [-1, 101, float("nan"), float("inf")])
async def test_an_invalid_percentage_is_an_error_of_the_handler(
    service, fake_client, running, percent
):
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        await job.progress(percent)

    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    assert end.target_status == JobStatus.JOB_STATUS_FAILED
    assert end.error.reason in {"VALUE_ERROR", "OVERFLOW_ERROR"}
    assert service.requests("UpdateProgress") == []


async def test_an_invalid_progress_message_is_made_valid(service, fake_client, running):
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        await job.progress(1, "a\0b\ud800" + "x" * 600)
        await service.called("UpdateProgress")

    service.offer()
    running(worker)
    message = (await service.called("UpdateProgress")).progress_message
    assert len(message) == 512
    assert message.startswith("a\N{REPLACEMENT CHARACTER}b?x")


async def test_a_refused_report_does_not_lose_the_lease(service, fake_client, running):
    worker = Worker(fake_client, lease=LEASE)
    done = asyncio.Event()

    async def refuse_messages(request, context):
        if request.progress_message:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such message")

    service.rules["UpdateProgress"] = refuse_messages

    @worker.handler("render")
    async def render(job):
        await job.progress(1, "bad message")
        await done.wait()
        return Completed({})

    service.offer()
    running(worker)
    await service.called("UpdateProgress", 6)
    done.set()
    end = await service.called("TransitionJob")
    assert end.target_status == JobStatus.JOB_STATUS_COMPLETED
    assert len([r for r in service.requests("UpdateProgress") if r.progress_message]) == 1


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
    ],
)
async def test_transient_errors_are_retried_for_every_call(service, fake_client, running, code):
    worker = Worker(fake_client)
    for method in ("UpdateProgress", "CreateAsset", "TransitionJob"):
        service.rules[method] = service.refuse(code, 2)

    @worker.handler("render")
    async def render(job):
        await job.progress(50)
        await service.called("UpdateProgress", 3)
        await job.add_asset("image/png", url="https://example.com/a.png")
        return Completed({"count": 1})

    service.offer()
    running(worker)
    await service.called("TransitionJob", 3)
    assert len({r.request_id for r in service.requests("CreateAsset")}) == 1
    assert len(service.requests("CreateAsset")) == 3
    ends = service.requests("TransitionJob")
    assert all(end.attempt == 1 and end.result["count"] == 1 for end in ends)


async def test_a_call_that_hangs_is_tried_again(service, fake_client, running):
    worker = Worker(fake_client, lease=LEASE)
    hung: list[object] = []

    async def hang_once(request, context):
        if not hung:
            hung.append(request)
            await asyncio.Event().wait()

    service.rules["TransitionJob"] = hang_once

    @worker.handler("render")
    async def render(job):
        return Completed({"count": 1})

    service.offer()
    running(worker)
    assert await service.called("TransitionJob", 2) == hung[0]


async def test_every_call_carries_the_attempt(service, fake_client, running):
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        await job.progress(1)
        await job.add_asset("image/png", url="https://example.com/a.png")
        await service.called("UpdateProgress")
        assert (job.attempt, job.max_attempts) == (7, 9)

    service.offer(attempt=7, max_attempts=9)
    running(worker)
    await service.called("TransitionJob")
    calls = [request for name, request, _ in service.calls if name not in {"ClaimJobs", "Work"}]
    assert len(calls) >= 3
    assert {request.attempt for request in calls} == {7}
