"""gRPC's handlers: the methods of Jobledger's own services, and of health and reflection."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.limits import MAX_REFLECTION_BYTES
from jobledger_server.rpc.call import Context
from jobledger_server.rpc.incoming import parsed
from jobledger_server.rpc.methods import METHODS
from jobledger_server.rpc.serving.calls import Calls
from jobledger_server.rpc.serving.drain import Drain

MAX_OTHER_STREAMS = 1_000
"""Streams of health and reflection, of all callers together."""


_Pair = tuple[Any, Any]
"""A method's handler, and the one that reads the request itself."""


class Handlers(grpc.GenericRpcHandler):
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
        self._own: dict[str, _Pair] = {}  # by path
        server.add_generic_rpc_handlers([self])
        self._calls = calls
        self._drain = drain
        self._open_calls = open_calls
        self._other_streams = Admission(
            "health_and_reflection_streams", total=MAX_OTHER_STREAMS, each=MAX_OTHER_STREAMS // 4
        )

    def add_service(self, name: str, implementation: object) -> None:
        """Add one of the server's own services.

        The implementation's methods have the names of the proto. See `Calls` for what they take.
        """
        service = descriptor_pool.Default().FindServiceByName(name)
        for method in service.methods:
            path, behavior = f"/{name}/{method.name}", getattr(implementation, method.name)
            self._own[path] = self._own_handlers(path, method, behavior)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, or None for a method of health or reflection."""
        pair = self._own.get(handler_call_details.method)
        if pair is None:
            return None
        handler, reading = pair
        return handler if self._calls.arrivals.begin() else reading

    def _own_handlers(self, path: str, descriptor: MethodDescriptor, behavior: Any) -> _Pair:
        """Return the handler of a method, and the one that reads its request."""
        method = METHODS.get(path)
        if method is None:
            raise LookupError(f"{path} is not in rpc/methods.py")
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
        """Add health or reflection, called by the generated code as it calls a server."""
        wrapped = {
            name: self._other_handler(f"/{service}/{name}", handler)
            for name, handler in handlers.items()
        }
        handler = grpc.method_handlers_generic_handler(service, wrapped)
        self._server.add_generic_rpc_handlers([handler])

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore the handlers: the generated code adds each method in both ways."""

    def _other_handler(self, path: str, handler: Any) -> Any:
        message: Any = handler.request_deserializer.__self__  # of Message.FromString
        read = partial(parsed, message, max_bytes=MAX_REFLECTION_BYTES)

        arrivals = self._calls.arrivals  # gRPC would wait for any number of requests, without end

        async def unary(_data: Any, context: Context) -> Any:
            return await handler.unary_unary(read(await arrivals.read(context)), context)

        async def stream(data: Any, context: Context) -> None:
            with self._other_streams.admit(Caller(context.peer())), self._drain.ending():
                if handler.unary_stream is not None:
                    await handler.unary_stream(read(await arrivals.read(context)), context)
                    return
                requests = (read(each) async for each in data)
                async for answer in handler.stream_stream(requests, context):
                    await context.write(answer)

        make: Any
        behavior: Any
        if not handler.response_streaming:
            make, behavior = grpc.stream_unary_rpc_method_handler, unary
        else:
            make, behavior = grpc.stream_stream_rpc_method_handler, stream
        return make(self._calls.of_other(path, behavior), None, handler.response_serializer)
