"""What every call goes through: who calls, how much, what is asked, and errors as answers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc_status import rpc_status

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import CALLER, Caller
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_PLAIN_MESSAGE_BYTES, MAX_REPORT_BYTES
from jobledger_server.rpc.access import Access, Permissions
from jobledger_server.rpc.drain import OWN_METHODS, Drain, until_draining
from jobledger_server.rpc.failures import answer_to
from jobledger_server.rpc.incoming import (
    INLINE_BYTES,
    Incoming,
    Intake,
    parsed,
)
from jobledger_server.rpc.owner import owner_of
from jobledger_server.rpc.validation import Checker, InvalidRequest

Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Awaitable[Any]]

REQUEST_SECONDS = 20
"""How long a request that is one message may take to arrive, after its headers."""

OPERATIONS_METHODS = "/google.longrunning.Operations/"
"""How the paths of the methods begin whose owner is named by the metadata."""

CLAIM = "/jobledger.v1.WorkerService/ClaimJobs"

LARGE_REQUESTS = frozenset(
    {
        "/jobledger.v1.JobService/CreateJob",
        "/jobledger.v1.JobService/BatchCreateJobs",
        "/jobledger.v1.WorkerService/TransitionJob",
        "/jobledger.v1.WorkerService/MarkCompleted",
        "/jobledger.v1.WorkerService/MarkPartial",
        "/jobledger.v1.WorkerService/MarkFailed",
    }
)
"""The methods whose requests carry a Struct or assets. They take an `Incoming`, all others a
message."""


READING = ("Get", "List", "Wait")
"""How the names of methods begin that change nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may have under way at once, for each of them and for all."""

    streams: Admission
    """Streams of ReportProgress."""

    claims: Admission
    """Calls of ClaimJobs."""

    foreign: Admission
    """Streams of other services: health, reflection."""


class Handlers:
    """Gives a server the methods of services, each wrapped once.

    A call is authorised before
    anything of its request is parsed. A request that cannot be parsed is the
    caller's fault and answered as such. Every error of a handler becomes a status
    with details; an unexpected one goes to the log under an id, and the id to the
    caller. Of a refused call nothing stays in memory.

    Of the other services, health and reflection: ends their streams when the server drains.

    Not an interceptor: gRPC would ask that for the handler again at every call.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        drain: Drain,
        access: Access | None,
        intake: Intake,
        limits: Limits,
    ) -> None:
        self._server = server
        self._drain = drain
        self._access = access
        self._intake = intake
        self._limits = limits
        self.calls: Counter[str] = Counter()
        """How many calls each peer has under way, by gRPC's name for it."""

    def add_service(self, service: ServiceDescriptor, implementation: object) -> None:
        """Add one of the server's own services.

        Its methods have the names that the descriptor has. They take a request, or an
        `Incoming` for `LARGE_REQUESTS`, and return or write serialized responses.
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
            behavior = self._admitted(behavior, self._limits.streams)
            answer = self._answering(path, self._of_stream(behavior))
            return grpc.stream_stream_rpc_method_handler(answer, _each_parsed(parse), None)
        if path == CLAIM:
            behavior = self._admitted(behavior, self._limits.claims)
        answer = self._answering(path, self._of_message(path, behavior, parse))
        # As streams of one message: for that of a unary call gRPC would wait without end.
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(answer, None, None)
        return grpc.stream_unary_rpc_method_handler(answer, None, None)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take nothing: grpc.aio before 1.84 finds every method by its generic handler."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add another service, as the generated code gives it to a server: health, reflection."""
        self._server.add_generic_rpc_handlers([_Wrapped(h, self._wrap) for h in handlers])

    def _wrap(self, method: str, handler: Any) -> Any:
        parse, serialize = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            answer = self._answering(method, self._of_message(method, handler.unary_unary, parse))
            return grpc.stream_unary_rpc_method_handler(answer, None, None)
        stream = handler.unary_stream or handler.stream_stream
        behavior = until_draining(self._drain, stream)
        if handler.unary_stream is not None:
            behavior = self._admitted(behavior, self._limits.foreign)
            answer = self._answering(method, self._of_message(method, behavior, parse))
            return grpc.stream_stream_rpc_method_handler(answer, None, serialize)
        behavior = self._admitted(_of_readable(behavior), self._limits.foreign)
        answer = self._answering(method, self._of_stream(behavior))
        return grpc.stream_stream_rpc_method_handler(answer, _each_parsed(parse), serialize)

    def _answering(self, method: str, serve: "Serve") -> Any:
        """Return what gRPC calls: `serve` for callers who may call, its errors as statuses."""
        access = self._access if method.startswith(OWN_METHODS) else None
        own = self._drain if method.startswith(OWN_METHODS) else nullcontext()
        calls = self.calls

        async def answer(request: Any, context: Context) -> Any:
            peer = context.peer()
            calls[peer] += 1
            try:
                permissions = None
                if access is not None:
                    permissions = access.permissions(context.invocation_metadata() or (), method)
                origin = peer if permissions is None else permissions.name
                CALLER.set(Caller(origin))
                with own:
                    return await serve(request, context, origin, permissions)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except grpc.aio.InternalError:
                return None  # the caller left in the middle of a message
            except Exception as error:  # noqa: BLE001
                status = _status_of(error)
            finally:
                calls[peer] -= 1
                if not calls[peer]:
                    del calls[peer]
            # The frames that an error was raised through hold what they were about, and a task
            # that aborts holds its frame until it is collected as garbage: let go of both.
            request = None
            return await context.abort_with_status(rpc_status.to_status(status))

        return answer

    def _of_stream(self, behavior: Behavior) -> "Serve":
        async def serve(
            requests: Any, context: Context, _origin: str, _permissions: Permissions | None
        ) -> Any:
            return await behavior(requests, context)

        return serve

    def _of_message(
        self, method: str, behavior: Behavior, parse: Callable[[bytes], Any]
    ) -> "Serve":
        intake = self._intake
        large = method in LARGE_REQUESTS

        async def serve(
            _: Any, context: Context, origin: str, permissions: Permissions | None
        ) -> Any:
            data = await _message(context)
            metadata = context.invocation_metadata() or ()

            def admit(request: Any) -> str:
                return _admitted_name(permissions, method, request, metadata)

            caller, size = Caller(origin), len(data)
            intake.held.acquire(caller, size)
            try:
                if large:
                    incoming = Incoming(data, origin, parse, admit, intake)
                    answer = await behavior(incoming, context)
                else:
                    request = await intake.run(
                        size, partial(parsed, parse, data, max_bytes=MAX_PLAIN_MESSAGE_BYTES)
                    )
                    data = b""  # a watch may stay for long
                    CALLER.set(Caller(origin, admit(request)))
                    answer = await behavior(request, context)
            finally:
                intake.held.release(caller, size)
            return None if answer is None else self._counted(method, answer, caller, context)

        return serve

    def _counted(self, method: str, answer: Any, caller: Caller, context: Context) -> bytes:
        """Serialize an answer, and count its bytes until gRPC has sent them.

        A client that does not read has gRPC keep them. Answers of calls that change
        nothing are refused where the caller has too many on their way; of others, its
        next call is.
        """
        data: bytes = answer if type(answer) is bytes else answer.SerializeToString()
        size = len(data)
        if size > INLINE_BYTES:
            held = self._intake.held
            held.acquire(caller, size, refuse=method.rpartition("/")[2].startswith(READING))
            sent: Any = lambda _: held.release(caller, size)  # noqa: E731
            context.add_done_callback(sent)
        return data

    def _admitted(self, behavior: Behavior, admission: Admission) -> Behavior:
        async def serve(request: Any, context: Context) -> Any:
            with admission.admit():
                return await behavior(request, context)

        return serve


Serve = Callable[[Any, Context, str, Permissions | None], Awaitable[Any]]
"""Serves a call of a known caller: its request or requests, its origin, its permissions."""


async def _message(context: Context) -> bytes:
    """Read the one message of a request; it has to arrive within `REQUEST_SECONDS`."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            data: Any = await context.read()
    except TimeoutError:
        # Not of scope "request": sent again it may arrive, for instance if its caller was frozen.
        raise LimitExceeded("seconds to send a request", REQUEST_SECONDS, scope="caller") from None
    if data is grpc.aio.EOF:
        # The client has left. gRPC ends a unary call without a message like this too.
        raise asyncio.CancelledError
    return bytes(data)


def _admitted_name(
    permissions: Permissions | None, method: str, request: Any, metadata: Any
) -> str:
    """See that the caller may ask for this; return its name for itself."""
    if permissions is not None:
        permissions.check(method, request, metadata)
        return ""  # its identity says it all
    if method.startswith(OPERATIONS_METHODS):
        return owner_of(Checker(), metadata)
    name: str = getattr(request, "user_id", "") or getattr(request, "worker_id", "")
    return name


def _status_of(error: Exception) -> status_pb2.Status:
    """Return what an error is answered, and make it let go of what it was raised through."""
    status = answer_to(error)
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return status


class _Wrapped(grpc.GenericRpcHandler):
    """The methods of a service, each wrapped when it is called for the first time."""

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


def _of_readable(behavior: Behavior) -> Behavior:
    """Return the behavior of a stream so that a message that cannot be read ends it."""

    async def readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            if isinstance(request, Exception):
                raise request
            yield request

    async def serve(requests: AsyncIterator[Any], context: Context) -> Any:
        return await behavior(readable(requests), context)

    return serve


def _each_parsed(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Parse the messages of a stream. Of one that cannot be read comes its error instead."""

    def read(data: bytes) -> Any:
        try:
            return parsed(parse, data, max_bytes=MAX_REPORT_BYTES)
        except (InvalidRequest, LimitExceeded) as error:
            error.__traceback__ = error.__context__ = None
            return error

    return read
