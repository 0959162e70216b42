"""What applies to every call of every service."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from jobledger.v1.job_service_pb2 import CreateJobRequest, WatchJobRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.methods import METHODS
from jobledger_server.rpc.serving import arrivals, handlers
from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from tests.support.http2 import DATA, END_HEADERS, HEADERS, Connection, frame, request_headers
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller, decoded

REQUEST = b"\xff" * 100_000
CALLS = 40


async def memory_after_refusals(app: App) -> int:
    """Have requests refused; return how many bytes of them no collection has freed."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(CALLS):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(REQUEST)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()


async def test_a_refused_request_stays_in_no_traceback(app: App) -> None:
    """Else any client could fill the server's memory with finished calls."""
    assert await memory_after_refusals(app) < CALLS * len(REQUEST) / 4


async def refused(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="user_id"):
        await JobServiceStub(channel).CreateJob(CreateJobRequest())


async def refused_stream(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="job_id"):
        await JobServiceStub(channel).WatchJob(WatchJobRequest()).read()


async def answered(channel: grpc.aio.Channel) -> None:
    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())


async def cancelled(channel: grpc.aio.Channel) -> None:
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    await stream.read()
    stream.cancel()


def calls_in_memory() -> int:
    return sum(type(each) is Call for each in gc.get_objects())


@in_turn("call", [answered, refused, refused_stream, cancelled])
async def test_a_call_that_has_ended_is_freed_without_a_garbage_collection(
    app: App, call: Callable[[grpc.aio.Channel], Awaitable[None]]
) -> None:
    """Else a caller who is refused often fills the memory, and then everybody waits for it."""
    gc.collect()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(app.address) as channel:
            for _ in range(CALLS):
                await call(channel)
        async with asyncio.timeout(10):
            while calls_in_memory():
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def watch_health(channel: grpc.aio.Channel) -> Any:
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVING
    return stream


REFLECTION = "grpc.reflection.{}.ServerReflection"


@in_turn("version", ["v1", "v1alpha"])
async def test_reflection_answers_under_both_of_its_names(app: App, version: str) -> None:
    """It knows every service, itself too, and their files."""
    service = REFLECTION.format(version)
    async with grpc.aio.insecure_channel(app.address) as channel:
        stream = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = {each.name for each in (await stream.read()).list_services_response.service}
        assert {REFLECTION.format(each) for each in ("v1", "v1alpha")} <= listed
        assert "jobledger.v1.JobService" in listed
        for name in listed:
            asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
            await stream.write(asked)
            files = (await stream.read()).file_descriptor_response.file_descriptor_proto
            file = descriptor_pb2.FileDescriptorProto.FromString(files[0])
            assert name in {f"{file.package}.{each.name}" for each in file.service}
        stream.cancel()


async def test_a_draining_server_ends_the_streams_of_other_services_itself(
    database_url: str,
) -> None:
    """Else they would last to the end of the grace period, and delay the shutdown."""
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=3.0)
    async with AsyncExitStack() as serving:
        app = await serving.enter_async_context(app_module.open_app(settings))
        async with grpc.aio.insecure_channel(app.address) as channel:
            stream = await watch_health(channel)
            await serving.aclose()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while await stream.read() is not grpc.aio.EOF:
                    pass
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ended.value.details() == "this server is shutting down"


IMPATIENT = Tuning(untimed_requests=0, prompt_seconds=0.1, request_seconds=0.3)
"""Reads each request itself."""

OF_OTHER_SERVICES = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


@in_turn("method", OF_OTHER_SERVICES)
async def test_a_malformed_message_to_another_service_is_no_internal_error(
    app: App, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    data = b"\x0a\x02\xff\xfe"
    async with grpc.aio.insecure_channel(app.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            if method.endswith("Check"):
                await channel.unary_unary(method)(data)
            elif method.endswith("Watch"):
                await channel.unary_stream(method)(data).read()
            else:
                stream = channel.stream_stream(method)()
                await stream.write(data)
                await stream.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("tuning", [IMPATIENT])
@in_turn(
    "path",
    (b"/jobledger.v1.JobService/CreateJob", *(each.encode() for each in OF_OTHER_SERVICES[:2])),
)
async def test_a_request_that_does_not_arrive_in_time_is_refused(
    app: App, call: Caller, path: bytes
) -> None:
    headers = request_headers(path)
    with Connection(app.address) as slow:
        slow.send(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, 0, 1, b"\0\0\0\1\0half"))
        async with asyncio.timeout(10):
            while 1 not in slow.answered:
                await asyncio.sleep(0.01)
    assert (await call.job()).version == 1


@pytest.mark.parametrize("tuning", [IMPATIENT])
async def test_a_request_that_did_not_arrive_in_time_may_be_sent_again(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel, asyncio.timeout(10):
        only_headers = channel.stream_unary("/jobledger.v1.JobService/CreateJob")()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await only_headers
    refusal = decoded(late.value)
    assert (refusal.code, refusal.metadata["scope"]) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "caller",
    )
    assert "RetryInfo" in refusal.details


@pytest.mark.parametrize("tuning", [Tuning(untimed_requests=5, prompt_seconds=0.1)])
async def test_requests_that_do_not_arrive_are_few_for_each_address(app: App, call: Caller) -> None:
    """gRPC waits for some of them; of the rest all but a few are refused after a moment."""
    unfinished = 5 + arrivals.MAX_SLOW_EACH
    headers = request_headers(b"/jobledger.v1.JobService/CreateJob")
    with Connection(app.address) as slow:
        for stream in range(1, 2 * (unfinished + 20), 2):
            half = b"\0\0\0\1\0half"
            slow.send(frame(HEADERS, END_HEADERS, stream, headers), frame(DATA, 0, stream, half))
        async with asyncio.timeout(10):
            while len(slow.answered) < 20:
                await asyncio.sleep(0.01)
        assert (await call.job()).version == 1
        assert len(slow.answered) == 20


@pytest.mark.parametrize("tuning", [Tuning(untimed_requests=0)])
async def test_a_request_that_arrives_in_parts_is_served_at_once(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel, asyncio.timeout(10):
        call = channel.stream_unary("/jobledger.v1.JobService/CreateJob")()
        await call.write(CreateJobRequest(user_id="ada", job_type="t").SerializeToString())
        await call.done_writing()
        assert await call


async def test_a_method_that_is_not_in_the_table_stops_the_server(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {path: each for path, each in METHODS.items() if not path.endswith("/GetJob")}
    monkeypatch.setattr(handlers, "METHODS", some)
    with pytest.raises(LookupError, match=r"JobService/GetJob is not in rpc/methods\.py"):
        async with app_module.open_app(Settings(listen="127.0.0.1:0", database=database_url)):
            pass
