"""gRPC's handlers: the methods of Jobledger's own services, and of health and reflection."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from jobledger_server.admission.admission import Admission
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_REFLECTION_BYTES
from jobledger_server.rpc.incoming import parsed
from jobledger_server.rpc.serving.calls import Behavior, Calls, Context, admitted
from jobledger_server.rpc.serving.drain import Drain, until_draining
from jobledger_server.rpc.serving.measured import size_of
from jobledger_server.rpc.validation import InvalidRequest

CLAIM = "/jobledger.v1.WorkerService/ClaimJobs"


class Limits(NamedTuple):
    """How many of the longest calls each caller, and all callers together, may have open."""

    streams: Admission
    """Streams of Work."""

    claims: Admission
    """Calls of ClaimJobs."""

    foreign: Admission
    """Streams of other services: health, reflection."""


class Handlers:
    """Registers services at a gRPC server, each method wrapped once."""

    def __init__(self, server: grpc.aio.Server, calls: Calls, drain: Drain, limits: Limits) -> None:
        self._server = server
        self._calls = calls
        self._drain = drain
        self._limits = limits

    def add_service(self, service: ServiceDescriptor, implementation: object) -> None:
        """Add one of the server's own services.

        The implementation's methods have the descriptor's names. They take a request, or an
        `UnparsedRequest` for LARGE_REQUESTS, and return or write serialized responses.
        """
        prefix = f"/{service.full_name}/"
        handlers = {
            method.name: self._own_handler(prefix + method.name, method, implementation)
            for method in service.methods
        }
        generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
        self._server.add_generic_rpc_handlers([generic])

    def _own_handler(self, path: str, method: MethodDescriptor, implementation: object) -> Any:
        behavior: Behavior = getattr(implementation, method.name)
        parse = GetMessageClass(method.input_type).FromString
        if method.client_streaming:
            behavior = admitted(behavior, self._limits.streams)
            # Its messages may be large: its method parses them itself.
            call = self._calls.of_stream(path, behavior)
            return grpc.stream_stream_rpc_method_handler(call, None, None)
        if path == CLAIM:
            behavior = admitted(behavior, self._limits.claims)
        call = self._calls.of_message(path, behavior, parse)
        # A stream of one message: for the message of a unary call gRPC would wait indefinitely.
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(call, None, None)
        return grpc.stream_unary_rpc_method_handler(call, None, None)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Ignore the handlers: grpc.aio before 1.84 finds every method by its generic handler."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add another service, called by the generated code as it calls a server."""
        self._server.add_generic_rpc_handlers(
            [_Wrapped(h, self._foreign_handler) for h in handlers]
        )

    def _foreign_handler(self, path: str, handler: Any) -> Any:
        parse, serialize = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            call = self._calls.of_message(path, handler.unary_unary, parse)
            return grpc.stream_unary_rpc_method_handler(call, None, None)
        behavior = until_draining(self._drain, handler.unary_stream or handler.stream_stream)
        if handler.unary_stream is not None:
            behavior = admitted(behavior, self._limits.foreign)
            call = self._calls.of_message(path, behavior, parse)
            return grpc.stream_stream_rpc_method_handler(call, None, serialize)
        behavior = admitted(_raising_unreadable(behavior), self._limits.foreign)
        call = self._calls.of_stream(path, behavior)
        return grpc.stream_stream_rpc_method_handler(call, _each_parsed(parse), serialize)


class _Wrapped(grpc.GenericRpcHandler):
    """The methods of a service, each wrapped at its first call."""

    def __init__(self, handlers: grpc.GenericRpcHandler, wrap: Callable[[str, Any], Any]) -> None:
        self._handlers = handlers
        self._wrap = wrap
        self._wrapped: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, or None for an unknown method."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = self._handlers.service(handler_call_details)
            if handler is None:
                return None  # not cached: a client could invent any number of names
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]


def _each_parsed(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return the deserializer of a stream: an unreadable message becomes its error."""

    def read(data: bytes) -> Any:
        try:
            return parsed(parse, data, max_bytes=MAX_REFLECTION_BYTES)
        except (InvalidRequest, LimitExceeded) as error:
            error.__traceback__ = error.__context__ = None
            return error

    return read


def _raising_unreadable(behavior: Behavior) -> Behavior:
    """Return the behavior of a stream, ended by an unreadable message with its error."""

    async def readable(requests: AsyncIterator[Any], call: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if isinstance(request, Exception):
                raise request
            call.received += size_of(request)
            yield request

    async def serve(requests: AsyncIterator[Any], context: Context) -> Any:
        return await behavior(readable(requests, context), context)

    return serve
