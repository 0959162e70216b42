"""What every call goes through: reading the request safely, and answering errors."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health
from grpc_status import rpc_status

from jobledger_server.wire.access import Access
from jobledger_server.wire.draining import OWN_METHODS, Drain, until_draining
from jobledger_server.wire.failures import answer_to
from jobledger_server.wire.validation import InvalidRequest

Behavior = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]

UNREADABLE = InvalidRequest(
    [("request", "cannot be parsed: malformed, not UTF-8, or nested too deeply")]
)
"""Stands in for a request whose bytes are not a message, until it can be answered."""

WAITING_CALLS = (
    "/jobledger.v1.WorkerService/ClaimJobs",
    "/google.longrunning.Operations/WaitOperation",
)
PROBE = f"/{health.SERVICE_NAME}/Check"


class Handlers:
    """Gives a server the methods of services, each wrapped once.

    Services are added to it as to the server itself. Of Jobledger's own: lets in who
    may call, and turns every error of a handler into a status with details. A request
    that cannot be parsed (malformed, not UTF-8, nested beyond what the parser takes)
    is the caller's fault and answered as such, not as a crash of the server. An
    unexpected error goes to the log under an id, and the id to the caller.

    Of the others, health and reflection: ends their streams when the server drains.

    Not an interceptor: gRPC would ask that for the handler again at every call.
    """

    def __init__(self, server: grpc.aio.Server, drain: Drain, access: Access | None) -> None:
        self._server = server
        self._drain = drain
        self._access = access

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take a service, as the generated code gives it to a server.

        gRPC takes up the calls of a registered method from a queue of its own, those of all
        others from one that they share. No more are registered than need it, because for
        each call that it takes up gRPC looks at all of the queues.
        """
        registered = {
            name: self._wrap(f"/{service}/{name}", handler)
            for name, handler in handlers.items()
            if has_own_queue(f"/{service}/{name}", handler)
        }
        self._server.add_registered_method_handlers(service, registered)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Take the same once more: for the methods that are not registered."""
        self._server.add_generic_rpc_handlers([_Unregistered(h, self._wrap) for h in handlers])

    def _wrap(self, method: str, handler: Any) -> Any:
        if not method.startswith(OWN_METHODS):
            return until_draining(self._drain, handler)
        return self._wrap_own(method, handler)

    def _wrap_own(self, method: str, handler: Any) -> Any:
        deserialize = _safely(handler.request_deserializer)
        serialize = _unless_bytes(handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._answering(method, handler.unary_unary), deserialize, serialize
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._answering(method, handler.stream_stream), deserialize, serialize
            )
        return grpc.unary_stream_rpc_method_handler(
            self._answering(method, handler.unary_stream), deserialize, serialize
        )

    def _answering(self, method: str, behavior: Behavior) -> Any:
        drain, access = self._drain, self._access

        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                if request is UNREADABLE:
                    # A new one: an error keeps all that it was ever raised through, calls included.
                    raise InvalidRequest(UNREADABLE.violations)  # noqa: TRY301
                if access is not None:
                    access.check(context.invocation_metadata() or (), method, request)
                with drain:
                    return await behavior(request, context)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except grpc.aio.InternalError:
                return None  # the caller went away in the middle of a message
            except Exception as error:  # noqa: BLE001
                await _abort(context, error)

        return answer


def has_own_queue(method: str, handler: Any) -> bool:
    """Whether a method's calls are taken up from a queue of their own.

    Streams and calls that wait are, since they come back all at once when a server is
    there again: in the queue of the others GetJob would wait until each of ten thousand
    has been taken up. And the probe of health, which no burst of other calls may delay.
    """
    return method == PROBE or method in WAITING_CALLS or bool(handler.response_streaming)


class _Unregistered(grpc.GenericRpcHandler):
    """The methods of a service that are looked up by their names."""

    def __init__(self, found_by: grpc.GenericRpcHandler, wrap: Callable[[str, Any], Any]) -> None:
        self._found_by = found_by
        self._wrap = wrap
        self._wrapped: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, None where there is none."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = self._found_by.service(handler_call_details)
            if handler is None:
                return None  # and not kept: a caller could make up any number of names
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]


def _safely(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return UNREADABLE

    return read


def _unless_bytes(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Pass on what is serialized already; see encoding.py."""

    def write(message: Any) -> bytes:
        return message if type(message) is bytes else serialize(message)

    return write


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    await context.abort_with_status(rpc_status.to_status(answer_to(error)))
