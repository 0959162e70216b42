"""Checkpoints: where the next attempt goes on."""

import asyncio
import threading
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from jobledger_server.app import App
from jobledger_server.domain.limits import MAX_ANSWER_BYTES, MAX_CHECKPOINT_BYTES
from jobledger_server.rpc.incoming import INLINE_BYTES
from jobledger_server.rpc.workers.worker_requests import WorkerRequests
from tests.support.databases import both_databases
from tests.support.gated_store import Gate
from tests.support.rpc_caller import BASIC, FULL, Caller, calling, refusal
from tests.support.work_stream import progressed, reason, working


def sized(size: int) -> Struct:
    """Return a Struct of so many bytes."""
    made = Struct()
    made["x"] = "x" * (size - 16)
    made["x"] = "x" * (2 * size - 16 - made.ByteSize())
    assert made.ByteSize() == size
    return made


LARGEST = sized(MAX_CHECKPOINT_BYTES)


async def read(call: Caller, job: Any, **fields: Any) -> Any:
    return (await call.GetJob(job_id=job.id, user_id="ada", **fields)).job


async def claimed(call: Caller, count: int = 1, **fields: Any) -> list[Any]:
    claim = {"worker_id": "w2", "job_types": ["render"], "max_jobs": count, **fields}
    return list((await call.ClaimJobs(**claim)).jobs)


async def test_a_checkpoint_is_replaced_kept_and_given_to_each_later_attempt(call: Caller) -> None:
    job = await call.running()
    for step in (1, 2):
        report = await call.UpdateProgress(
            job_id=job.id,
            attempt=1,
            progress={"progress": step, "checkpoint": {"step": step, "ü": ["🎬", None]}},
        )
        assert not report.job.HasField("checkpoint")  # the answer to a write has no payloads
    await call.UpdateProgress(
        job_id=job.id, attempt=1, progress={"progress": 3}
    )  # unchanged without one
    latest = (await read(call, job)).checkpoint
    assert latest["step"] == 2
    for attempt in (2, 3):
        await call.ReleaseJob(job_id=job.id, attempt=attempt - 1)
        (again,) = await claimed(call, wait=Duration(seconds=20))
        assert (again.attempt, again.checkpoint) == (attempt, latest)
    await call.MarkCompleted(job_id=job.id, attempt=3, finish={"result": {"done": True}})
    ended = await read(call, job)
    assert (ended.checkpoint, ended.result["done"]) == (latest, True)
    assert not (await read(call, job, view=BASIC)).HasField("checkpoint")
    (listed,) = (await call.ListJobs(user_id="ada", view=FULL)).jobs
    assert listed == ended
    (basic,) = (await call.ListJobs(user_id="ada")).jobs
    assert not basic.HasField("checkpoint")


@both_databases
async def test_the_largest_checkpoint_passes_with_all_else_that_a_report_has(
    call: Caller, app: App
) -> None:
    job = await call.running()
    message = "🎬" * 512
    await call.UpdateProgress(
        job_id=job.id,
        attempt=1,
        progress={"progress": 5, "progress_message": message, "checkpoint": LARGEST},
    )
    assert (await read(call, job)).checkpoint == LARGEST
    larger = sized(MAX_CHECKPOINT_BYTES + 1)
    refused = await refusal(
        call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": larger})
    )
    (violation,) = refused.details["BadRequest"].field_violations
    assert (violation.field, refused.reason) == ("progress.checkpoint", "INVALID_FIELD")
    assert "65537 bytes, at most 65536" in violation.description
    async with grpc.aio.insecure_channel(app.address) as channel, working(channel) as work:
        await work.send(updates=[progressed(job, 6, checkpoint=larger)])
        (result,) = await work.results()
        assert result.error.message.startswith("progress.checkpoint has 65537 bytes")
        await work.send(updates=[progressed(job, 7, checkpoint=LARGEST)])
        (result,) = await work.results()
        assert reason(result) == ""
    assert (await read(call, job)).progress == 7


async def test_a_claim_of_jobs_with_checkpoints_fits_in_a_message(call: Caller) -> None:
    """Also where each waits for its worker with a long error."""
    error = {"reason": "X", "message": "🎬" * 4096}
    made = []
    for _ in range(45):
        job = await call.running(retry_policy={"max_attempts": 2})
        await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": LARGEST})
        fields = {"retryable": True, "retry_delay": Duration(), "error": error}
        await call.MarkFailed(job_id=job.id, attempt=1, finish=fields)
        made.append(job.id)
    given: list[str] = []
    while len(given) < len(made):
        answer = await call.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=45)
        assert 0 < answer.ByteSize() <= MAX_ANSWER_BYTES
        given += [job.id for job in answer.jobs]
    assert given == made


async def test_a_watch_has_the_checkpoint_in_its_first_message_only(call: Caller) -> None:
    job = await call.running(parameters={"n": 1})
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": {"step": 1}})
    full = call.WatchJob(job_id=job.id, user_id="ada", view=FULL)
    basic = call.WatchJob(job_id=job.id, user_id="ada", view=BASIC)
    first = (await full.read()).job
    assert (first.checkpoint["step"], first.parameters["n"]) == (1, 1)
    await basic.read()
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": {"step": 2}})
    for stream in (full, basic):
        assert not (await stream.read()).job.HasField("checkpoint")
    await call.MarkCompleted(job_id=job.id, attempt=1, finish={"result": {"done": True}})
    last = (await full.read()).job
    assert (last.HasField("checkpoint"), last.result["done"]) == (False, True)
    assert not (await basic.read()).job.HasField("checkpoint")
    ended = call.WatchJob(job_id=job.id, user_id="ada", view=FULL)
    only = (await ended.read()).job
    assert (only.checkpoint["step"], only.result["done"]) == (2, True)


async def test_a_full_feed_has_the_checkpoint_where_it_has_payloads(call: Caller) -> None:
    job = await call.running()
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": {"step": 1}})
    stream = call.WatchJobs(user_id="ada", view=FULL)
    (listed,) = (await stream.read()).changes.changes
    assert listed.job.checkpoint["step"] == 1
    while not (await stream.read()).synced:
        pass
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": {"step": 2}})
    assert not (await stream.read()).changes.changes[0].job.HasField("checkpoint")
    await call.MarkCompleted(job_id=job.id, attempt=1)
    assert (await stream.read()).changes.changes[0].job.checkpoint["step"] == 2
    stream.cancel()


async def test_a_checkpoint_that_grew_since_its_job_was_listed_is_left_out(gated: App) -> None:
    """The page was cut before: there may be no room for it."""
    async with calling(gated.address) as call:
        grows, shrinks = [await call.running(parameters={"n": n}) for n in (1, 2)]
        await call.UpdateProgress(job_id=shrinks.id, attempt=1, progress={"checkpoint": LARGEST})
        gate = gated.store.before_read = Gate()
        listing = asyncio.ensure_future(call.ListJobs(user_id="ada", view=FULL))
        await gate.reached.wait()
        for job, checkpoint in ((grows, LARGEST), (shrinks, {"step": 1})):
            await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": checkpoint})
        gate.open()
        second, first = (await listing).jobs
    assert (first.parameters["n"], first.HasField("checkpoint")) == (1, False)
    assert (second.parameters["n"], second.checkpoint["step"]) == (2, 1)


async def test_a_large_checkpoint_is_not_checked_in_the_event_loop(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of many small values takes some 75 ms."""
    in_loop: list[bool] = []
    report = WorkerRequests.report

    def noted(self: WorkerRequests, request: Any) -> Any:
        in_loop.append(threading.current_thread() is threading.main_thread())
        return report(self, request)

    monkeypatch.setattr(WorkerRequests, "report", noted)
    job = await call.running()
    await call.UpdateProgress(
        job_id=job.id, attempt=1, progress={"checkpoint": sized(INLINE_BYTES // 2)}
    )
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": LARGEST})
    assert in_loop == [True, False]
