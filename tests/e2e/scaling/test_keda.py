"""KEDA's ExternalScaler, called as KEDA calls it."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import queue_service_pb2
from jobledger.v1.queue_service_pb2_grpc import QueueServiceStub
from jobledger_server.app import App
from jobledger_server.rpc.keda import externalscaler_pb2 as pb
from jobledger_server.tuning import Tuning
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller, decoded, refusal, watching

SECONDS = 20
METADATA = {"jobTypes": "render, export", "jobsPerWorker": "2.5"}


class Keda:
    """Calls the methods for a trigger with this metadata."""

    def __init__(self, channel: grpc.aio.Channel, metadata: dict[str, str] = METADATA) -> None:
        self.channel = channel
        self.ref = pb.ScaledObjectRef(
            name="render-worker",
            namespace="media",
            scalerMetadata={"scalerAddress": "jobledger:50051", **metadata},
        )

    def _method(self, name: str, response: Any, *, stream: bool = False) -> Any:
        make = self.channel.unary_stream if stream else self.channel.unary_unary
        return make(
            f"/externalscaler.ExternalScaler/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    async def active(self) -> bool:
        return (await self._method("IsActive", pb.IsActiveResponse)(self.ref)).result

    async def spec(self) -> Any:
        return await self._method("GetMetricSpec", pb.GetMetricSpecResponse)(self.ref)

    async def jobs(self) -> int:
        (spec,) = (await self.spec()).metricSpecs
        request = pb.GetMetricsRequest(scaledObjectRef=self.ref, metricName=spec.metricName)
        answer = await self._method("GetMetrics", pb.GetMetricsResponse)(request)
        (value,) = answer.metricValues
        assert value.metricName == spec.metricName
        assert value.metricValue == value.metricValueFloat
        return int(value.metricValue)

    def stream(self) -> Any:
        return self._method("StreamIsActive", pb.IsActiveResponse, stream=True)(self.ref)


async def claimed(call: Caller) -> Any:
    lease = Duration(seconds=60)
    claim = call.ClaimJobs(worker_id="w", job_types=["render"], lease_duration=lease)
    (job,) = (await claim).jobs
    return job


async def test_jobs_that_wait_and_jobs_that_are_held_scale(
    channel: grpc.aio.Channel, call: Caller
) -> None:
    """Without the held ones KEDA would end workers that are busy."""
    keda = Keda(channel)
    (spec,) = (await keda.spec()).metricSpecs
    assert (spec.targetSizeFloat, spec.targetSize) == (2.5, 2)
    assert (await keda.jobs(), await keda.active()) == (0, False)
    for job_type in ("render", "render", "export", "import"):
        await call.job(job_type=job_type)
    assert (await keda.jobs(), await keda.active()) == (3, True)
    jobs = [await claimed(call) for _ in range(2)]
    assert await keda.jobs() == 3
    queues = QueueServiceStub(channel)
    await queues.PauseJobType(queue_service_pb2.PauseJobTypeRequest(job_type="export"))
    assert await keda.jobs() == 2  # more workers would start nothing
    for job in jobs:
        await call.MarkCompleted(job_id=job.id, attempt=1)
    assert (await keda.jobs(), await keda.active()) == (0, False)


async def test_blocked_jobs_ask_for_no_worker(channel: grpc.aio.Channel, call: Caller) -> None:
    queues = QueueServiceStub(channel)
    limit = queue_service_pb2.SetConcurrencyLimitRequest(name="stripe", max_running=1)
    await queues.SetConcurrencyLimit(limit)
    for _ in range(3):
        await call.job(concurrency_key="stripe")
    await claimed(call)
    assert not (await call.ClaimJobs(worker_id="w", job_types=["render"])).jobs
    assert await Keda(channel).jobs() == 1


@pytest.mark.parametrize("tuning", [Tuning(active_seconds=0.05)])
async def test_a_stream_tells_when_there_is_a_first_job_and_when_there_is_none_left(
    channel: grpc.aio.Channel, call: Caller
) -> None:
    async with watching(Keda(channel).stream()) as stream, asyncio.timeout(SECONDS):
        assert not (await stream.read()).result
        for _ in range(2):
            await call.job()
            assert (await stream.read()).result
            await call.MarkCompleted(job_id=(await claimed(call)).id, attempt=1)
            assert not (await stream.read()).result


async def test_a_stream_takes_no_wake_up_from_a_worker(
    channel: grpc.aio.Channel, call: Caller, app: App
) -> None:
    async with watching(Keda(channel).stream()) as stream, asyncio.timeout(SECONDS):
        assert not (await stream.read()).result
        claim = call.ClaimJobs(worker_id="w", job_types=["render"], wait=Duration(seconds=SECONDS))
        while app.claim_waiters.awaited().get("render") != 2:
            await asyncio.sleep(0.001)
        job = await call.job()
        assert [each.id for each in (await claim).jobs] == [job.id]
        assert (await stream.read()).result


@pytest.mark.parametrize("jobs", [0, 1])
async def test_streams_end_when_the_server_drains(
    channel: grpc.aio.Channel, call: Caller, app: App, jobs: int
) -> None:
    for _ in range(jobs):
        await call.job()
    stream = Keda(channel).stream()
    assert (await stream.read()).result == bool(jobs)
    app.claim_waiters.drain()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.read()
    assert decoded(ended.value).code is grpc.StatusCode.UNAVAILABLE


@in_turn(
    ("metadata", "field"),
    [
        ({}, "scalerMetadata.jobTypes"),
        ({"jobTypes": "render,"}, "scalerMetadata.jobTypes"),
        ({"jobTypes": ",".join(f"t{n}" for n in range(1000))}, "scalerMetadata.jobTypes"),
        ({"jobTypes": "render", "jobsPerWorker": "0"}, "scalerMetadata.jobsPerWorker"),
        ({"jobTypes": "render", "jobsPerWorker": "nan"}, "scalerMetadata.jobsPerWorker"),
        ({"jobTypes": "render", "jobsPerWorker": "many"}, "scalerMetadata.jobsPerWorker"),
    ],
)
async def test_metadata_that_cannot_be_read_is_refused(
    channel: grpc.aio.Channel, metadata: dict[str, str], field: str
) -> None:
    keda = Keda(channel, metadata)
    for asked in (keda.active(), keda.spec(), keda.stream().read()):
        refused = await refusal(asked)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert {each.field for each in refused.details["BadRequest"].field_violations} == {field}
