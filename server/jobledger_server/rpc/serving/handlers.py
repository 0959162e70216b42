"""gRPC's handlers: the methods of Jobledger's own services, and of health and reflection."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_REFLECTION_BYTES
from jobledger_server.rpc.call import Context
from jobledger_server.rpc.incoming import parsed
from jobledger_server.rpc.methods import METHODS
from jobledger_server.rpc.serving.arrivals import Arrivals
from jobledger_server.rpc.serving.calls import Calls, Handler
from jobledger_server.rpc.serving.drain import Drain, until_draining
from jobledger_server.rpc.validation import InvalidRequest

MAX_OTHER_STREAMS = 1_000
"""Streams of health and reflection, of all callers together."""


_Pair = tuple[Any, Any]
"""A method's handler, and the one that reads the request itself."""


class Handlers:
    """Registers services at a gRPC server, each method wrapped once.

    Args:
        server: The gRPC server.
        calls: Wraps the methods.
        drain: Ends the streams of health and reflection.
        open_calls: Limits of how many calls of a method are open, by its path.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        calls: Calls,
        drain: Drain,
        open_calls: Mapping[str, Admission],
    ) -> None:
        self._server = server
        self._calls = calls
        self._drain = drain
        self._open_calls = open_calls
        self._other_streams = Admission(
            "health_and_reflection_streams", total=MAX_OTHER_STREAMS, each=MAX_OTHER_STREAMS // 4
        )

    def add_service(self, service: ServiceDescriptor, implementation: object) -> None:
        """Add one of the server's own services.

        The implementation's methods have the descriptor's names. See `Calls` for what they take.
        """
        handlers = {
            path: self._own_handlers(path, method, getattr(implementation, method.name))
            for method in service.methods
            if (path := f"/{service.full_name}/{method.name}")
        }
        self._server.add_generic_rpc_handlers([_Own(handlers, self._calls.arrivals)])

    def _own_handlers(self, path: str, descriptor: MethodDescriptor, behavior: Any) -> _Pair:
        """Return the handler of a method, and the one that reads its request."""
        method = METHODS.get(path)
        if method is None or method.request.DESCRIPTOR is not descriptor.input_type:
            raise LookupError(f"{path} is not in rpc/methods.py, or with another request")
        admission = self._open_calls.get(path)
        call = self._calls.of_method(method, behavior, admission)
        if descriptor.client_streaming:
            stream: Any = grpc.stream_stream_rpc_method_handler(call, None, None)
            return stream, stream
        reading = self._calls.of_method(method, behavior, admission, read=True)
        if descriptor.server_streaming:
            return (
                grpc.unary_stream_rpc_method_handler(call, None, None),
                grpc.stream_stream_rpc_method_handler(reading, None, None),
            )
        return (
            grpc.unary_unary_rpc_method_handler(call, None, None),
            grpc.stream_unary_rpc_method_handler(reading, None, None),
        )

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Ignore the handlers: grpc.aio before 1.84 finds every method by its generic handler."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add health or reflection, called by the generated code as it calls a server."""
        self._server.add_generic_rpc_handlers([_Wrapped(h, self._other_handler) for h in handlers])

    def _other_handler(self, path: str, handler: Any) -> Any:
        serialize = handler.response_serializer
        read = _parsed_or_error(handler.request_deserializer.__self__)  # of Message.FromString
        if handler.unary_unary is not None:
            call = self._calls.of_other(path, _raising_error(handler.unary_unary))
            return grpc.unary_unary_rpc_method_handler(call, read, serialize)
        if handler.unary_stream is not None:
            behavior = _raising_error(until_draining(self._drain, handler.unary_stream))
            call = self._calls.of_other(path, self._admitted(behavior))
            return grpc.unary_stream_rpc_method_handler(call, read, serialize)
        behavior = _raising_errors(until_draining(self._drain, handler.stream_stream))
        call = self._calls.of_other(path, self._admitted(behavior))
        return grpc.stream_stream_rpc_method_handler(call, read, serialize)

    def _admitted(self, behavior: Handler) -> Handler:
        async def serve(request: Any, context: Context) -> Any:
            with self._other_streams.admit(Caller(context.peer())):
                return await behavior(request, context)

        return serve


class _Own(grpc.GenericRpcHandler):
    """The methods of one of the own services, by path."""

    def __init__(self, handlers: Mapping[str, _Pair], arrivals: Arrivals) -> None:
        self._handlers = handlers
        self._arrivals = arrivals

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, or None for a method of another service."""
        pair = self._handlers.get(handler_call_details.method)
        if pair is None:
            return None
        handler, reading = pair
        return handler if self._arrivals.begin() else reading


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


def _parsed_or_error(message: type[Message]) -> Callable[[bytes], Any]:
    """Return a deserializer: an unreadable message becomes its error."""

    def read(data: bytes) -> Any:
        try:
            return parsed(message, data, max_bytes=MAX_REFLECTION_BYTES)
        except (InvalidRequest, LimitExceeded) as error:
            error.__traceback__ = error.__context__ = None
            return error

    return read


def _raising_error(behavior: Handler) -> Handler:
    """Return the behavior of a method of one message, which refuses an unreadable one."""

    async def serve(request: Any, context: Context) -> Any:
        if isinstance(request, Exception):
            raise request
        return await behavior(request, context)

    return serve


def _raising_errors(behavior: Handler) -> Handler:
    """Return the behavior of a stream, ended by an unreadable message with its error."""

    async def readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            if isinstance(request, Exception):
                raise request
            yield request

    async def serve(requests: AsyncIterator[Any], context: Context) -> Any:
        return await behavior(readable(requests), context)

    return serve
