"""ReportProgress: acknowledged after the commit, in order, each report for itself."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from jobledger.v1 import error_reason_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.rpc.workers import report_streams
from jobledger_server.settings import Settings
from jobledger_server.store import StoreUnavailable
from tests.support.gated_store import Gate
from tests.support.rpc_caller import COMPLETED, PROCESSING, Caller, decoded

Start = Callable[..., Any]


@pytest.fixture
async def channel(app: App) -> Any:
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


@pytest.fixture
async def stream(channel: grpc.aio.Channel) -> Any:
    stream = WorkerServiceStub(channel).ReportProgress()
    yield stream
    stream.cancel()


def report(job: Any, **fields: Any) -> pb.ReportProgressRequest:
    return pb.ReportProgressRequest(job_id=job.id, **fields)


async def acknowledged(stream: Any, *reports: pb.ReportProgressRequest) -> list[Any]:
    for each in reports:
        await stream.write(each)
    return [await stream.read() for _ in reports]


def reason(answer: pb.ReportProgressResponse) -> str:
    return error_reason_pb2.ErrorReason.Name(answer.error.reason).removeprefix("ERROR_REASON_")


async def test_each_report_is_acknowledged_in_order_and_done(stream: Any, call: Caller) -> None:
    jobs = [await call.running() for _ in range(10)]
    reports = [
        report(job, attempt=1, progress=progress, progress_message=f"at {progress}")
        for progress in range(1, 31)
        for job in jobs
    ]
    answers = await acknowledged(stream, *reports)
    assert [(a.job.id, a.job.progress, a.applied) for a in answers] == [
        (r.job_id, r.progress, True) for r in reports
    ]
    assert [a.job.version for a in answers[::10]] == list(range(3, 33))
    last = answers[-1].job
    stored = (await call.GetJob(job_id=jobs[-1].id, user_id="ada")).job
    assert (stored.progress, stored.progress_message, stored.version) == (30, "at 30", 32)
    assert (last.status, last.attempt) == (PROCESSING, 1)
    assert last.update_time == stored.update_time
    assert last.lease_expire_time == stored.lease_expire_time
    assert not last.HasField("parameters")
    assert not last.user_id
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_what_was_sent_before_the_end_is_acknowledged_before_the_end(
    stream: Any, call: Caller
) -> None:
    job = await call.running()
    for progress in range(100):
        await stream.write(report(job, progress=progress))
    await stream.done_writing()
    answers = [answer async for answer in stream]
    assert [answer.job.progress for answer in answers] == list(range(100))
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_report_is_not_acknowledged_before_its_commit(gated: App) -> None:
    async with grpc.aio.insecure_channel(gated.address) as channel:
        job = await Caller(channel).running()
        gate = gated.store.before_commit = Gate()
        stream = WorkerServiceStub(channel).ReportProgress()
        await stream.write(report(job, progress=10))
        await gate.reached.wait()
        reading = asyncio.create_task(stream.read())
        done, _ = await asyncio.wait([reading], timeout=0.2)
        assert not done
        gate.open()
        assert (await reading).job.progress == 10
        stream.cancel()


async def test_what_is_wrong_with_one_report_concerns_no_other(stream: Any, call: Caller) -> None:
    job, ended, queued = await call.running(), await call.ended(), await call.job()
    answers = await acknowledged(
        stream,
        report(job, progress=10),
        pb.ReportProgressRequest(job_id="nowhere", progress=1),
        report(job, progress=101),
        report(job, attempt=7, progress=20),
        pb.ReportProgressRequest(),
        report(queued, progress=1),
        report(ended, progress=5),
        report(job, progress=5),
        report(job, progress=30),
    )
    told = [(reason(a), a.error.code, a.applied) for a in answers]
    fine = ("UNSPECIFIED", 0, True)
    late = ("UNSPECIFIED", 0, False)
    assert told == [
        fine,
        ("JOB_NOT_FOUND", 5, False),
        ("INVALID_FIELD", 3, False),
        ("LEASE_LOST", 10, False),
        ("INVALID_FIELD", 3, False),
        ("ILLEGAL_TRANSITION", 9, False),
        late,
        late,
        fine,
    ]
    assert answers[1].error.metadata == {"job_id": "nowhere"}
    assert "progress" in answers[2].error.message
    assert answers[3].error.metadata == {"job_id": job.id, "attempt": "1"}
    assert [a.job.id for a in answers[1:4]] == ["nowhere", job.id, job.id]
    assert answers[6].job.status == COMPLETED
    assert not any(a.HasField("error") for a in (answers[0], *answers[6:]))
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job.progress == 30


async def test_a_report_that_is_no_message_is_its_senders_fault_and_the_stream_goes_on(
    channel: grpc.aio.Channel, call: Caller
) -> None:
    job = await call.running()
    raw = channel.stream_stream(
        "/jobledger.v1.WorkerService/ReportProgress",
        request_serializer=bytes,
        response_deserializer=pb.ReportProgressResponse.FromString,
    )()
    await raw.write(b"\xff\xff\xff")
    await raw.write(report(job, progress=10).SerializeToString())
    bad, good = await raw.read(), await raw.read()
    assert (reason(bad), bad.error.code) == ("INVALID_FIELD", 3)
    assert good.job.progress == 10
    raw.cancel()


async def test_a_cancellation_is_told_with_the_next_report(stream: Any, call: Caller) -> None:
    job = await call.running()
    (before,) = await acknowledged(stream, report(job))
    await call.CancelJob(job_id=job.id, user_id="ada", reason="enough")
    (after,) = await acknowledged(stream, report(job))
    assert (before.cancel_requested, after.cancel_requested) == (False, True)
    assert after.job.HasField("cancel_request_time")
    assert after.job.cancel_reason == "enough"


async def test_a_sign_of_life_renews_the_lease(stream: Any, call: Caller) -> None:
    job = await call.running()
    first, second = await acknowledged(stream, report(job), report(job))
    renewed = second.job.lease_expire_time.ToNanoseconds()
    assert renewed >= first.job.lease_expire_time.ToNanoseconds()
    assert renewed > job.lease_expire_time.ToNanoseconds()


async def test_a_database_that_is_away_is_told_and_the_stream_goes_on(
    app: App, stream: Any, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await call.running()

    def away() -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(app.store, "transaction", away)
        (refused,) = await acknowledged(stream, report(job, progress=10))
    (done,) = await acknowledged(stream, report(job, progress=10))
    assert (reason(refused), refused.error.code) == ("UNAVAILABLE", 14)
    assert done.applied


async def test_a_bug_is_told_by_its_id_only(
    app: App,
    stream: Any,
    call: Caller,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = await call.running()

    def broken() -> Any:
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(app.store, "transaction", broken)
        (refused,) = await acknowledged(stream, report(job, progress=10))
    assert reason(refused) == "INTERNAL"
    assert "secret" not in str(refused)
    assert refused.error.metadata["correlation_id"] in [
        record.correlation_id for record in caplog.records if hasattr(record, "correlation_id")
    ]


async def test_an_old_stream_is_asked_to_move_when_all_it_sent_is_acknowledged(
    start: Start,
) -> None:
    app = await start(max_watch_age=0.2)
    async with grpc.aio.insecure_channel(app.address) as channel:
        job = await Caller(channel).running()
        stream = WorkerServiceStub(channel).ReportProgress()
        for progress in range(50):
            await stream.write(report(job, progress=progress))
        answers = []
        with pytest.raises(grpc.RpcError) as ended:
            async for answer in stream:
                answers.append(answer.job.progress)  # noqa: PERF401
        moved = decoded(ended.value)
        assert (moved.code, moved.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert moved.details["RetryInfo"].retry_delay.seconds == 0
        assert answers == list(range(50))


@pytest.mark.usefixtures("gates")
async def test_a_draining_server_acknowledges_what_it_has_read(database_url: str) -> None:
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=10.0)
    async with AsyncExitStack() as serving:
        app = await serving.enter_async_context(app_module.open_app(settings))
        async with grpc.aio.insecure_channel(app.address) as channel:
            job = await Caller(channel).running()
            gate = app.store.before_commit = Gate()
            stream = WorkerServiceStub(channel).ReportProgress()
            await stream.write(report(job, progress=10))
            await gate.reached.wait()
            stopping = asyncio.create_task(serving.aclose())
            while not app.claim_waiters.draining:
                await asyncio.sleep(0.005)
            gate.open()
            assert (await stream.read()).job.progress == 10
            with pytest.raises(grpc.RpcError) as ended:
                await stream.read()
            assert decoded(ended.value).code is grpc.StatusCode.UNAVAILABLE
            await stopping


async def test_a_caller_that_goes_away_takes_nothing_with_it(
    app: App, channel: grpc.aio.Channel, call: Caller
) -> None:
    jobs = [await call.running() for _ in range(20)]
    stream = WorkerServiceStub(channel).ReportProgress()
    await acknowledged(stream, report(jobs[0], progress=1))
    for job in jobs:
        await stream.write(report(job, progress=50))
    while app.hub.seq < 20 * 2 + 2:
        await asyncio.sleep(0.005)
    stream.cancel()
    await call.UpdateProgress(job_id=jobs[0].id, progress=60)
    assert (await call.GetJob(job_id=jobs[0].id, user_id="ada")).job.progress == 60


async def test_no_more_is_read_than_can_wait(
    app: App, channel: grpc.aio.Channel, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(report_streams, "MAX_WAITING", 5)
    job = await call.running()
    stream = WorkerServiceStub(channel).ReportProgress()
    for progress in range(60):
        await stream.write(report(job, progress=progress))
    await stream.done_writing()
    answers = [answer async for answer in stream]
    assert [answer.job.progress for answer in answers] == list(range(60))
