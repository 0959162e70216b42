"""Health while the database is unavailable: it does not follow the database."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from jobledger_server.rpc.serving import health_port
from tests.support.authority import Authority
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess
from tests.support.shared_postgres import Databases

Start = Callable[..., Any]

SERVICES = (
    "",
    "jobledger.v1.JobService",
    "jobledger.v1.WorkerService",
    "jobledger.v1.QueueService",
    "jobledger.v1.WebhookService",
    "jobledger.internal.v1alpha1.WebhookDeliveryService",
    "google.longrunning.Operations",
    "externalscaler.ExternalScaler",
)
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Have nobody write to an SQLite file during the block."""
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


async def test_health_stays_serving_while_the_database_is_unavailable(
    own_server: ServerProcess,
) -> None:
    """Restarting would not help: the server recovers by itself."""
    async with grpc.aio.insecure_channel(own_server.target) as channel:
        health, call = health_pb2_grpc.HealthStub(channel), Caller(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        changed = asyncio.ensure_future(watch.read())
        with locked(Path(own_server.database.removeprefix("sqlite:///"))):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.job()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            for service in SERVICES:
                answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert (service, answer.status) == (service, SERVING)
            assert not changed.done()
        async with asyncio.timeout(30):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await call.job()
                    break
                await asyncio.sleep(0.1)
        assert not changed.done()
        watch.cancel()


async def test_health_follows_the_database_with_that_setting(
    postgres: Databases, postgres_template: str, tmp_path: Path
) -> None:
    """As a whole and for each service; health watches are notified."""
    url = urlsplit(postgres.create_database(postgres_template))
    assert url.port is not None
    async with Proxy(f"127.0.0.1:{url.port}") as database:
        beyond = url._replace(netloc=f"u@{database.target}").geturl()
        async with (
            ServerProcess(tmp_path, database=beyond, arguments=["--health-database"]) as server,
            grpc.aio.insecure_channel(server.target) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            watches = [health.Watch(health_pb2.HealthCheckRequest(service=s)) for s in SERVICES]
            told = [(await watch.read()).status for watch in watches]
            database.redirect(free_port())  # where nobody listens
            async with asyncio.timeout(60):
                away = [(await watch.read()).status for watch in watches]
            database.redirect(url.port)
            async with asyncio.timeout(60):
                back = [(await watch.read()).status for watch in watches]
            for watch in watches:
                watch.cancel()
    up, down = [SERVING] * len(SERVICES), [NOT_SERVING] * len(SERVICES)
    assert (told, away, back) == (up, down, up)


async def test_a_health_port_answers_probes_without_tls_and_serves_nothing_else(
    tmp_path: Path,
) -> None:
    authority = Authority()
    cert, key = authority.server().write(tmp_path, "server")
    address = f"127.0.0.1:{free_port()}"
    server = ServerProcess(
        tmp_path,
        arguments=("--tls-cert", str(cert), "--tls-key", str(key), "--health", address),
        credentials=grpc.ssl_channel_credentials(authority.certificate),
    )
    async with server, grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in SERVICES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert (service, answer.status) == (service, SERVING)
        for call in (Caller(channel).job(), listed_services(channel)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_watches_of_a_health_port_end_by_themselves(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds a place of those that probe."""
    soon = {"grpc.max_connection_age_ms": 100, "grpc.max_connection_age_grace_ms": 100}
    options = [(name, soon.get(name, value)) for name, value in health_port.OPTIONS]
    monkeypatch.setattr(health_port, "OPTIONS", options)
    address = f"127.0.0.1:{free_port()}"
    await start(health=address)
    async with grpc.aio.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(30):
                await watch.read()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def listed_services(channel: grpc.aio.Channel) -> object:
    # As a call of one message: a stream that is refused while it is written to ends with INTERNAL,
    # an error of grpcio's own.
    return await channel.unary_unary(f"/{REFLECTION}/ServerReflectionInfo")(b"")
