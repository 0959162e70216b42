"""Ends the streams of other services when the server drains.

A health or reflection stream stays open for as long as its client likes, and
`stop(grace)` would wait for it until the grace period is over.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]


class DrainInterceptor(grpc.aio.ServerInterceptor):
    """Ends streams of services that are not Jobledger's own, which end theirs themselves."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End them all, and any that come later, with UNAVAILABLE."""
        self._draining.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler_call_details.method.startswith("/jobledger.") or handler is None:
            return handler
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._until_draining(handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._until_draining(handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return handler

    def _until_draining(self, behavior: Callable[[Any, Context], Any]) -> Any:
        async def stream(request: Any, context: Context) -> None:
            serving = asyncio.create_task(_serve(behavior, request, context))
            draining = asyncio.create_task(self._draining.wait())
            try:
                await asyncio.wait((serving, draining), return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "this server is shutting down")
                serving.result()
            finally:
                serving.cancel()
                draining.cancel()

        return stream


async def _serve(behavior: Callable[[Any, Context], Any], request: Any, context: Context) -> None:
    if inspect.isasyncgenfunction(behavior):
        async for message in behavior(request, context):
            await context.write(message)
    else:
        await behavior(request, context)
