"""What every call goes through: reading the request safely, and answering errors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from jobledger_server.wire.access import Access
from jobledger_server.wire.draining import OWN_METHODS, Drain
from jobledger_server.wire.failures import answer_to
from jobledger_server.wire.validation import InvalidRequest

Behavior = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


UNREADABLE = InvalidRequest(
    [("request", "cannot be parsed: malformed, not UTF-8, or nested too deeply")]
)
"""Stands in for a request whose bytes are not a message, until it can be answered."""


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Lets in who may call, and turns every error of a handler into a status with details.

    A request that cannot be parsed (malformed, not UTF-8, nested beyond what the
    parser takes) is the caller's fault and answered as such, not as a crash of the
    server. An unexpected error goes to the log under an id, and the id to the
    caller.
    """

    def __init__(self, drain: Drain, access: Access | None) -> None:
        self._drain = drain
        self._access = access
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(OWN_METHODS):
            return handler  # unknown methods are not kept: a caller could make up any number
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        deserialize = _safely(handler.request_deserializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._answering(method, handler.unary_unary),
                deserialize,
                handler.response_serializer,
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._answering(method, handler.stream_stream),
                deserialize,
                handler.response_serializer,
            )
        return grpc.unary_stream_rpc_method_handler(
            self._answering(method, handler.unary_stream),
            deserialize,
            _unless_bytes(handler.response_serializer),
        )

    def _answering(self, method: str, behavior: Behavior) -> Any:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                _check_readable(request)
                if self._access is not None:
                    self._access.check(context.invocation_metadata() or (), method, request)
                with self._drain.call():
                    return await behavior(request, context)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except grpc.aio.InternalError:
                return None  # the caller went away in the middle of a message
            except Exception as error:  # noqa: BLE001
                await _abort(context, error)

        return answer


def _safely(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return UNREADABLE

    return read


def _unless_bytes(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Pass on what is serialized already: what thousands are told is serialized once."""

    def write(message: Any) -> bytes:
        return message if type(message) is bytes else serialize(message)

    return write


def _check_readable(request: Any) -> None:
    if request is UNREADABLE:
        raise UNREADABLE


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    await context.abort_with_status(rpc_status.to_status(answer_to(error)))
