"""Limits of sizes, on gRPC and on the simulated network, which have to behave in the same way."""

import asyncio
from typing import Any

import grpc

from tests.integration.world.transports import (
    Transport,
    connected,
    failure,
    on_both,
    stream,
    unary,
)

LIMIT = ("grpc.max_receive_message_length", 1000)


@on_both
async def test_a_request_that_is_too_large_is_not_handled(transport: Transport) -> None:
    seen: list[object] = []

    async def take(request: bytes, context: Any) -> bytes:
        seen.append("handled")
        return b""

    async def read(requests: Any, context: Any) -> bytes:
        seen.append(await context.read())
        return b""

    async with connected(
        transport,
        options=[LIMIT],
        Take=grpc.unary_unary_rpc_method_handler(take),
        Read=grpc.stream_unary_rpc_method_handler(read),
    ) as channel:
        for method in ("Take", "Read"):
            error = await failure(unary(channel, method, bytes(1001)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max (1001 vs. 1000)" in str(error.details())
        await unary(channel, "Take", bytes(1000))
    assert seen == [grpc.aio.EOF, "handled"]


@on_both
async def test_a_message_of_a_stream_that_is_too_large_ends_it(transport: Transport) -> None:
    seen: list[object] = []
    ended = asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        try:
            seen.extend([len(await context.read()), await context.read()])
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            ended.set()

    async with connected(transport, options=[LIMIT], M=handle) as channel:
        call = stream(channel, "M")
        await call.write(bytes(1000))
        await call.write(bytes(1001))
        assert (await failure(call.read())).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await ended.wait()
    assert seen == [1000, grpc.aio.EOF, "cancelled"]


@on_both
async def test_an_answer_that_is_too_large_is_not_received(transport: Transport) -> None:
    cancelled = asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        await context.write(bytes(1000))
        try:
            await context.write(bytes(1001))
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with connected(transport, channel=[LIMIT], M=handle) as channel:
        call = stream(channel, "M")
        assert len(await call.read()) == 1000
        assert (await failure(call.read())).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await cancelled.wait()


@on_both
async def test_a_status_that_is_too_large_is_not_received(transport: Transport) -> None:
    async def handle(request: bytes, context: Any) -> bytes:
        return await context.abort(grpc.StatusCode.ABORTED, "no", (("key-bin", request),))

    async with connected(transport, M=grpc.unary_unary_rpc_method_handler(handle)) as channel:
        small = await failure(unary(channel, "M", bytes(4 * 1024)))
        large = await failure(unary(channel, "M", bytes(32 * 1024)))
    assert small.code() is grpc.StatusCode.ABORTED
    assert large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
