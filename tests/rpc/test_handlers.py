"""What every call goes through, whichever service it is for."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jobledger.v1 import job_service_pb2, worker_service_pb2
from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.config import Settings
from jobledger_server.wire import handlers
from jobledger_server.wire.handlers import _Unregistered


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


async def test_each_method_is_registered_so_that_its_calls_have_a_queue_of_their_own(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else GetJob waits for seconds behind ten thousand watches; `make bench-storm` shows it."""
    registered: dict[str, set[str]] = {}
    kind = type(grpc.aio.server())
    register = kind.add_registered_method_handlers

    def noted(self: grpc.aio.Server, service: str, methods: dict[str, Any]) -> None:
        registered[service] = set(methods)
        register(self, service, methods)

    monkeypatch.setattr(kind, "add_registered_method_handlers", noted)
    await start()
    for module, name in ((job_service_pb2, "JobService"), (worker_service_pb2, "WorkerService")):
        service = module.DESCRIPTOR.services_by_name[name]
        assert registered[service.full_name] == {method.name for method in service.methods}


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
