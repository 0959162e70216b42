"""One caller cannot use up a limit; the service's own work is not limited."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server.app import App
from jobledger_server.rpc.serving import handlers
from tests.support.rpc_caller import Caller, calling, refusal, watching

Start = Callable[..., Awaitable[App]]

SHARE = {"max_watches": 8, "caller_share": 0.25}
"""Two for each caller."""


async def scope_of(reading: Awaitable[Any]) -> str:
    """Return whose limit was exceeded."""
    refused = await refusal(reading)
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "LIMIT_EXCEEDED",
    )
    (violation,) = refused.details["QuotaFailure"].violations
    assert violation.subject == refused.metadata["limit"]
    assert refused.details["RetryInfo"].retry_delay.seconds == 1
    return refused.metadata["scope"]


async def test_one_owner_cannot_use_up_the_watches_of_a_connection(start: Start) -> None:
    app = await start(**SHARE)
    async with grpc.aio.insecure_channel(app.address) as channel, AsyncExitStack() as open_watches:
        call = Caller(channel)

        async def watch(user_id: str) -> None:
            stream = await open_watches.enter_async_context(
                watching(call.WatchJobs(user_id=user_id))
            )
            await stream.read()

        await watch("eve")
        await watch("eve")
        assert await scope_of(call.WatchJobs(user_id="eve").read()) == "caller"
        for user_id in ("ada", "bob", "cy"):
            await watch(user_id)
            await watch(user_id)
        assert await scope_of(call.WatchJobs(user_id="dan").read()) == "server"


async def test_watches_of_all_owners_have_a_smaller_limit(start: Start) -> None:
    """Each of them is sent every change: with 4,000 a good client's calls failed."""
    app = await start(max_watches=160)  # 2 in all, 1 for each
    async with calling(app.address) as call:
        async with watching(call.WatchJobs()) as first:
            await first.read()
            assert await scope_of(call.WatchJobs().read()) == "caller"
            async with watching(call.WatchJobs(user_id="ada")) as owned:
                await owned.read()
        async with asyncio.timeout(10):  # until the server knows that it has ended
            while app.hub.watches:
                await asyncio.sleep(0.005)
        async with watching(call.WatchJobs()) as second:
            await second.read()


async def test_one_worker_cannot_use_up_the_claims(start: Start) -> None:
    limited = await start(**SHARE)
    async with calling(limited.address) as call:
        wait = Duration(seconds=20)
        waiting = [call.ClaimJobs(worker_id="eve", job_types=["t"], wait=wait) for _ in range(2)]
        while limited.claim_waiters.count("t") < 2:
            await asyncio.sleep(0.005)
        assert await scope_of(call.ClaimJobs(worker_id="eve", job_types=["t"])) == "caller"
        assert not (await call.ClaimJobs(worker_id="w", job_types=["t"])).jobs
        for claim in waiting:
            claim.cancel()


async def test_one_connection_cannot_use_up_the_work_streams(start: Start) -> None:
    app = await start(**SHARE)

    async def work(channel: grpc.aio.Channel) -> Any:
        stream = WorkerServiceStub(channel).Work()
        with suppress(grpc.aio.AioRpcError):  # it may be refused already
            await stream.wait_for_connection()
        return stream

    options = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.insecure_channel(app.address, options) as eve,
        grpc.aio.insecure_channel(app.address, options) as ada,
    ):
        streams = [await work(eve) for _ in range(3)]
        ended = [asyncio.ensure_future(stream.read()) for stream in streams]
        (refused,), _ = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        assert await scope_of(refused) == "caller"
        other = await work(ada)
        await other.done_writing()
        assert await other.read() is grpc.aio.EOF
        for stream in streams:
            stream.cancel()


async def test_one_connection_cannot_use_up_the_health_watches(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MAX_OTHER_STREAMS", 8)
    app = await start(**SHARE)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.insecure_channel(app.address, options) as eve,
        grpc.aio.insecure_channel(app.address, options) as ada,
    ):
        request = health_pb2.HealthCheckRequest()
        streams = [health_pb2_grpc.HealthStub(eve).Watch(request) for _ in range(2)]
        for stream in streams:
            await stream.read()
        assert await scope_of(health_pb2_grpc.HealthStub(eve).Watch(request).read()) == "caller"
        stream = health_pb2_grpc.HealthStub(ada).Watch(request)
        assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVING
        for each in (*streams, stream):
            each.cancel()
