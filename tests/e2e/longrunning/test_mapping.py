"""What a job is as an operation, in each of its states."""

import asyncio
import time

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2
from grpc import StatusCode

from jobledger_server.rpc.operations.operation_messages import CODES
from jobledger_server.rpc.workers import worker_requests
from tests.e2e.longrunning.operations import Operations, full, job_in, name_of
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import (
    COMPLETED,
    FAILED,
    PARTIAL,
    PROCESSING,
    QUEUED,
    Caller,
    policy,
    refusal,
)


async def test_a_job_that_is_not_terminal_has_neither_response_nor_error(
    call: Caller, operations: Operations
) -> None:
    for made in (await call.job(parameters={"frames": 240}), await call.running()):
        job = await full(call, made)
        operation = await operations.Get(name=name_of(job))
        assert operation.name == name_of(job)
        assert not operation.done
        assert operation.WhichOneof("result") is None
        assert job_in(operation.metadata) == job
        assert job.status in (QUEUED, PROCESSING)


async def test_a_job_that_waits_is_not_done_and_its_metadata_says_for_what(
    call: Caller, operations: Operations
) -> None:
    due = Timestamp()
    due.FromSeconds(int(time.time()) + 3600)
    scheduled = await call.job(schedule_time=due)
    job = await call.running(retry_policy=policy(2))
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": {"page": 3}})
    error = {"reason": "NO_NETWORK", "message": "no network", "details": {"host": "ü"}}
    failure = {"error": error, "retryable": True, "retry_delay": Duration(seconds=3600)}
    retried = (await call.MarkFailed(job_id=job.id, attempt=1, finish=failure)).job
    for waits in (scheduled, retried):
        operation = await operations.Wait(name=name_of(waits), timeout=Duration(nanos=1000))
        assert (operation.done, operation.WhichOneof("result")) == (False, None)
        assert job_in(operation.metadata).schedule_time == waits.schedule_time
    facts = job_in(operation.metadata)
    assert (facts.attempt, facts.last_error, facts.held) == (1, retried.last_error, False)
    assert (facts.last_error.reason, facts.checkpoint["page"]) == ("NO_NETWORK", 3)
    # A failure in between does not end a wait; the last one does.
    job = await call.running(retry_policy=policy(2))
    waiting = asyncio.ensure_future(operations.Wait(name=name_of(job)))
    await call.MarkFailed(job_id=job.id, attempt=1, finish={"error": error, "retryable": True})
    await call.ClaimJobs(worker_id="w", job_types=["render"], wait=Duration(seconds=20))
    assert not waiting.done()
    await call.MarkFailed(job_id=job.id, attempt=2, finish={"error": error, "retryable": True})
    operation = await waiting
    assert (operation.done, operation.error.message) == (True, "no network")
    info = error_details_pb2.ErrorInfo()
    assert operation.error.details[0].Unpack(info)
    assert info.metadata["attempt"] == "2"


@in_turn(("method", "status"), [("MarkCompleted", COMPLETED), ("MarkPartial", PARTIAL)])
async def test_a_result_is_the_job_as_the_response_with_what_is_missing(
    call: Caller, operations: Operations, method: str, status: int
) -> None:
    job = await call.running()
    error = {"reason": "TWO_PAGES_MISSING", "message": "pages 3 and 4 could not be read"}
    finish = {"result": {"pages": 2}} | ({"error": error} if status == PARTIAL else {})
    await getattr(call, method)(job_id=job.id, attempt=1, finish=finish)
    job = await full(call, job)
    operation = await operations.Get(name=name_of(job))
    assert operation.done
    assert job_in(operation.response) == job_in(operation.metadata) == job
    assert (job.status, job.result["pages"]) == (status, 2)


@in_turn("reason", ["INTERNAL", "NOT_FOUND", ""])
async def test_failed_by_its_worker_is_an_error_with_the_code_unknown(
    call: Caller, operations: Operations, reason: str
) -> None:
    job = await call.running()
    error = {"reason": reason, "message": "no such font", "details": {"font": "Ü"}}
    await call.MarkFailed(job_id=job.id, attempt=1, finish={"error": error})
    job = await full(call, job)
    operation = await operations.Get(name=name_of(job))
    assert operation.done
    assert operation.WhichOneof("result") == "error"
    assert operation.error.code == code_pb2.UNKNOWN
    assert operation.error.message == "no such font"
    info, details = error_details_pb2.ErrorInfo(), Struct()
    first, second = operation.error.details
    assert (first.Unpack(info), second.Unpack(details)) == (True, True)
    assert (info.reason, info.domain) == (reason or "UNKNOWN", "jobs.jobledger")
    assert info.metadata == {"job_id": job.id, "job_type": "render", "attempt": "1"}
    assert details["font"] == "Ü"
    assert job_in(operation.metadata) == job
    assert job.status == FAILED


async def test_failed_by_the_service_is_an_error_with_a_code_for_its_reason(
    call: Caller, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_requests, "MIN_LEASE_SECONDS", 0)
    second, once = Duration(seconds=1), {"max_attempts": 1}
    queued = await call.job(job_type="queued", queue_timeout=second)
    jobs = {
        "QUEUE_EXPIRED": (queued, code_pb2.DEADLINE_EXCEEDED),
        "RUN_EXPIRED": (await call.running(run_timeout=second), code_pb2.DEADLINE_EXCEEDED),
        "STALLED": (
            await call.running(stall_timeout=second, retry_policy=once),
            code_pb2.ABORTED,
        ),
        "LEASE_EXPIRED": (await call.job(retry_policy=once), code_pb2.ABORTED),
    }
    await call.ClaimJobs(worker_id="w", job_types=["render"], lease_duration=second)
    for reason, (job, code) in jobs.items():
        operation = await operations.Wait(name=name_of(job))
        assert (operation.done, operation.error.code) == (True, code), reason
        assert job_in(operation.metadata).error.reason == reason
    assert CODES.keys() == {"CANCELLED", *jobs}


async def test_cancelling_a_queued_job_finishes_the_operation_with_code_1(
    call: Caller, operations: Operations
) -> None:
    job = await call.job()
    await operations.Cancel(name=name_of(job))
    operation = await operations.Get(name=name_of(job))
    assert (operation.done, operation.error.code) == (True, 1)
    await operations.Cancel(name=name_of(job))  # one that has ended is left as it is
    assert await operations.Get(name=name_of(job)) == operation


async def test_a_running_job_is_not_deleted(call: Caller, operations: Operations) -> None:
    job = await call.running()
    refused = await refusal(operations.Delete(name=name_of(job)))
    assert (refused.code, refused.reason) == (
        StatusCode.FAILED_PRECONDITION,
        "ILLEGAL_TRANSITION",
    )
    assert refused.metadata["target"] == "DELETED"
    await call.MarkCompleted(job_id=job.id, attempt=1)
    await operations.Delete(name=name_of(job))
    refused = await refusal(operations.Get(name=name_of(job)))
    assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_the_largest_job_passes_as_metadata_and_response_at_once(
    call: Caller, operations: Operations
) -> None:
    """Everything is there twice, and still within the 4 MiB that clients take by default."""
    payload = {"pad": "x" * (255 * 1024)}
    job = await call.running(parameters=payload, retry_policy=policy(2))
    error = {"message": "ü" * 4096, "details": payload}
    checkpoint = {"pad": "x" * (63 * 1024)}
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": checkpoint})
    again = {"retryable": True, "retry_delay": Duration(), "error": error}
    await call.MarkFailed(job_id=job.id, attempt=1, finish=again)
    await call.ClaimJobs(worker_id="w", job_types=["render"])
    await call.MarkPartial(job_id=job.id, attempt=2, finish={"result": payload, "error": error})
    job = await full(call, job)
    operation = await operations.Get(name=name_of(job))
    assert job_in(operation.response) == job_in(operation.metadata) == job
    listed = await operations.List(name="jobs")
    assert list(listed.operations) == [operation]
