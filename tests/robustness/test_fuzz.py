"""Whatever is sent to a method, it is never answered with an internal error."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.message_factory import GetMessageClass
from google.rpc.code_pb2 import INTERNAL

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as webhook_deliveries
from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import queue_service_pb2 as queues
from jobledger.v1 import webhook_service_pb2 as webhooks
from jobledger.v1 import worker_service_pb2 as workers
from jobledger_server.rpc.keda import externalscaler_pb2
from tests.robustness.fuzz import Fuzz
from tests.support.rpc_caller import TOO_SLOW, Caller
from tests.support.seed import SEED
from tests.support.server_process import ServerProcess
from tests.support.shared_postgres import Databases

IN_FLIGHT = 32
WAITING = 64
"""Calls at a time, and of those that may wait. With those that were given up and that the server
still ends they are fewer than the streams of a connection."""

WAITS = {
    "ClaimJobs": 0.1,
    "WaitOperation": 0.1,
    "WatchJob": 0.1,
    "WatchJobs": 0.1,
    "WatchOutput": 0.1,
    "StreamIsActive": 0.1,
}
"""Seconds after which a call that has nothing to answer is given up."""

REFUSED = "RST_STREAM with error code 7"
"""Of a call that came while the server still had a hundred that their callers had given up: it was
not begun, and may be sent again (RFC 9113, 8.7)."""

AGAIN = (REFUSED, TOO_SLOW)
"""What says of a call that it may be sent again."""

SERVICES = (
    jobs.DESCRIPTOR.services_by_name["JobService"],
    workers.DESCRIPTOR.services_by_name["WorkerService"],
    queues.DESCRIPTOR.services_by_name["QueueService"],
    webhooks.DESCRIPTOR.services_by_name["WebhookService"],
    webhook_deliveries.DESCRIPTOR.services_by_name["WebhookDeliveryService"],
    externalscaler_pb2.DESCRIPTOR.services_by_name["ExternalScaler"],
    operations_pb2.DESCRIPTOR.services_by_name["Operations"],
)

METADATA = (("x-jobledger-user", "ada"),)


METHODS = [
    pytest.param(service, method, id=f"{service.name}-{method.name}")
    for service in SERVICES
    for method in service.methods
]


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Return a server on each database, shared: every request is one of many to it."""
    with ExitStack() as stack:
        database = None
        if request.param == "postgresql":
            cluster = request.getfixturevalue("postgres_cluster")
            template = request.getfixturevalue("postgres_template")
            database = stack.enter_context(Databases(cluster)).create_database(template)
        folder = tmp_path_factory.mktemp("server")
        yield stack.enter_context(ServerProcess(folder, database=database))


@pytest.mark.parametrize(
    ("server", "count"),
    [
        pytest.param("sqlite", 12, id="few"),
        pytest.param("sqlite", 1_000, id="many-sqlite", marks=pytest.mark.slow),
        pytest.param("postgresql", 1_000, id="many-postgresql", marks=pytest.mark.slow),
    ],
    indirect=["server"],
    scope="module",
)
@pytest.mark.parametrize(("service", "method"), METHODS)
async def test_no_request_is_an_internal_error(
    server: ServerProcess, service: Any, method: Any, count: int
) -> None:
    codes: Counter[str] = Counter()
    logged = server.log.stat().st_size
    async with grpc.aio.insecure_channel(server.target) as channel:
        known = await some_jobs(channel)
        fuzz = Fuzz(SEED, known)
        kind = GetMessageClass(method.input_type)
        requests = iter(range(count))

        async def send() -> None:
            for _ in requests:
                request = fuzz.request(kind)
                while (code := await outcome(channel, service, method, request)) in AGAIN:
                    await asyncio.sleep(0.05)
                codes[code] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(WAITING if method.name in WAITS else IN_FLIGHT):
                tasks.create_task(send())
        assert (await Caller(channel).job()).id
    assert codes.total() == count
    assert not codes.keys() & {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}, codes
    log = server.log.read_bytes()[logged:]
    assert b'"internal_error"' not in log
    # A list may be too slow. A write may be neither that nor deadlocked.
    assert b'"write_failed"' not in log


async def some_jobs(channel: grpc.aio.Channel) -> list[str]:
    """Return the ids of jobs in every state, and the names of some of them as operations."""
    call = Caller(channel)
    await call.ResumeJobType(job_type="render")  # an earlier request may have paused it
    made = [await call.job(), await call.running(), await call.ended(), await call.job()]
    await call.CancelJob(job_id=made[-1].id, user_id="ada")
    return [job.id for job in made] + [f"jobs/{job.id}" for job in made]


def error_codes(answer: bytes) -> list[int]:
    """Return the codes of the errors in one answer of a stream of Work."""
    return [each.error.code for each in workers.WorkResponse.FromString(answer).results]


async def outcome(channel: grpc.aio.Channel, service: Any, method: Any, request: bytes) -> str:
    """Make one call; return the name of its code."""
    path = f"/{service.full_name}/{method.name}"
    timeout = WAITS.get(method.name, 20)
    try:
        if method.client_streaming:
            stream = channel.stream_stream(path)(timeout=timeout, metadata=METADATA)
            await stream.write(request)
            await stream.done_writing()
            while (data := await stream.read()) is not grpc.aio.EOF:
                if INTERNAL in error_codes(data):
                    return "INTERNAL"
        elif method.server_streaming:
            stream = channel.unary_stream(path)(request, timeout=timeout, metadata=METADATA)
            await stream.read()
            stream.cancel()
        else:
            await channel.unary_unary(path)(request, timeout=timeout, metadata=METADATA)
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        return next((each for each in AGAIN if each in details), error.code().name)
    return "OK"
