"""What every call goes through: the caller, its limits, the request, and errors as statuses."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import CALLER, Caller
from jobledger_server.admission.quotas import CALL_BYTES, QUOTAS, RateLimit
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_PLAIN_MESSAGE_BYTES
from jobledger_server.rpc.access.access import Access
from jobledger_server.rpc.access.audit import audit_denial
from jobledger_server.rpc.access.methods import OPERATIONS, OWN_METHODS, RULES
from jobledger_server.rpc.access.permissions import (
    PERMISSIONS,
    AccessDenied,
    Permissions,
    Unauthenticated,
)
from jobledger_server.rpc.incoming import (
    INLINE_BYTES,
    REQUEST_SECONDS,
    RequestParser,
    UnparsedRequest,
    parsed,
)
from jobledger_server.rpc.owner import owner_of
from jobledger_server.rpc.serving.drain import Drain
from jobledger_server.rpc.serving.measured import CallMetrics
from jobledger_server.rpc.status import status_of
from jobledger_server.rpc.validation import Checker

Context = grpc.aio.ServicerContext[Any, Any]

Behavior = Callable[[Any, Context], Awaitable[Any]]
"""A method of a service, or what gRPC calls for it."""

Serve = Callable[[Any, Context, str, Permissions | None], Awaitable[Any]]
"""Serves an admitted call: its request or requests, context, caller's origin and permissions."""

_UNCHANGED: AbstractContextManager[None] = nullcontext()

QUOTA_SECONDS = 0.25
"""A call beyond a quota is refused after this time at least. A caller that repeats it at once would
otherwise take as much of the server as one without a quota."""

MORE_SECONDS = 0.02
"""A call beyond a quota, or that is denied, is refused later by this time for each call of the
caller that waits to be refused. So a caller is refused about 50 times a second at most, and not at
once, however many calls it makes."""

MAX_REFUSAL_SECONDS = 5.0
"""It is refused after this time in any case, and a caller with more calls at once more often."""

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
"""The methods whose requests contain a Struct or assets. They get an `UnparsedRequest`."""

LASTING = frozenset(
    {
        "/jobledger.v1.JobService/WatchJob",
        "/jobledger.v1.JobService/WatchJobs",
        "/jobledger.v1.WorkerService/ClaimJobs",
        "/jobledger.v1.WorkerService/Work",
        "/google.longrunning.Operations/WaitOperation",
    }
)
"""The methods whose calls may outlast a change of the caller's permissions."""

READING = ("Get", "List", "Wait")
"""Prefixes of the names of methods that change nothing."""


class Calls:
    """Wraps methods into what gRPC calls.

    A call is authorised before its request is parsed. A request that cannot be parsed is
    refused with INVALID_ARGUMENT. Every error becomes a status with details; an unexpected
    one is logged under an id, and the caller gets the id. A refused call leaves nothing in
    memory.

    It does not use an interceptor: with one, gRPC searches the handler again at every call.
    """

    def __init__(
        self, drain: Drain, access: Access | None, parser: RequestParser, metrics: CallMetrics
    ) -> None:
        self._drain = drain
        self._access = access
        self._parser = parser
        self.running: Counter[str] = Counter()
        """The number of running calls of each peer, by gRPC's name for it."""
        self._metrics = metrics
        self._refused: Counter[str] = Counter()
        """The number of calls that wait to be refused, by identity, or by address without one."""
        self.rate = RateLimit("calls a second")

    def of_message(
        self, method: str, behavior: Behavior, parse: Callable[[bytes], Any]
    ) -> Behavior:
        """Wrap a method whose request is one message. gRPC passes it as a stream of bytes."""
        parser = self._parser
        large = method in LARGE_REQUESTS

        async def serve(
            _: Any, context: Context, origin: str, permissions: Permissions | None
        ) -> Any:
            data = await _read_message(context)
            self._count_bytes(origin, len(data))
            metadata = context.invocation_metadata() or ()

            def authorise(request: Any) -> str:
                return _authorised_name(permissions, method, request, metadata)

            caller, size = Caller(origin), len(data)
            parser.held.acquire(caller, size)
            try:
                if large:
                    unparsed = UnparsedRequest(data, origin, parse, authorise, parser)
                    answer = await behavior(unparsed, context)
                else:
                    request = await parser.run(
                        size, partial(parsed, parse, data, max_bytes=MAX_PLAIN_MESSAGE_BYTES)
                    )
                    data = b""  # a watch may last long
                    CALLER.set(Caller(origin, authorise(request)))
                    answer = await behavior(request, context)
            finally:
                parser.held.release(caller, size)
            if answer is None:
                return None
            answer = self._counted(method, answer, caller, context)
            call: Any = context
            call.sent += len(answer)
            self._count_bytes(origin, len(answer))
            return answer

        return self._answering(method, serve)

    def of_stream(self, method: str, behavior: Behavior) -> Behavior:
        """Wrap a method whose request is a stream of messages."""

        async def serve(
            requests: Any, context: Context, _origin: str, _permissions: Permissions | None
        ) -> Any:
            return await behavior(requests, context)

        return self._answering(method, serve)

    def _answering(self, method: str, serve: Serve) -> Behavior:
        """Return what gRPC calls: `serve` for authorised callers, and errors as statuses."""
        own = method.startswith(OWN_METHODS)
        if own and method not in RULES:
            raise LookupError(f"{method} has no rule in access/methods.py")
        access = self._access if own else None
        unless_draining = self._drain if own else nullcontext()
        running, metrics, name = self.running, self._metrics, method[1:]

        async def answer(request: Any, context: Context) -> Any:
            call: Any = metrics.begin(name, context, traced=own)
            peer = context.peer()
            running[peer] += 1
            try:
                permissions = None
                origin, unless_changed = peer, _UNCHANGED
                if access is not None:
                    permissions = await access.permissions(context, method)
                    origin, quotas = permissions.identity.name, permissions.quotas
                    QUOTAS.set(quotas)
                    if quotas.calls_per_second is not None:
                        self.rate.take(origin, quotas.calls_per_second)
                    if method in LASTING:
                        unless_changed = access.until_changed(permissions)
                CALLER.set(Caller(origin))
                with unless_draining, unless_changed:
                    answer = await serve(request, call, origin, permissions)
                call.status = context.code()
            except grpc.aio.AbortError:
                call.status = context.code()
                raise
            except asyncio.CancelledError:
                raise
            except grpc.aio.InternalError:
                return None  # the client disconnected in the middle of a message
            except Exception as error:  # noqa: BLE001
                refused, delay = _refused(name, peer, error)
                status = _released_status(error)
                call.status = status.code
            else:
                return answer
            finally:
                metrics.end(name, call)
                running[peer] -= 1
                if not running[peer]:
                    del running[peer]
            if refused:
                await self._delay_refusal(refused, delay)
            abort = context.abort_with_status(rpc_status.to_status(status))
            # gRPC's call keeps the exception of the abort, and that this frame. If the frame kept
            # the call, both would stay in memory until they are collected as garbage.
            del request, context, call
            return await abort

        return answer

    def _count_bytes(self, caller: str, size: int) -> None:
        """Count a large request or answer as several calls of a caller who has a quota for them."""
        rate = QUOTAS.get().calls_per_second
        if rate is not None and size >= CALL_BYTES:
            self.rate.add(caller, rate, size // CALL_BYTES)

    async def _delay_refusal(self, caller: str, least: float) -> None:
        self._refused[caller] += 1
        more = self._refused[caller] * MORE_SECONDS
        try:
            await asyncio.sleep(min(least + more, MAX_REFUSAL_SECONDS))
        finally:
            self._refused[caller] -= 1
            if not self._refused[caller]:
                del self._refused[caller]

    def _counted(self, method: str, answer: Any, caller: Caller, context: Context) -> bytes:
        """Serialize an answer, and count its bytes until gRPC has sent them.

        If a client does not read, gRPC buffers its answers. If a caller has too many, its
        reading calls are refused here. Other calls are answered, and the next one is refused.
        """
        data: bytes = answer if type(answer) is bytes else answer.SerializeToString()
        size = len(data)
        if size > INLINE_BYTES:
            held = self._parser.held
            held.acquire(caller, size, refuse=method.rpartition("/")[2].startswith(READING))
            sent: Any = lambda _: held.release(caller, size)  # noqa: E731
            context.add_done_callback(sent)
        return data


def admitted(behavior: Behavior, admission: Admission) -> Behavior:
    """Return the behavior, counted by the admission while it runs."""

    async def serve(request: Any, context: Context) -> Any:
        with admission.admit():
            return await behavior(request, context)

    return serve


def _refused(method: str, peer: str, error: Exception) -> tuple[str, float]:
    """Return the caller whose refusals are delayed, or "", and for how long at least.

    A denial is audited.
    """
    if isinstance(error, Unauthenticated | AccessDenied):
        known = PERMISSIONS.get()
        caller = known.identity.name if known else _address(peer)
        audit_denial(method, caller, error)
        return caller, 0.0
    return (error.caller, QUOTA_SECONDS) if isinstance(error, LimitExceeded) else ("", 0.0)


def _address(peer: str) -> str:
    """Return the address of a peer without its port.

    The audit log limits the lines of each caller. If each connection was one, those of many
    connections would crowd out the lines of others.
    """
    return peer.rpartition(":")[0]


async def _read_message(context: Context) -> bytes:
    """Read the message of a request. It must arrive within REQUEST_SECONDS."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            data: Any = await context.read()
    except TimeoutError:
        # Not scope "request": a retry may succeed, for instance if the client was frozen.
        raise LimitExceeded("seconds to send a request", REQUEST_SECONDS, scope="caller") from None
    if data is grpc.aio.EOF:
        # The client disconnected. gRPC too ends a unary call without a message like this.
        raise asyncio.CancelledError
    return bytes(data)


def _authorised_name(
    permissions: Permissions | None, method: str, request: Any, metadata: Any
) -> str:
    """Return the name that the caller gives itself. Raises AccessDenied for what it may not do."""
    if permissions is not None:
        permissions.check(method, request, metadata)
        return ""  # its identity is its origin
    if method.startswith(OPERATIONS):
        return owner_of(Checker(), metadata)
    name: str = getattr(request, "user_id", "") or getattr(request, "worker_id", "")
    return name


def _released_status(error: Exception) -> status_pb2.Status:
    """Return an error's status, and release the frames that it was raised through.

    They contain the request, and the error refers to them in a cycle.
    """
    status = status_of(error)
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return status
