"""What every call goes through, whichever service it is for."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jobledger.v1 import job_pb2
from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.config import Settings
from jobledger_server.wire import handlers
from jobledger_server.wire.handlers import _Unregistered
from jobledger_server.wire.job_service import JobService
from jobledger_server.wire.operations_service import OperationsService
from jobledger_server.wire.worker_service import WorkerService
from longrunning.operations import Operations, name_of
from rpc_caller import Caller


async def test_methods_that_a_caller_made_up_are_not_kept(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a caller could fill the server's memory with names."""
    made: list[_Unregistered] = []

    class Noted(_Unregistered):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(handlers, "_Unregistered", Noted)
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        for number in range(20):
            for service in ("jobledger.v1.JobService", "grpc.health.v1.Health", "else.Where"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(f"/{service}/DoMagic{number}")(b"")
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert len(made) == 5  # our three services, health and reflection
    assert all(not services._wrapped for services in made)


BURST = 500
"""Calls that arrive together."""


async def test_streams_and_calls_that_wait_have_queues_of_their_own(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no others: for each call that it takes up gRPC looks at all queues."""
    registered: dict[str, set[str]] = {}
    kind = type(grpc.aio.server())
    register = kind.add_registered_method_handlers

    def noted(self: grpc.aio.Server, service: str, methods: dict[str, Any]) -> None:
        registered[service] = set(methods)
        register(self, service, methods)

    monkeypatch.setattr(kind, "add_registered_method_handlers", noted)
    await start()
    assert registered == {
        "jobledger.v1.JobService": {"WatchJob", "WatchJobs"},
        "jobledger.v1.WorkerService": {"ClaimJobs", "ReportProgress"},
        "google.longrunning.Operations": {"WaitOperation"},
        "grpc.health.v1.Health": {"Check", "Watch"},
        "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo"},
    }


def watch(channel: grpc.aio.Channel, job: job_pb2.Job) -> Any:
    return Caller(channel).WatchJob(job_id=job.id, user_id="ada")


def claim(channel: grpc.aio.Channel, _job: job_pb2.Job) -> Any:
    wait = Duration(seconds=20)
    return Caller(channel).ClaimJobs(job_types=["none"], worker_id="w1", max_jobs=1, wait=wait)


def wait_for_the_end(channel: grpc.aio.Channel, job: job_pb2.Job) -> Any:
    return Operations(channel).Wait(name=name_of(job), timeout=Duration(seconds=20))


@pytest.mark.parametrize(
    ("begin", "service", "method"),
    [
        (watch, JobService, "WatchJob"),
        (claim, WorkerService, "ClaimJobs"),
        (wait_for_the_end, OperationsService, "WaitOperation"),
    ],
)
async def test_a_call_does_not_wait_for_a_burst_of_lasting_ones_that_came_before_it(
    start: Callable[..., Awaitable[App]],
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[grpc.aio.Channel, job_pb2.Job], Any],
    service: type,
    method: str,
) -> None:
    """Else GetJob waits for seconds behind ten thousand watches; `make bench-storm` shows it."""
    taken: list[str] = []
    note_calls(monkeypatch, JobService, "GetJob", taken)
    note_calls(monkeypatch, service, method, taken)
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.job()
        lasting = [begin(channel, job) for _ in range(BURST)]
        await call.GetJob(job_id=job.id, user_id="ada")
        async with asyncio.timeout(30):
            while len(taken) < BURST + 1:
                await asyncio.sleep(0)
        for one in lasting:
            one.cancel()
    assert taken.index("GetJob") < BURST // 2


async def test_a_probe_does_not_wait_for_a_burst_of_calls_that_came_before_it(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server with much to do would be taken for one that does not answer."""
    taken: list[str] = []
    note_calls(monkeypatch, JobService, "GetJob", taken)
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.job()
        calls = [call.GetJob(job_id=job.id, user_id="ada") for _ in range(BURST)]
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        before = len(taken)
        await asyncio.gather(*calls)
    assert len(taken) == BURST
    assert before < BURST // 2


def note_calls(monkeypatch: pytest.MonkeyPatch, service: type, name: str, taken: list[str]) -> None:
    """Have the method's name added to the list whenever a call of it begins."""
    method = getattr(service, name)

    def begin(self: Any, request: Any, context: Any) -> Any:
        taken.append(name)
        return method(self, request, context)

    monkeypatch.setattr(service, name, begin)


async def test_of_a_request_that_cannot_be_read_nothing_is_kept(
    start: Callable[..., Awaitable[App]],
) -> None:
    """Else anybody could fill the server's memory with calls that have ended."""
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = channel.unary_unary("/jobledger.v1.JobService/GetJob")
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff\xff")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    gc.collect()
    kept = [one for one in gc.get_objects() if type(one).__name__ == "_ServicerContext"]
    assert len(kept) < 10


async def watch_health(channel: grpc.aio.Channel) -> Any:
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVING
    return stream


async def reflect(channel: grpc.aio.Channel) -> Any:
    stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    assert (await stream.read()).list_services_response.service
    return stream


@pytest.mark.parametrize("opened", [watch_health, reflect])
async def test_a_draining_server_ends_the_streams_of_other_services_itself(
    database_url: str, opened: Callable[[grpc.aio.Channel], Awaitable[Any]]
) -> None:
    """They would be cut off at the end of the grace, and hold up everybody until then."""
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=3.0)
    async with AsyncExitStack() as serving:
        app = await serving.enter_async_context(app_module.open_app(settings))
        async with grpc.aio.insecure_channel(app.address) as channel:
            stream = await opened(channel)
            await serving.aclose()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while await stream.read() is not grpc.aio.EOF:
                    pass
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ended.value.details() == "this server is shutting down"
