"""Much of what is permitted, all at once, from one client: others are served all the same."""

import asyncio
from collections import Counter

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import worker_service_pb2 as workers
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.robustness.abuse.attacker import attack, begin, parent_waits
from tests.robustness.abuse.good_client import LONGEST_P99, good_client, served_alone
from tests.support.proxy import Proxy
from tests.support.server_process import MIB, ServerProcess

pytestmark = pytest.mark.slow

CALLS = {"creations": 2000, "batches": 300}


def large(size: int) -> Struct:
    return Struct(fields={"blob": Value(string_value="x" * size)})


def creations(target: str, *, what: str) -> object:
    """Send all the large creations at once, over several connections; count the answers."""
    return asyncio.run(create(target, what))


def creations_from_elsewhere(target: str, *, what: str) -> object:
    """Do so from another address of loopback."""

    async def flood() -> Counter[str]:
        async with Proxy(target, source="127.0.0.2") as proxy:
            return await create(proxy.target, what)

    return asyncio.run(flood())


async def create(target: str, what: str) -> Counter[str]:
    codes: Counter[str] = Counter()
    one = jobs.CreateJobRequest(user_id="eve", job_type="t", parameters=large(250_000))
    batch = jobs.BatchCreateJobsRequest(user_id="eve", requests=[one] * 4)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options) for _ in range(4)]
    any_token = (("authorization", "Bearer eve"),)  # without one Envoy lets nothing large pass

    async def send(number: int) -> None:
        stub = JobServiceStub(channels[number % len(channels)])
        try:
            if what == "batches":
                await stub.BatchCreateJobs(batch, timeout=25, metadata=any_token)
            else:
                await stub.CreateJob(one, timeout=25, metadata=any_token)
            codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            codes[error.code().name] += 1

    begin()
    await asyncio.gather(*map(send, range(CALLS[what])))
    return codes


def reports(target: str) -> object:
    """Report on one job over a stream, as fast as it goes, until the test has seen enough."""

    async def flood() -> int:
        async with grpc.aio.insecure_channel(target) as channel:
            job = (
                await JobServiceStub(channel).CreateJob(
                    jobs.CreateJobRequest(user_id="eve", job_type="t")
                )
            ).job
            worker = WorkerServiceStub(channel)
            await worker.TransitionJob(
                workers.TransitionJobRequest(job_id=job.id, target_status=2, worker_id="w")
            )
            stream = worker.Work()
            hello = workers.WorkHello(worker_id="w", job_types=["t"])
            await stream.write(workers.WorkRequest(hello=hello))
            progress = workers.ProgressUpdate(progress=1)
            update = workers.JobUpdate(job_id=job.id, attempt=1, progress=progress)
            report = workers.WorkRequest(updates=[update])
            begin()

            async def read() -> int:
                count = 0
                async for message in stream:
                    count += len(message.results)
                return count

            reading = asyncio.ensure_future(read())
            while parent_waits():
                await stream.write(report)
            await stream.done_writing()
            return await reading

    return asyncio.run(flood())


@pytest.mark.parametrize("what", CALLS)
async def test_large_creations_of_one_client_do_not_delay_others(
    server: ServerProcess, what: str
) -> None:
    alone = await served_alone(server.target)
    before = server.peak_memory
    async with attack(creations, server.target, what=what) as attacker:
        await attacker.begun()
        async with good_client(server.target) as good:
            codes = await attacker.report()
    # What 500 MB at once cost is gRPC's: it reads them before anybody can refuse them.
    assert good.failed == [], good
    # It has its turn in each batch, and batches are short: 0.03 s. Without either it is a second.
    assert good.p50_of_creations < LONGEST_P99, f"{good}; alone: {alone}"
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}, codes
    assert sum(codes.values()) == CALLS[what]
    assert server.peak_memory - before < 700 * MIB


async def test_a_flood_of_reports_on_one_job_does_not_delay_others(server: ServerProcess) -> None:
    alone = await served_alone(server.target)
    before = server.peak_memory
    async with attack(reports, server.target) as attacker:
        await attacker.begun()
        async with good_client(server.target) as good:
            await asyncio.sleep(3)
        assert await attacker.report() > 1000
    assert good.failed == [], good
    # 0.02 s. Where it neither had its turn nor shared a commit with the reports, it is a second.
    assert good.p50_of_creations < LONGEST_P99, f"{good}; alone: {alone}"
    assert server.peak_memory - before < 100 * MIB
