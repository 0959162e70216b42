"""A worker does all its work over one stream, and goes on over another one if it breaks."""

import asyncio
from collections import Counter

import grpc
import pytest

from jobledger import AsyncClient, JobStatus, Unauthenticated
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.job_pb2 import Job, RetryPolicy
from jobledger.worker import Completed, Worker
from jobledger.worker.session import work_stream
from jobledger.worker.session.lease import RENEWAL
from jobledger.worker.session.work_stream import ANSWER_TIMEOUT
from jobledger_server.domain import limits
from tests.e2e.worker.rules import refuse
from tests.support.observed_channel import ObservedChannel

LEASE = 0.9
MIB = 1024 * 1024


def is_closed(message):
    return message.HasField("slots") and message.slots == 0


# --- updates ---------------------------------------------------------------------------------


async def test_all_ready_updates_are_sent_in_one_message(service, start_waiting):
    waiting = start_waiting(concurrency=100)
    for _ in range(100):
        service.offer()
    for _ in range(100):
        await waiting.started.acquire()
    before = len(service.messages)
    waiting.go.set()
    await service.called("TransitionJob", 100)
    sizes = [len(message.updates) for message in service.messages[before:]]
    assert sum(sizes) == 100
    assert max(sizes) >= 50


async def test_messages_stay_below_the_message_limit_of_the_service(service, fake_client, running):
    worker = Worker(fake_client, concurrency=12)
    go = asyncio.Event()

    @worker.handler("render")
    async def render(job):
        await go.wait()
        return {"blob": "x" * 250_000}

    for _ in range(12):
        service.offer()
    running(worker)
    await service.called("Work")
    go.set()
    await service.called("TransitionJob", 12)
    sizes = [message.ByteSize() for message in service.messages]
    assert sum(sizes) > 12 * 250_000
    assert max(sizes) <= MIB
    # What is ready goes together, as far as it fits.
    assert max(len(message.updates) for message in service.messages) == 4


async def test_at_most_a_thousand_updates_are_unanswered(
    service, fake_client, running, monkeypatch
):
    assert work_stream.MAX_WAITING == limits.MAX_UPDATES == 1000
    monkeypatch.setattr(work_stream, "MAX_WAITING", 100)
    worker = Worker(fake_client, lease=600, grace=60)
    full = asyncio.Event()

    async def wait(request, context):
        await full.wait()

    service.rules["CreateAsset"] = wait

    @worker.handler("render")
    async def render(job):
        url = "https://example.com/a.png"
        await asyncio.gather(*(job.add_asset("image/png", url=url) for _ in range(150)))

    service.offer()
    run = running(worker)
    await service.called("CreateAsset", 100)
    # What the worker sends now comes after any update that it would send.
    worker.stop()
    await service.until(lambda: service.messages[-1].HasField("slots"))
    assert service.streamed == 100
    full.set()
    await run
    requests = service.requests("CreateAsset")
    assert len({request.asset.request_id for request in requests}) == len(requests) == 150


async def test_a_worker_without_jobs_sends_heartbeats(service, start_waiting):
    start_waiting(lease=LEASE)
    await service.until(lambda: len(service.messages) >= 3)
    assert service.messages[1:3] == [pb.WorkRequest()] * 2
    assert len(service.streams) == 1


async def test_a_stream_whose_token_does_not_come_is_opened_again(service, start_waiting, running):
    hangs = [True]

    async def token() -> str:
        if hangs:
            hangs.clear()
            await asyncio.Event().wait()
        return "t"

    async with AsyncClient(f"127.0.0.1:{service.port}", token=token, timeout=None) as client:
        waiting = start_waiting(lease=LEASE, client=client)
        service.offer()
        await waiting.started.acquire()
        waiting.go.set()
        await service.called("TransitionJob")
        await running.stop()


# --- signals -----------------------------------------------------------------------------------


async def test_a_cancellation_may_come_in_the_same_message_as_its_job(service, start_waiting):
    waiting = start_waiting(concurrency=2)
    service.offer()
    await waiting.started.acquire()
    cancelled = pb.JobSignal(job_id="new", attempt=1, cancel_requested=pb.CancelRequested())
    new = Job(id="new", job_type="render", attempt=1, retry_policy=RetryPolicy(max_attempts=1))
    await service.streams[0].push(new, signals=[cancelled])
    assert (await service.called("ReleaseJob")).job_id == "new"


async def test_a_lost_lease_stops_a_handler_at_once_and_its_slot_is_used_again(
    service, start_waiting
):
    waiting = start_waiting()
    job = service.offer()
    await waiting.started.acquire()
    await service.streams[0].signal(job_id=job.id, attempt=1, lease_lost=pb.LeaseLost())
    await waiting.has_stopped.wait()
    following = service.offer()
    await waiting.started.acquire()
    assert waiting.stopped == [(job.id, False, "")]
    assert service.streamed == 0
    waiting.go.set()
    assert (await service.called("TransitionJob")).job_id == following.id


async def test_a_signal_for_another_attempt_is_ignored(service, start_waiting):
    waiting = start_waiting()
    job = service.offer(attempt=2)
    await waiting.started.acquire()
    for attempt in (1, 3):
        await service.streams[0].signal(job_id=job.id, attempt=attempt, lease_lost=pb.LeaseLost())
    waiting.go.set()
    assert (await service.called("TransitionJob")).attempt == 2


# --- slots and leases --------------------------------------------------------------------------


async def test_a_handler_that_runs_on_without_its_lease_keeps_its_slot(
    service, fake_client, running
):
    worker = Worker(fake_client)
    started, stopping, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    now, most = 0, 0

    @worker.handler("render")
    async def render(job):
        nonlocal now, most
        now += 1
        most = max(most, now)
        started.set()
        try:
            if job.parameters:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopping.set()
            await go.wait()
        finally:
            now -= 1

    job = service.offer(parameters={"wait": True})
    running(worker)
    await started.wait()
    (stream,) = service.streams
    await stream.signal(job_id=job.id, attempt=1, lease_lost=pb.LeaseLost())
    await stopping.wait()
    # Pushed before the service can know that the slot is taken.
    await stream.push(Job(id="early", job_type="render", attempt=1))
    assert (await service.called("ReleaseJob")).job_id == "early"
    slots = [message.slots for message in service.messages if message.HasField("slots")]
    assert slots[-1] == 0
    stream.end(grpc.StatusCode.UNAVAILABLE)
    assert not (await service.called("Work", 2)).hello.holding
    following = service.offer()
    go.set()
    assert (await service.called("TransitionJob")).job_id == following.id
    assert most == 1


async def test_a_stopping_worker_claims_no_more_and_releases_late_jobs(service, start_waiting):
    waiting = start_waiting(concurrency=2, grace=60)
    service.offer()
    await waiting.started.acquire()
    waiting.worker.stop()
    await service.until(lambda: any(is_closed(message) for message in service.messages))
    late = Job(id="late", job_type="render", attempt=3)
    await service.streams[0].push(late)
    released = await service.called("ReleaseJob")
    assert (released.job_id, released.attempt) == ("late", 3)
    waiting.go.set()
    await waiting.run
    assert [end.job_id for end in service.requests("TransitionJob")] != ["late"]


async def test_a_job_beyond_the_slots_is_released_also_after_an_outage(service, start_waiting):
    service.rules["ReleaseJob"] = refuse(grpc.StatusCode.UNAVAILABLE, 3)
    waiting = start_waiting()
    service.offer()
    await waiting.started.acquire()
    await service.streams[0].push(Job(id="beyond", job_type="render", attempt=1))
    assert (await service.called("ReleaseJob", 4)).job_id == "beyond"
    waiting.go.set()
    await service.called("TransitionJob")


async def test_any_answer_renews_all_leases(service, fake_client, running):
    """Of jobs that report nothing, nothing is sent while others report."""
    lease = 9
    worker = Worker(fake_client, concurrency=30, lease=lease)
    go = asyncio.Event()

    @worker.handler("render")
    async def render(job):
        if job.parameters:
            time = asyncio.get_running_loop().time
            due = time() + lease * RENEWAL
            reports = 0
            while time() < due:
                reports += 1
                await job.progress(message=f"report {reports}")
                await service.called("UpdateProgress", reports)
            go.set()
        await go.wait()

    for _ in range(29):
        service.offer()
    reporting = service.offer(parameters={"reports": True})
    running(worker)
    await service.called("TransitionJob", 30)
    assert {request.job_id for request in service.requests("UpdateProgress")} == {reporting.id}


# --- streams that end --------------------------------------------------------------------------


async def test_only_unanswered_updates_are_sent_again(service, fake_client, running):
    """The next stream begins with the jobs that are still held, and with the updates in order."""
    worker = Worker(fake_client, concurrency=3)
    go = asyncio.Event()

    async def lose(request, context):
        go.set()
        await asyncio.Event().wait()

    @worker.handler("render")
    async def render(job):
        await job.add_asset("image/png", url="https://example.com/first.png")
        if job.parameters:
            await service.called("CreateAsset", 3)
            service.rules["CreateAsset"] = service.rules["TransitionJob"] = lose
            asset = job.add_asset("image/png", url="https://example.com/second.png")
            await asyncio.gather(asset, job.progress(50))
        else:
            await go.wait()
        return Completed({})

    jobs = [service.offer(), service.offer(), service.offer(parameters={"links": True})]
    running(worker)
    await service.called("TransitionJob", 2)
    await service.called("CreateAsset", 4)
    await service.called("UpdateProgress")
    answered = service.streamed
    service.rules.clear()
    service.streams[0].end(grpc.StatusCode.UNAVAILABLE)
    await service.called("TransitionJob", 5)
    first = service.requests("Work")[1]
    assert {held.job_id for held in first.hello.holding} == {job.id for job in jobs}
    assert first.slots == 3
    kinds = [(update.job_id, update.WhichOneof("update")) for update in first.updates]
    assert Counter(kinds) == {
        (jobs[0].id, "finish"): 1,
        (jobs[1].id, "finish"): 1,
        (jobs[2].id, "asset"): 1,
        (jobs[2].id, "progress"): 1,
    }
    before = [update for message in service.messages for update in message.updates][:answered]
    again = [update for update in before if update in list(first.updates)]
    assert again == list(first.updates)


async def test_a_new_stream_does_not_list_lost_jobs(service, start_waiting):
    waiting = start_waiting(concurrency=2)
    lost, held = service.offer(), service.offer()
    for _ in range(2):
        await waiting.started.acquire()
    await service.streams[0].signal(job_id=lost.id, attempt=1, lease_lost=pb.LeaseLost())
    await waiting.has_stopped.wait()
    service.streams[0].end(grpc.StatusCode.UNAVAILABLE)
    again = await service.called("Work", 2)
    assert again.hello.holding == [pb.HeldJob(job_id=held.id, attempt=1)]


async def test_a_stream_without_answers_is_replaced(service, start_waiting):
    silent = []

    async def hang_once(request, context):
        if not silent:
            silent.append(request)
            await asyncio.Event().wait()

    service.rules["TransitionJob"] = hang_once
    waiting = start_waiting(lease=LEASE)
    waiting.go.set()
    job = service.offer()
    again = await service.called("Work", 2)
    assert again.hello.holding == [pb.HeldJob(job_id=job.id, attempt=1)]
    assert await service.called("TransitionJob", 2) == silent[0]


async def test_a_stream_that_was_silent_while_it_owed_nothing_is_not_replaced(
    service, fake_client, running
):
    async def answer_late(request, context):
        await asyncio.sleep(answer_timeout * 0.3)  # the worker looks each quarter of it

    # So long that the rest of the timeout is more than this process may stand still.
    lease = 12.0
    answer_timeout = lease * ANSWER_TIMEOUT
    service.rules["UpdateProgress"] = answer_late
    worker = Worker(fake_client, lease=lease)

    @worker.handler("render")
    async def render(job):
        await asyncio.sleep(answer_timeout * 1.2)  # less than until a renewal
        await job.progress(50, wait=True)

    service.offer()
    running(worker)
    await service.called("TransitionJob")
    assert len(service.streams) == 1


async def test_an_update_whose_call_was_cancelled_in_an_outage_is_not_sent_after_it(
    service, running
):
    away, back = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        if service.streams:
            away.set()
            await back.wait()
        return "t"

    async with AsyncClient(f"127.0.0.1:{service.port}", token=token) as client:
        worker = Worker(client)

        @worker.handler("render")
        async def render(job):
            service.streams[0].end(grpc.StatusCode.UNAVAILABLE)
            await away.wait()
            url = "https://example.com/a.png"
            linking = asyncio.create_task(job.add_asset("image/png", url=url))
            await asyncio.sleep(0)
            linking.cancel()
            await asyncio.wait({linking})
            back.set()

        service.offer()
        running(worker)
        await service.called("TransitionJob")
        await running.stop()
    assert service.requests("CreateAsset") == []


async def test_a_stream_with_a_result_that_no_update_has_is_replaced(
    service, start_waiting, caplog
):
    waiting = start_waiting()
    service.offer()
    await waiting.started.acquire()
    await service.streams[0].result("another-job")
    await service.called("Work", 2)
    waiting.go.set()
    await service.called("TransitionJob")
    assert "the result of an update that was not sent" in caplog.text


async def test_a_worker_waits_for_a_token(service, start_waiting):
    asked = asyncio.Semaphore(0)
    away = False

    def token():
        if away:
            asked.release()
            raise OSError("the issuer is away")
        return "t"

    async with AsyncClient(f"127.0.0.1:{service.port}", token=token) as client:
        waiting = start_waiting(client=client)
        service.offer()
        await waiting.started.acquire()
        away = True
        service.streams[0].end(grpc.StatusCode.UNAVAILABLE)
        for _ in range(3):
            await asked.acquire()
        waiting.go.set()
        away = False
        await service.called("TransitionJob")
        waiting.worker.stop()
        await waiting.run


# --- the real service --------------------------------------------------------------------------


async def test_a_worker_uses_one_stream_for_all_calls_to_the_real_service(
    running, job_type, server
):
    async with (
        grpc.aio.insecure_channel(server.target) as channel,
        AsyncClient(server.target, user_id="ada") as owner,
    ):
        observed = ObservedChannel(channel)
        worker = Worker(AsyncClient(channel=observed), concurrency=3)
        go = asyncio.Event()

        @worker.handler(job_type)
        async def render(job):
            await job.progress(40, "halfway")
            await job.add_asset("image/png", url="https://example.com/a.png")
            await go.wait()
            return Completed()

        jobs = [await owner.create_job(job_type) for _ in range(3)]
        working = running(worker)
        for job in jobs:
            async with owner.watch(job.id) as changes:
                async for change in changes:
                    if change.job.progress_message == "halfway":
                        break
        go.set()
        for job in jobs:
            done = await owner.wait(job.id, timeout=20)
            assert done.status == JobStatus.COMPLETED
            assert len([asset async for asset in owner.list_assets(job.id)]) == 1
        worker.stop()
        await working
    assert observed.counts() == {"Work": 1}


async def test_a_cancellation_is_pushed_to_the_handler_without_a_report(server, running, job_type):
    async with (
        grpc.aio.insecure_channel(server.target) as channel,
        AsyncClient(server.target, user_id="ada") as owner,
    ):
        observed = ObservedChannel(channel)
        worker = Worker(AsyncClient(channel=observed))
        started, known = asyncio.Event(), asyncio.Event()
        sent = []

        @worker.handler(job_type)
        async def render(job):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                sent.extend([observed.sent("Work"), job.cancel_reason])
                known.set()

        job = await owner.create_job(job_type)
        running(worker)
        await started.wait()
        await owner.cancel_job(job.id, "not needed")
        await known.wait()
        done = await owner.wait(job.id, timeout=20)
    # Nothing but the first message.
    assert sent == [1, "not needed"]
    assert (done.error.reason, done.error.message) == ("CANCELLED", "not needed")


def refused(service):
    service.rules["Work"] = refuse(grpc.StatusCode.UNAUTHENTICATED)
    service.streams[0].end(grpc.StatusCode.UNAVAILABLE)


async def test_a_token_that_is_refused_later_is_asked_for_again_and_its_jobs_are_kept(
    service, start_waiting
):
    async with AsyncClient(f"127.0.0.1:{service.port}", token=lambda: "t") as client:
        waiting = start_waiting(client=client)
        service.offer()
        await waiting.started.acquire()
        refused(service)
        await service.called("Work", 4)
        del service.rules["Work"]
        waiting.go.set()
        assert (await service.called("TransitionJob")).attempt == 1
        waiting.worker.stop()
        await waiting.run
    assert waiting.stopped == []


@pytest.mark.parametrize("fixed", [True, False])
async def test_a_worker_whose_token_stays_refused_ends_with_the_error(
    service, start_waiting, fixed
):
    token = "t" if fixed else lambda: "t"
    words = "give the client a function as `token`" if fixed else "scripted"
    async with AsyncClient(f"127.0.0.1:{service.port}", token=token) as client:
        waiting = start_waiting(client=client, lease=LEASE)
        service.offer()
        await waiting.started.acquire()
        refused(service)
        with pytest.raises(Unauthenticated, match=words):
            await waiting.run
    assert len(waiting.stopped) == 1
