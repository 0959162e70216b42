"""WatchJob's promises, each over a real channel: reliable, ordered and unique, resumable,
conflating, ending."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.app import App
from tests.support.gated_store import Gate
from tests.support.rpc_caller import (
    BASIC,
    BIG_LABELS,
    COMPLETED,
    FAILED,
    FULL,
    PARTIAL,
    PROCESSING,
    QUEUED,
    SMALL_WINDOW,
    Caller,
    calling,
    watching,
)

Start = Callable[..., Any]
Message = pb.WatchJobResponse


async def until_the_end(stream: Any) -> list[Message]:
    """Read a stream to its OK."""
    messages = []
    while (message := await stream.read()) is not grpc.aio.EOF:
        messages.append(message)
    assert await stream.code() is grpc.StatusCode.OK
    return messages


def steps_of(messages: list[Message]) -> list[tuple[int, int]]:
    return [(step.from_status, step.to_status) for m in messages for step in m.transitions]


async def test_reliable_every_transition_and_the_terminal_state_are_delivered(
    call: Caller,
) -> None:
    job = await call.job()
    stream = call.WatchJob(job_id=job.id, user_id="ada")
    first = await stream.read()
    assert first.job == job
    assert not first.transitions
    await call.TransitionJob(job_id=job.id, target_status=PROCESSING)
    for progress in range(1, 8):
        await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": progress})
    finish = {"error": {"message": "no"}}
    last = (await call.MarkFailed(job_id=job.id, attempt=1, finish=finish)).job
    messages = await until_the_end(stream)
    assert messages[-1].job == last
    assert steps_of(messages) == [(QUEUED, PROCESSING), (PROCESSING, FAILED)]
    versions = [m.job.version for m in (first, *messages) if not m.heartbeat]
    assert versions == sorted(set(versions))


async def test_resumable_after_any_version_no_transition_is_lost(call: Caller) -> None:
    job = await call.running()
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 10})
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 20})
    await call.MarkPartial(job_id=job.id, attempt=1)
    expected = {2: (QUEUED, PROCESSING), 5: (PROCESSING, PARTIAL)}
    for after in (0, 1, 2, 3, 4, 5, 99):
        stream = call.WatchJob(job_id=job.id, user_id="ada", after_version=after)
        (message,) = await until_the_end(stream)
        missed = [step for version, step in expected.items() if version > after]
        assert (after, message.job.version, steps_of([message])) == (after, 5, missed)


async def test_payloads_are_sent_once_the_parameters_first_and_the_outcome_last(
    call: Caller,
) -> None:
    job = await call.running(parameters={"frames": 240})
    streams = {
        view: call.WatchJob(job_id=job.id, user_id="ada", view=view) for view in (0, BASIC, FULL)
    }
    first = {view: (await stream.read()).job for view, stream in streams.items()}
    assert first[BASIC] == job
    for view in (0, FULL):
        assert first[view].parameters["frames"] == 240
        first[view].ClearField("parameters")
        assert first[view] == job
    for progress in (10, 20):
        reported = (
            await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": progress})
        ).job
        for stream in streams.values():
            assert (await stream.read()).job == reported
    error = {"reason": "TWO_PAGES_MISSING", "message": "in words", "details": {"pages": [3, 4]}}
    last = (
        await call.MarkPartial(
            job_id=job.id, attempt=1, finish={"result": {"pages": 2}, "error": error}
        )
    ).job
    for view, stream in streams.items():
        (message,) = await until_the_end(stream)
        assert steps_of([message]) == [(PROCESSING, PARTIAL)]
        if view != BASIC:
            assert not message.job.HasField("parameters")
            assert message.job.result["pages"] == 2
            assert list(message.job.error.details["pages"]) == [3, 4]
            message.job.ClearField("result")
            message.job.error.ClearField("details")
        assert message.job == last
    # A watch of a job that has ended has one message, with everything.
    (message,) = await until_the_end(call.WatchJob(job_id=job.id, user_id="ada"))
    assert message.job == (await call.GetJob(job_id=job.id, user_id="ada")).job


async def test_the_outcome_is_read_once_for_all_watches_of_a_job(
    app: App, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await call.running(parameters={"frames": 240})
    streams = [call.WatchJob(job_id=job.id, user_id="ada") for _ in range(10)]
    for stream in streams:
        await stream.read()
    reads: list[bool] = []
    read_jobs = app.store.read_jobs

    async def counted(ids: Any, *, full: bool) -> Any:
        reads.append(full)
        return await read_jobs(ids, full=full)

    monkeypatch.setattr(app.store, "read_jobs", counted)
    await call.MarkCompleted(job_id=job.id, attempt=1, finish={"result": {"pages": 4}})
    for stream in streams:
        (message,) = await until_the_end(stream)
        assert message.job.result["pages"] == 4
    assert reads == [True]


async def test_a_job_that_is_deleted_at_once_ends_without_its_outcome(gated: App) -> None:
    async with calling(gated.address) as call:
        job = await call.running()
        stream = call.WatchJob(job_id=job.id, user_id="ada")
        await stream.read()
        gate = gated.store.before_read = Gate()
        await call.MarkCompleted(job_id=job.id, attempt=1, finish={"result": {"pages": 4}})
        await gate.reached.wait()  # the watch reads the result
        await call.DeleteJob(job_id=job.id, user_id="ada")
        gate.open()
        (end,) = await until_the_end(stream)
    assert (end.job.status, end.job.HasField("result")) == (COMPLETED, False)


async def test_an_idle_watch_sends_heartbeats_without_the_job(start: Start) -> None:
    """With it, thousands of idle watches of large jobs would fill the network."""
    app = await start(heartbeat=0.05)
    async with calling(app.address) as call:
        job = await call.running()
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            first = await stream.read()
            beat, again = await stream.read(), await stream.read()
    assert not first.heartbeat
    assert [beat, again] == [pb.WatchJobResponse(heartbeat=True)] * 2


async def test_a_change_between_subscribing_and_reading_is_not_lost(gated: App) -> None:
    """Both orders: committed before the read sees it, and after the read has seen the old."""
    async with calling(gated.address) as call:
        job = await call.job()
        before = gated.store.before_read = Gate()
        stream = call.WatchJob(job_id=job.id, user_id="ada")
        first = asyncio.create_task(stream.read())
        await before.reached.wait()  # subscribed, and not read yet
        await call.TransitionJob(job_id=job.id, target_status=PROCESSING)
        before.open()
        message = await first
        assert (message.job.version, steps_of([message])) == (2, [(QUEUED, PROCESSING)])
        await call.MarkCompleted(job_id=job.id, attempt=1)
        assert steps_of(await until_the_end(stream)) == [(PROCESSING, COMPLETED)]


async def test_a_change_between_reading_and_the_first_message_is_not_lost(
    gated: App,
) -> None:
    async with calling(gated.address) as call:
        job = await call.job()
        after = gated.store.after_read = Gate()
        stream = call.WatchJob(job_id=job.id, user_id="ada")
        first = asyncio.create_task(stream.read())
        await after.reached.wait()  # read as QUEUED, and not sent yet
        await call.TransitionJob(job_id=job.id, target_status=PROCESSING)
        await call.MarkCompleted(job_id=job.id, attempt=1)
        after.open()
        message = await first
        assert (message.job.version, message.job.status) == (1, QUEUED)
        messages = await until_the_end(stream)
    assert steps_of(messages) == [(QUEUED, PROCESSING), (PROCESSING, COMPLETED)]


async def test_a_watcher_that_stops_reading_does_not_affect_others(app: App, call: Caller) -> None:
    job = await call.job(labels=BIG_LABELS)
    async with grpc.aio.insecure_channel(app.address, SMALL_WINDOW) as channel:
        stalled = [Caller(channel).WatchJob(job_id=job.id, user_id="ada") for _ in range(10)]
        for stream in stalled:
            await stream.read()
        healthy = call.WatchJob(job_id=job.id, user_id="ada")
        await healthy.read()
        await call.TransitionJob(job_id=job.id, target_status=PROCESSING)
        assert steps_of([await healthy.read()]) == [(QUEUED, PROCESSING)]
        for progress in range(1, 30):
            await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": progress})
            while (await healthy.read()).job.progress < progress:
                pass
        await call.MarkCompleted(job_id=job.id, attempt=1)
        for stream in (healthy, *stalled):
            messages = await until_the_end(stream)
            assert messages[-1].job.status == COMPLETED
            assert steps_of(messages)[-1] == (PROCESSING, COMPLETED)
            # The server conflates changes for a watcher that does not read: it keeps one
            # message, and those that gRPC has buffered.
            assert len(messages) < 10


async def test_a_watcher_that_disconnects_frees_its_slot(app: App, call: Caller) -> None:
    job = await call.job()
    stream = call.WatchJob(job_id=job.id, user_id="ada")
    await stream.read()
    assert app.hub.watches == 1
    stream.cancel()
    async with asyncio.timeout(10):
        while app.hub.watches:
            await call.GetJob(job_id=job.id, user_id="ada")
