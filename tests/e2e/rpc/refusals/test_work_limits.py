"""What a caller of WorkerService may work on, and with which fence: each method, and the stream."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1 import job_pb2
from jobledger.v1 import worker_service_pb2 as workers
from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.support.access_file import rule
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import (
    COMPLETED,
    FAILED,
    PROCESSING,
    QUEUED,
    Caller,
    Refusal,
    decoded,
    refusal,
)
from tests.support.work_stream import working

ACCESS = (
    rule("all", 'roles = ["owner", "worker"]\nusers = ["*"]\njob_types = ["*"]')
    + rule("renderer", 'roles = ["worker"]\njob_types = ["render", "preview"]')
    + rule("fenced", 'roles = ["worker"]\njob_types = ["*"]\nfencing = "required"')
)

ERROR = {"message": "m"}
ASSET = {"asset_type": "t", "storage_path": "p"}

ON_A_JOB: Mapping[str, Mapping[str, Any]] = {
    "ReleaseJob": {"release": {"delay": {"seconds": 60}}},
    "TransitionJob": {"target_status": COMPLETED},
    "UpdateProgress": {"progress": {"progress": 10, "checkpoint": {"step": 1}}},
    "MarkCompleted": {},
    "MarkPartial": {},
    "MarkFailed": {"finish": {"error": ERROR, "retryable": True}},
    "CreateAsset": {"asset": {"asset": ASSET}},
    "AppendOutput": {"data": b"x"},
    "Work progress": {"progress": {"checkpoint": {"step": 1}}},
    "Work asset": {"asset": {"asset": ASSET}},
    "Work finish": {"finish": {"status": FAILED, "error": ERROR, "retryable": True}},
    "Work output": {"output": {"data": b"x"}},
    "Work release": {"release": {"delay": {"seconds": 60}}},
}
"""Each method about one job, with what its request needs besides `job_id` and `attempt`.

For Work it is each kind of update."""


ANY_ATTEMPT = {
    *("TransitionJob", "UpdateProgress", "MarkCompleted", "MarkPartial", "MarkFailed"),
    "CreateAsset",
}
"""The methods that a caller may call for a job whatever its attempt."""


class Worker:
    """Calls WorkerService by the names of its methods, the stream for one update."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub = WorkerServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {token}")]

    async def call(self, method: str, **fields: Any) -> Any:
        if method.startswith("Work"):
            return await self._update(**fields)
        request = getattr(workers, f"{method}Request")(**fields)
        return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=30)

    async def _update(self, **fields: Any) -> Any:
        """Send one update over Work; return its result."""
        stream = self._stub.Work(metadata=self._metadata, timeout=30)
        hello = workers.WorkHello(worker_id="w", job_types=["render"])
        update = workers.JobUpdate(**fields)
        await stream.write(workers.WorkRequest(hello=hello, updates=[update]))
        await stream.done_writing()
        (result,) = [result async for answer in stream for result in answer.results]
        return result

    async def refused(self, method: str, **fields: Any) -> tuple[Any, str, str]:
        """Make a call that must fail; return its code, its reason and its message."""
        if not method.startswith("Work"):
            refused: Refusal = await refusal(self.call(method, **fields))
            return refused.code, refused.reason, refused.message
        error = (await self.call(method, **fields)).error
        reason = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
        code = next(code for code in StatusCode if code.value[0] == error.code)
        return code, reason, error.message


@pytest.fixture
async def channel(start_with: Callable[..., Awaitable[Any]]) -> Any:
    app = await start_with(ACCESS)
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


@pytest.fixture
def everything(channel: grpc.aio.Channel) -> Caller:
    """A caller that may do everything."""

    return Caller(channel, token="all")


async def now(call: Caller, job: job_pb2.Job) -> job_pb2.Job:
    return (await call.GetJob(job_id=job.id, user_id="ada")).job


def test_every_method_of_the_contract_is_tested() -> None:
    service = workers.DESCRIPTOR.services_by_name["WorkerService"]
    here = {method.partition(" ")[0] for method in ON_A_JOB}
    assert {method.name for method in service.methods} == {"ClaimJobs", *here}


@in_turn("method", ON_A_JOB)
async def test_a_job_of_another_type_does_not_exist(
    channel: grpc.aio.Channel, everything: Caller, method: str
) -> None:
    renderer = Worker(channel, "renderer")
    foreign = await everything.running(job_type="encode")
    fields = {"attempt": 1, **ON_A_JOB[method]}
    code, reason, message = await renderer.refused(method, job_id=foreign.id, **fields)
    absent = await renderer.refused(method, job_id="0" * 36, **fields)
    assert (code, reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert (code, reason, message.replace(foreign.id, "0" * 36)) == absent
    assert await now(everything, foreign) == foreign


async def test_a_job_of_another_type_can_be_neither_started_nor_claimed(
    channel: grpc.aio.Channel, everything: Caller
) -> None:
    renderer = Worker(channel, "renderer")
    foreign = await everything.job(job_type="encode")
    start = {"target_status": PROCESSING, "worker_id": "w"}
    refused = await renderer.refused("TransitionJob", job_id=foreign.id, **start)
    assert refused[1] == "JOB_NOT_FOUND"
    for job_types in (["encode"], ["render", "encode"]):
        claim = {"worker_id": "w", "job_types": job_types}
        code, reason, _ = await renderer.refused("ClaimJobs", **claim)
        assert (code, reason) == (StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
        async with working(channel, job_types=job_types, token="renderer") as stream:
            with pytest.raises(grpc.RpcError) as ended:
                await stream.read()
        assert decoded(ended.value).reason == "ACCESS_DENIED"
    assert (await now(everything, foreign)).status == QUEUED
    own = await everything.job(job_type="render")
    claimed = await renderer.call("ClaimJobs", worker_id="w", job_types=["render", "preview"])
    assert [job.id for job in claimed.jobs] == [own.id]
    own = await everything.job(job_type="render")
    async with working(channel, slots=1, token="renderer") as stream:
        assert [job.id for job in await stream.jobs()] == [own.id]


async def test_a_stream_holds_no_job_of_another_type(
    channel: grpc.aio.Channel, everything: Caller
) -> None:
    foreign = await everything.running(job_type="encode")
    async with working(channel, holding=[foreign], token="renderer") as stream:
        (signal,) = await stream.signals()
    assert (signal.job_id, signal.HasField("lease_lost")) == (foreign.id, True)
    assert await now(everything, foreign) == foreign


@in_turn("method", ON_A_JOB)
async def test_a_call_without_its_fence_is_refused(
    channel: grpc.aio.Channel, everything: Caller, method: str
) -> None:
    worker, fenced = Worker(channel, "all"), Worker(channel, "fenced")
    job = await everything.running(job_type="render")
    fields = {"job_id": job.id, **ON_A_JOB[method]}
    code, reason, message = await worker.refused(method, **fields)
    assert (code, reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert message.startswith("attempt is required")
    unfenced = method in ANY_ATTEMPT
    if unfenced:
        code, reason, message = await fenced.refused(method, **fields, any_attempt=True)
        assert (code, reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert message == "any_attempt is not allowed for this caller"
    assert await now(everything, job) == job
    await fenced.call(method, **fields, attempt=1)
    after = await now(everything, job)
    assert len(after.output_streams) == ("utput" in method)
    assert after.version == job.version + ("utput" not in method)
    if unfenced:
        other = await everything.running(job_type="render")
        await worker.call(method, **{**fields, "job_id": other.id}, any_attempt=True)
        assert (await now(everything, other)).version == other.version + 1


async def test_a_start_needs_no_fence(channel: grpc.aio.Channel, everything: Caller) -> None:
    fenced = Worker(channel, "fenced")
    job = await everything.job()
    start = {"job_id": job.id, "target_status": PROCESSING, "worker_id": "w"}
    started = (await fenced.call("TransitionJob", **start, expected_version=job.version)).job
    assert started.attempt == 1
