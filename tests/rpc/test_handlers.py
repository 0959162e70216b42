"""What every call goes through, whichever service it is for."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.config import Settings
from jobledger_server.wire import handlers
from jobledger_server.wire.handlers import _Unregistered
from jobledger_server.wire.job_service import JobService
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


async def test_a_call_does_not_wait_for_a_burst_of_watches_that_came_before_it(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else GetJob waits for seconds behind ten thousand watches; `make bench-storm` shows it."""
    taken = in_the_order_taken_up(monkeypatch)
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.job()
        watches = [call.WatchJob(job_id=job.id, user_id="ada") for _ in range(BURST)]
        await call.GetJob(job_id=job.id, user_id="ada")
        await asyncio.gather(*(watch.read() for watch in watches))
        for watch in watches:
            watch.cancel()
    assert len(taken) == BURST + 1
    assert taken.index("GetJob") < BURST // 2


async def test_a_probe_does_not_wait_for_a_burst_of_calls_that_came_before_it(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server with much to do would be taken for one that does not answer."""
    taken = in_the_order_taken_up(monkeypatch)
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


def in_the_order_taken_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which the name of each method is added when a call of it begins."""
    taken: list[str] = []

    def noted(name: str) -> None:
        method = getattr(JobService, name)

        async def begin(self: JobService, request: Any, context: Any) -> Any:
            taken.append(name)
            return await method(self, request, context)

        monkeypatch.setattr(JobService, name, begin)

    noted("GetJob")
    noted("WatchJob")
    return taken


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
