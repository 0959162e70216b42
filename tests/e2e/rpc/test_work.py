"""Work: jobs as there are free slots, results in order after their commit, signals at once."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.rpc.workers import work_streams, worker_requests
from jobledger_server.settings import Settings
from jobledger_server.store import StoreUnavailable
from jobledger_server.tuning import Tuning
from jobledger_server.watch.held_jobs import HeldJobs
from jobledger_server.watch.hub import WatchHub
from tests.support.databases import several_servers
from tests.support.gated_store import Gate
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import (
    COMPLETED,
    FAILED,
    PARTIAL,
    PROCESSING,
    QUEUED,
    SMALL_WINDOW,
    Caller,
    decoded,
    policy,
)
from tests.support.tasks import running
from tests.support.work_stream import WorkStream, completed, progressed, reason, released, working

Start = Callable[..., Any]


async def stored(call: Caller, job: Any) -> Any:
    return (await call.GetJob(job_id=job.id, user_id="ada")).job


async def claimed_elsewhere(call: Caller, count: int = 1, **fields: Any) -> list[str]:
    """Return the ids of what another worker gets."""
    answer = await call.ClaimJobs(worker_id="other", job_types=["render"], max_jobs=count, **fields)
    return [job.id for job in answer.jobs]


async def waiting(app: App, count: int) -> None:
    """Return when this number of claims waits for a job."""
    async with asyncio.timeout(20):
        while app.claim_waiters.count("render") != count:
            await asyncio.sleep(0.001)


# --- jobs --------------------------------------------------------------------------------------


async def test_jobs_are_pushed_while_there_are_free_slots(
    channel: grpc.aio.Channel, call: Caller
) -> None:
    made = [(await call.job()).id for _ in range(5)]
    async with working(channel, slots=2) as worker:
        first, second = await worker.jobs(2)
        assert [first.id, second.id] == made[:2]
        assert (first.status, first.attempt, first.worker_id) == (PROCESSING, 1, "w1")
        await worker.finish(first)
        (third,) = await worker.jobs()
        assert third.id == made[2]
        await worker.send(updates=[released(second)])
        await worker.results()
        (again,) = await worker.jobs()
        assert (again.id, again.attempt) == (made[1], 2)
        assert await claimed_elsewhere(call, 5) == made[3:]
        assert not worker.unread


@pytest.mark.parametrize("tuning", [Tuning(quiet_part=0.0)])  # already while it says hello
async def test_a_silent_worker_is_pushed_no_job(
    app: App, channel: grpc.aio.Channel, call: Caller
) -> None:
    async with working(channel, slots=1) as worker:
        made = await call.job()
        assert app.claim_waiters.count("render") == 0
        assert await claimed_elsewhere(call, 1) == [made.id]
        assert not worker.unread


# --- updates -----------------------------------------------------------------------------------


async def test_every_kind_of_update_has_a_result_and_takes_effect(
    channel: grpc.aio.Channel, call: Caller
) -> None:
    for _ in range(4):
        await call.job()
    async with working(channel, slots=4) as worker:
        done, partial, failed, back = await worker.jobs(4)
        asset = pb.AssetUpdate(asset={"asset_type": "t", "storage_path": "p"}, request_id="r1")
        link = pb.JobUpdate(job_id=done.id, attempt=1, asset=asset)
        finishes = [
            pb.JobUpdate(job_id=job.id, attempt=1, finish=pb.FinishUpdate(**fields))
            for job, fields in (
                (partial, {"status": PARTIAL, "error": {"message": "half"}}),
                (failed, {"status": FAILED, "error": {"reason": "BAD", "message": "no"}}),
            )
        ]
        outcome = {"result": {"n": 1}, "assets": [{"asset_type": "u", "storage_path": "q"}]}
        updates = [
            progressed(done, 40, progress_message="forty"),
            link,
            link,
            completed(done, **outcome),
            *finishes,
            released(back),
        ]
        await worker.send(slots=0, updates=updates)
        results = await worker.results(7)
        assert [result.job_id for result in results] == [update.job_id for update in updates]
        assert [(result.version, result.applied) for result in results] == [
            (3, True),
            (4, True),
            (4, True),
            (5, True),
            (3, True),
            (3, True),
            (3, True),
        ]
        assert not any(result.HasField("error") for result in results)
        assert results[1].asset == results[2].asset
        assert results[1].asset.storage_path == "p"
        assert not results[3].HasField("asset")
        jobs = [await stored(call, job) for job in (done, partial, failed, back)]
        assert [job.status for job in jobs] == [COMPLETED, PARTIAL, FAILED, PROCESSING]
        assert jobs[0].progress_message == "forty"
        assert jobs[0].result["n"] == 1
        assert [job.error.message for job in jobs] == ["", "half", "no", ""]
        assert jobs[2].error.reason == "BAD"
        assert not jobs[3].HasField("lease_expire_time")
        listed = (await call.ListAssets(job_id=done.id, user_id="ada")).assets
        assert [each.storage_path for each in listed] == ["p", "q"]
        # A repetition, for instance on another stream, has the same result.
        await worker.send(updates=updates[3:4])
        assert await worker.results() == results[3:4]
        assert not worker.unread


async def test_results_are_in_the_order_of_the_updates(
    channel: grpc.aio.Channel, call: Caller
) -> None:
    for _ in range(10):
        await call.job()
    async with working(channel, slots=10) as worker:
        jobs = await worker.jobs(10)
        for progress in range(1, 31):
            await worker.send(updates=[progressed(job, progress) for job in jobs])
        results = await worker.results(300)
        assert [(result.job_id, result.version) for result in results] == [
            (job.id, progress + 2) for progress in range(1, 31) for job in jobs
        ]
        assert await worker.end() is grpc.StatusCode.OK
    assert (await stored(call, jobs[3])).progress == 30


async def test_an_invalid_update_does_not_affect_the_others_of_its_message(
    channel: grpc.aio.Channel, call: Caller
) -> None:
    job, ended, queued = await call.running(), await call.ended(), await call.job()
    queued.attempt = 1
    stranger = type(job)(id="nowhere", attempt=1)
    old = type(job)(id=job.id, attempt=7)
    unfenced = type(job)(id=job.id)
    updates = [
        (progressed(job, 10), ""),
        (progressed(stranger, 1), "JOB_NOT_FOUND"),
        (progressed(job, 101), "INVALID_FIELD"),
        (progressed(old, 20), "LEASE_LOST"),
        (progressed(unfenced, 20), "INVALID_FIELD"),
        (pb.JobUpdate(job_id=job.id, attempt=1), "INVALID_FIELD"),
        (completed(old), "LEASE_LOST"),
        (released(ended), "JOB_TERMINAL"),
        (progressed(ended, 5), ""),
        (progressed(queued, 5), "LEASE_LOST"),
        (progressed(job, 30), ""),
        (completed(job), ""),
    ]
    async with working(channel) as worker:
        await worker.send(updates=[update for update, _ in updates])
        results = await worker.results(len(updates))
        assert [reason(result) for result in results] == [expected for _, expected in updates]
        assert [result.job_id for result in results] == [update.job_id for update, _ in updates]
        assert [result.applied for result in results] == [
            i in (0, 10, 11) for i in range(len(updates))
        ]
        assert results[1].error.code == 5
        assert "progress.progress" in results[2].error.message
        assert results[3].error.metadata == {"job_id": job.id, "attempt": "1"}
    assert (await stored(call, job)).status == COMPLETED


async def test_an_update_that_fails_says_why_and_does_not_end_the_stream(
    app: App,
    channel: grpc.aio.Channel,
    call: Caller,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a programming error it says an id only."""
    job = await call.running()

    async def refused_by(error: Exception) -> Any:
        def fail() -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(app.store, "transaction", fail)
            await worker.send(updates=[progressed(job, 10)])
            (refused,) = await worker.results()
        return refused

    async with working(channel, slots=1) as worker:
        await waiting(app, 1)
        away = await refused_by(StoreUnavailable("away"))
        assert (reason(away), away.error.code) == ("UNAVAILABLE", 14)
        broken = await refused_by(RuntimeError("secret"))
        assert reason(broken) == "INTERNAL"
        assert "secret" not in str(broken)
        assert broken.error.metadata["correlation_id"] in [
            record.correlation_id for record in caplog.records if hasattr(record, "correlation_id")
        ]
        await worker.send(updates=[progressed(job, 10)])
        (done,) = await worker.results()
        assert done.applied


async def test_updates_read_before_a_stream_broke_are_committed(
    app: App, channel: grpc.aio.Channel, call: Caller
) -> None:
    jobs = [await call.running() for _ in range(5)]
    async with working(channel) as worker:
        seq = app.hub.seq
        await worker.send(updates=[progressed(job, 50) for job in jobs])
        while app.hub.seq < seq + len(jobs):
            await asyncio.sleep(0.005)
    assert {(await stored(call, job)).progress for job in jobs} == {50}
    await call.UpdateProgress(job_id=jobs[0].id, attempt=1, progress={"progress": 60})
    assert (await stored(call, jobs[0])).progress == 60


# --- signals -----------------------------------------------------------------------------------


async def test_a_cancellation_is_pushed_once(channel: grpc.aio.Channel, call: Caller) -> None:
    await call.job()
    async with working(channel, slots=1) as worker:
        (job,) = await worker.jobs()
        await call.CancelJob(job_id=job.id, user_id="ada", reason="enough")
        (signal,) = await worker.signals()
        assert (signal.job_id, signal.attempt) == (job.id, 1)
        assert signal.cancel_requested.reason == "enough"
        for update in (progressed(job, 10), released(job)):
            await worker.send(updates=[update])
            (result,) = await worker.results()
            assert result.applied
        assert await worker.end() is grpc.StatusCode.OK
        assert not worker.unread
    assert (await stored(call, job)).error.reason == "CANCELLED"


async def test_a_signal_found_by_an_update_is_sent_with_its_result(
    channel: grpc.aio.Channel, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a change at another server, whose notification comes later."""
    monkeypatch.setattr(HeldJobs, "offer", lambda *_: False)
    asked, ended = await call.running(), await call.running()
    async with working(channel, holding=[asked, ended]) as worker:
        await call.CancelJob(job_id=asked.id, user_id="ada", reason="enough")
        await call.MarkCompleted(job_id=ended.id, attempt=1)
        await worker.send(updates=[progressed(asked, 10), progressed(ended, 10)])
        assert [result.applied for result in await worker.results(2)] == [True, False]
        signals = {signal.job_id: signal for signal in await worker.signals(2)}
        assert signals[asked.id].cancel_requested.reason == "enough"
        assert signals[ended.id].HasField("lease_lost")
        assert len(worker.messages) == 2  # the answer to hello, and all of this


@pytest.mark.parametrize("buffered", [True, False])
async def test_a_cancellation_right_after_the_claim_is_pushed(
    start: Start, monkeypatch: pytest.MonkeyPatch, *, buffered: bool
) -> None:
    """It is committed before the stream knows of its job, and waits for no heartbeat."""
    claim = LongPoll.claim
    app = await start(heartbeat=600.0)

    async def cancelled(self: LongPoll, *arguments: Any) -> Any:
        started = await claim(self, *arguments)
        for given in started:
            await call.CancelJob(job_id=given.job.id, user_id="ada", reason="at once")
        return started

    monkeypatch.setattr(LongPoll, "claim", cancelled)
    if not buffered:
        monkeypatch.setattr(WatchHub, "changes_since", lambda *_: None)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        made = await call.job()
        async with working(channel, slots=1) as worker:
            (signal,) = await worker.signals()
            assert (signal.job_id, signal.cancel_requested.reason) == (made.id, "at once")


async def test_a_lease_that_expires_is_pushed_and_its_slot_stays_empty_until_the_next_message(
    app: App, channel: grpc.aio.Channel, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_requests, "MIN_LEASE_SECONDS", 0)
    made = await call.job(retry_policy=policy(2))
    async with working(channel, slots=1, lease_duration=Duration(nanos=200_000_000)) as worker:
        (job,) = await worker.jobs()
        (signal,) = await worker.signals()
        assert (signal.job_id, signal.attempt) == (made.id, 1)
        assert signal.HasField("lease_lost")
        assert (await stored(call, job)).attempt == 1
        assert app.claim_waiters.count("render") == 0
        await worker.send(updates=[progressed(job, 10)])
        (late,) = await worker.results()
        assert reason(late) == "LEASE_LOST"

        async def more() -> None:
            while True:
                await worker.send()
                await asyncio.sleep(0.02)

        async with running(more()):
            (again,) = await worker.jobs()
        assert (again.id, again.attempt) == (made.id, 2)


# --- leases ------------------------------------------------------------------------------------


@several_servers
async def test_a_worker_resumes_at_another_server(start: Start) -> None:
    here, there = await start(), await start()
    async with (
        grpc.aio.insecure_channel(here.address) as channel,
        grpc.aio.insecure_channel(there.address) as other,
    ):
        call = Caller(other)
        for _ in range(3):
            await call.job()
        async with working(channel, slots=3) as worker:
            kept, lost, asked = await worker.jobs(3)
        await call.ReleaseJob(job_id=lost.id, attempt=1)
        await call.CancelJob(job_id=asked.id, user_id="ada", reason="meanwhile")
        finish = completed(kept)
        async with working(other, slots=3, holding=[kept, lost, asked], updates=[finish]) as worker:
            (answer,) = worker.messages
            signals = {signal.job_id: signal for signal in answer.signals}
            assert signals.keys() == {lost.id, asked.id}
            assert signals[lost.id].HasField("lease_lost")
            assert signals[asked.id].cancel_requested.reason == "meanwhile"
            assert [result.applied for result in await worker.results()] == [True]
            (again,) = await worker.jobs()
            assert (again.id, again.attempt) == (lost.id, 2)


# --- the end of a stream -----------------------------------------------------------------------


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a message with jobs is about to be written."""
    event = asyncio.Event()
    serialize = work_streams.job_bytes

    def noted(*arguments: Any) -> bytes:
        event.set()
        return serialize(*arguments)

    monkeypatch.setattr(work_streams, "job_bytes", noted)
    return event


async def test_jobs_that_were_not_sent_are_released_when_the_stream_breaks(
    app: App, call: Caller, pushed: asyncio.Event
) -> None:
    content = {"parameters": {"text": "x" * 250_000}, "retry_policy": {"max_attempts": 1}}
    made = [await call.job(**content) for _ in range(10)]
    async with (
        grpc.aio.insecure_channel(app.address, SMALL_WINDOW) as stalled,
        working(stalled, slots=10),  # reads nothing but the answer to hello
    ):
        await pushed.wait()
        assert (await stored(call, made[0])).status == PROCESSING
    claimed: list[str] = []
    async with asyncio.timeout(20):
        while len(claimed) < 10:
            claimed += await claimed_elsewhere(call, 10, wait=Duration(seconds=10))
    assert sorted(claimed) == [job.id for job in made]
    again = await stored(call, made[0])
    assert (again.attempt, again.retry_policy.max_attempts) == (2, 1)


async def test_a_worker_that_does_not_read_is_given_one_message(
    app: App, call: Caller, pushed: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = LongPoll.claim
    claims = 0

    def counted(self: LongPoll, *arguments: Any) -> Any:
        nonlocal claims
        claims += 1
        return claim(self, *arguments)

    monkeypatch.setattr(LongPoll, "claim", counted)
    made = [await call.job(parameters={"text": "x" * 250_000}) for _ in range(14)]
    async with (
        grpc.aio.insecure_channel(app.address, SMALL_WINDOW) as stalled,
        working(stalled, slots=14) as worker,
    ):
        await pushed.wait()
        for _ in range(10):
            await worker.send()
            # Twelve of them fit a message.
            assert (await stored(call, made[12])).status == QUEUED
        assert claims == 1
        jobs = await worker.jobs(14)  # it reads after all
        assert [job.id for job in jobs] == [job.id for job in made]
        assert {job.attempt for job in jobs} == {1}


@pytest.mark.usefixtures("gates")
async def test_a_draining_server_answers_what_it_has_read_and_uses_up_no_attempt(
    database_url: str,
) -> None:
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=10.0)
    async with AsyncExitStack() as serving:
        app = await serving.enter_async_context(app_module.open_app(settings))
        async with grpc.aio.insecure_channel(app.address) as channel:
            await Caller(channel).job()
            async with working(channel, slots=5) as worker:
                (job,) = await worker.jobs()
                await waiting(app, 1)
                gate = app.store.before_commit = Gate()
                await worker.send(updates=[progressed(job, 10)])
                await gate.reached.wait()
                stopping = asyncio.create_task(serving.aclose())
                while not app.claim_waiters.draining:
                    await asyncio.sleep(0.005)
                gate.open()
                (result,) = await worker.results()
                assert result.applied
                with pytest.raises(grpc.RpcError) as ended:
                    await worker.read()
                refused = decoded(ended.value)
                assert refused.code is grpc.StatusCode.UNAVAILABLE
                assert refused.details["RetryInfo"].retry_delay == Duration()
                await stopping
    async with (
        app_module.open_app(settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        working(channel, slots=5, holding=[job]) as worker,
    ):
        (done,) = await worker.finish(job)
        assert (done.applied, worker.unread) == (True, {})
        assert (await stored(Caller(channel), job)).attempt == 1


async def test_a_work_stream_at_its_maximum_age_ends_after_answering_all_updates(
    start: Start,
) -> None:
    # Longer than this process may stand still before the updates have been read.
    app = await start(max_watch_age=3)
    async with grpc.aio.insecure_channel(app.address) as channel:
        job = await Caller(channel).running()
        async with working(channel, slots=1) as worker:
            for progress in range(10):
                await worker.send(updates=[progressed(job, progress)])
            with pytest.raises(grpc.RpcError) as ended:
                while True:
                    await worker.read()
            moved = decoded(ended.value)
            assert (moved.code, moved.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert moved.details["RetryInfo"].retry_delay.seconds == 0
            assert len(await worker.results(10)) == 10


async def test_a_work_stream_ends_when_the_feed_restarts(
    app: App, channel: grpc.aio.Channel, call: Caller
) -> None:
    """It may have missed changes of the jobs that it holds."""
    job = await call.running()
    async with working(channel, holding=[job]) as worker:
        app.hub.restart(app.hub.seq)
        with pytest.raises(grpc.RpcError) as ended:
            await worker.read()
        assert decoded(ended.value).code is grpc.StatusCode.UNAVAILABLE
    async with working(channel, holding=[job]) as worker:
        assert (await worker.finish(job))[0].applied


async def test_an_idle_work_stream_sends_heartbeats_also_to_a_client_that_sends_more_of_them(
    start: Start,
) -> None:
    app = await start(heartbeat=0.2)
    async with grpc.aio.insecure_channel(app.address) as channel, working(channel) as worker:
        heard = asyncio.create_task(worker.read())
        while not heard.done():
            await worker.send()
            await asyncio.wait([heard], timeout=0.05)
        assert heard.result() == pb.WorkResponse(heartbeat=True)


async def test_a_work_stream_sends_heartbeats_while_its_last_results_are_being_written(
    start: Start,
) -> None:
    """And waits between them, although the worker has closed its side."""
    app = await start(heartbeat=0.05)
    async with (
        grpc.aio.insecure_channel(app.address) as channel,
        working(channel, slots=1) as worker,
    ):
        await Caller(channel).job()
        (job,) = await worker.jobs()
        async with app.store.transaction():
            await worker.send(updates=[completed(job)])
            await worker.call.done_writing()
            for _ in range(3):
                assert await worker.read() == pb.WorkResponse(heartbeat=True)
        (result,) = await worker.results()
        assert result.applied


HELLO = pb.WorkHello(worker_id="w", job_types=["render"])


@in_turn(
    ("messages", "named"),
    [
        ([pb.WorkRequest()], "hello"),
        ([pb.WorkRequest(hello=HELLO), pb.WorkRequest(hello=HELLO)], "hello"),
        ([pb.WorkRequest(hello=pb.WorkHello())], "hello.worker_id"),
        ([pb.WorkRequest(hello=pb.WorkHello(worker_id="w"))], "hello.job_types"),
        (
            [
                pb.WorkRequest(
                    hello=pb.WorkHello(worker_id="w", job_types=["t"], holding=[pb.HeldJob()])
                )
            ],
            "hello.holding[0].attempt",
        ),
        ([pb.WorkRequest(hello=HELLO), pb.WorkRequest(slots=1001)], "slots"),
        ([pb.WorkRequest(hello=HELLO), pb.WorkRequest(updates=[pb.JobUpdate()] * 1001)], "updates"),
        ([b"\xff\xff\xff"], "request"),
    ],
)
async def test_a_message_that_breaks_a_rule_ends_the_stream(
    channel: grpc.aio.Channel, messages: list[Any], named: str
) -> None:
    raw = channel.stream_stream("/jobledger.v1.WorkerService/Work")(timeout=20)
    with pytest.raises(grpc.RpcError) as ended:
        for message in messages:
            await raw.write(message if isinstance(message, bytes) else message.SerializeToString())
        while await raw.read() is not grpc.aio.EOF:
            pass
    refused = decoded(ended.value)
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )
    assert named in [each.field for each in refused.details["BadRequest"].field_violations]


async def test_a_message_that_is_too_large_ends_the_stream(channel: grpc.aio.Channel) -> None:
    stream = WorkStream(WorkerServiceStub(channel).Work(timeout=20))
    big = pb.JobUpdate(job_id="x" * (1024 * 1024))
    with pytest.raises(grpc.RpcError) as ended:
        await stream.send(hello=HELLO, updates=[big])
        await stream.read()
    refused = decoded(ended.value)
    assert refused.reason == "LIMIT_EXCEEDED"
    assert refused.metadata["scope"] == "request"
