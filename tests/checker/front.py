"""A server in front of the real one that can give its callers wrong answers."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
from grpc import StatusCode

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2
from jobledger.v1 import (
    job_service_pb2,
    queue_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)

Forward = Callable[[Any], Awaitable[Any]]
Open = Callable[[Any], Any]

_MODULES = (
    job_service_pb2,
    worker_service_pb2,
    queue_service_pb2,
    webhook_service_pb2,
    webhook_delivery_service_pb2,
)

CUT_AFTER = (20, 60)
"""Messages after which a watch of many jobs is sent elsewhere: from here to there, by chance."""


class Mutation:
    """How a server is broken: this one is not.

    It is wrong a few times and then not any more: a single time might hit a stream that ends at
    that moment, so that no client sees it. `struck` says that it has been wrong.
    """

    times = 3
    strikes = 0

    @property
    def struck(self) -> bool:
        return self.strikes >= self.times

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        """Answer a call."""
        return await forward(request)

    async def from_worker(self, stream: object, message: Any) -> Any:
        """Return what the server is sent instead of a message on a stream of Work."""
        return message

    async def to_worker(self, stream: object, message: Any) -> Any:
        """Return what the worker is sent instead of a message on a stream of Work."""
        return message

    async def stream(
        self, rpc: str, request: Any, open_: Callable[[Any], Any]
    ) -> AsyncGenerator[Any, None]:
        """Answer a watch."""
        async for message in open_(request):
            yield message


class _Front(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.aio.Channel, mutation: Mutation, rng: random.Random) -> None:
        self._channel = channel
        self._mutation = mutation
        self._rng = rng

    def service(self, details: Any) -> Any:
        rpc = details.method.rpartition("/")[2]
        module = next(each for each in _MODULES if hasattr(each, f"{rpc}Request"))
        codecs = (
            getattr(module, f"{rpc}Request").FromString,
            lambda message: message.SerializeToString(),
        )
        answer = getattr(module, f"{rpc}Response").FromString
        if rpc in ("WatchJob", "WatchJobs", "WatchOutput"):
            opened = self._channel.unary_stream(details.method, codecs[1], answer)

            async def stream(request: Any, context: Any) -> None:
                await self._stream(rpc, request, opened, context)

            return grpc.unary_stream_rpc_method_handler(stream, *codecs)
        if rpc == "Work":
            worked = self._channel.stream_stream(details.method, codecs[1], answer)

            async def work(requests: AsyncIterator[Any], context: Any) -> None:
                await self._work(requests, worked, context)

            return grpc.stream_stream_rpc_method_handler(work, *codecs)
        called = self._channel.unary_unary(details.method, codecs[1], answer)

        async def unary(request: Any, context: Any) -> Any:
            try:
                return await self._mutation.unary(rpc, request, called)
            except grpc.aio.AioRpcError as error:
                await _pass_on(error, context)

        return grpc.unary_unary_rpc_method_handler(unary, *codecs)

    async def _work(self, requests: AsyncIterator[Any], opened: Any, context: Any) -> None:
        stream, call = object(), opened()

        async def pass_on_requests() -> None:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended
                async for message in requests:
                    await call.write(await self._mutation.from_worker(stream, message))
                await call.done_writing()

        requesting = asyncio.create_task(pass_on_requests())
        try:
            async for message in call:
                await context.write(await self._mutation.to_worker(stream, message))
        except grpc.aio.AioRpcError as error:
            await _pass_on(error, context)
        finally:
            requesting.cancel()
            call.cancel()

    async def _stream(self, rpc: str, request: Any, opened: Any, context: Any) -> None:
        left = self._rng.randint(*CUT_AFTER)
        calls = []

        def open_(request: Any) -> Any:
            calls.append(opened(request))
            return calls[-1]

        try:
            async for message in self._mutation.stream(rpc, request, open_):
                await context.write(message)
                left -= 1
                if rpc == "WatchJobs" and left == 0:
                    await context.abort(StatusCode.UNAVAILABLE, "go on elsewhere")
        except grpc.aio.AioRpcError as error:
            await _pass_on(error, context)
        finally:
            for call in calls:
                call.cancel()


async def _pass_on(error: grpc.aio.AioRpcError, context: Any) -> None:
    metadata = tuple(error.trailing_metadata() or ())
    await context.abort(error.code(), error.details() or "", metadata)


@asynccontextmanager
async def standing_before(
    target: str,
    mutation: Mutation,
    *,
    connect: Callable[[str], grpc.aio.Channel] = grpc.aio.insecure_channel,
    new_server: Callable[[], grpc.aio.Server] = grpc.aio.server,
) -> AsyncIterator[str]:
    """Serve before the real server for as long as the block lasts; yield the address."""
    async with connect(target) as channel:
        server = new_server()
        server.add_generic_rpc_handlers((_Front(channel, mutation, random.Random(7)),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)
