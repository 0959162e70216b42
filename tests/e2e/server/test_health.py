"""Health while the database is unavailable: it does not follow the database."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.databases import migrated
from tests.support.postgres_server import PostgresServer
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess

SERVICES = (
    "",
    "jobledger.v1.JobService",
    "jobledger.v1.WorkerService",
    "jobledger.v1.QueueService",
    "jobledger.v1.WebhookService",
    "google.longrunning.Operations",
    "externalscaler.ExternalScaler",
)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Act = Callable[[], object]


@asynccontextmanager
async def outages(
    kind: str, folder: Path, *arguments: str
) -> AsyncIterator[tuple[ServerProcess, Act, Act]]:
    """Yield a server, what makes its database unavailable, and what ends that."""
    if kind == "postgresql":
        own = await asyncio.to_thread(PostgresServer)
        try:
            url = await asyncio.to_thread(lambda: migrated(own.create_database()))
            async with ServerProcess(folder, database=url, arguments=arguments) as server:
                yield server, own.stop, own.start
        finally:
            own.close()
        return
    async with ServerProcess(folder, arguments=arguments) as server:
        holder = sqlite3.connect(
            folder / "jobledger.db", isolation_level=None, check_same_thread=False
        )
        try:
            yield (
                server,
                lambda: holder.execute("BEGIN IMMEDIATE"),
                lambda: holder.execute("ROLLBACK"),
            )
        finally:
            holder.close()


@pytest.mark.promise(number=75)
async def test_health_stays_serving_while_the_database_is_unavailable(tmp_path: Path) -> None:
    """Restarting would not help: the server recovers by itself."""
    async with (
        outages("sqlite", tmp_path) as (server, begin, end),
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        health, call = health_pb2_grpc.HealthStub(channel), Caller(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        changed = asyncio.ensure_future(watch.read())
        await asyncio.to_thread(begin)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.job()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        for service in SERVICES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert (service, answer.status) == (service, SERVING)
        assert not changed.done()
        await asyncio.to_thread(end)
        async with asyncio.timeout(30):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await call.job()
                    break
                await asyncio.sleep(0.1)
        assert not changed.done()
        watch.cancel()


async def test_health_follows_the_database_with_that_setting(tmp_path: Path) -> None:
    """As a whole and for each service; health watches are notified."""
    async with (
        outages("postgresql", tmp_path, "--health-database") as (server, begin, end),
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=s)) for s in SERVICES]
        told = [(await watch.read()).status for watch in watches]
        await asyncio.to_thread(begin)
        async with asyncio.timeout(60):
            away = [(await watch.read()).status for watch in watches]
        await asyncio.to_thread(end)
        async with asyncio.timeout(60):
            back = [(await watch.read()).status for watch in watches]
        for watch in watches:
            watch.cancel()
    up, down = [SERVING] * len(SERVICES), [NOT_SERVING] * len(SERVICES)
    assert (told, away, back) == (up, down, up)
