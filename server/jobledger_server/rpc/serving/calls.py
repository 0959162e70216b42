"""What every call goes through: its caller, limits, its request, and errors as statuses."""

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
from jobledger_server.admission.rates import CALL_BYTES, RateLimit
from jobledger_server.domain.limits import MAX_PLAIN_MESSAGE_BYTES
from jobledger_server.rpc.access.audit import audit_denial
from jobledger_server.rpc.access.callers import Callers
from jobledger_server.rpc.access.permissions import AccessDenied, Unauthenticated, check_method
from jobledger_server.rpc.call import Call, Context, address_of
from jobledger_server.rpc.incoming import (
    INLINE_BYTES,
    RequestParser,
    UnparsedRequest,
    authorised,
    parsed,
)
from jobledger_server.rpc.methods import Method
from jobledger_server.rpc.serving.arrivals import Arrivals
from jobledger_server.rpc.serving.drain import Drain
from jobledger_server.rpc.serving.measured import CallMetrics
from jobledger_server.rpc.status import status_of
from jobledger_server.tuning import Tuning

Behavior = Callable[[Any, Call], Awaitable[Any]]
"""A method of a service. It takes a request, an UnparsedRequest, or None if it reads a stream, and
returns a serialized response, or None if it has written what there is."""

Handler = Callable[[Any, Context], Awaitable[Any]]
"""What gRPC calls."""

_Serve = Callable[[Any, Call, str], Awaitable[Any]]
"""Serves a call of a peer."""

_UNENDED: AbstractContextManager[None] = nullcontext()


class Calls:
    """Wraps methods into what gRPC calls.

    The caller is known before its request is parsed. Every error becomes a status with
    details, at once; an unexpected one is logged under an id, and the caller gets the id. A
    refused call leaves nothing in memory.

    It does not use an interceptor: with one, gRPC searches the handler again at every call.
    """

    def __init__(
        self,
        drain: Drain,
        callers: Callers,
        parser: RequestParser,
        metrics: CallMetrics,
        tuning: Tuning,
    ) -> None:
        self.arrivals = Arrivals(tuning)
        self._drain = drain
        self._callers = callers
        self._parser = parser
        self._metrics = metrics
        self.rate = RateLimit("calls_per_second", lambda quotas: quotas.calls_per_second)
        self.running: Counter[str] = Counter()
        """The number of running calls of each peer, by gRPC's name for it."""

    def of_method(
        self,
        method: Method,
        behavior: Behavior,
        admission: Admission | None = None,
        *,
        read: bool = False,
    ) -> Handler:
        """Wrap a method of one of the own services.

        Args:
            method: The method.
            behavior: Serves a call of a caller who may make it.
            admission: Limits how many of its calls are open.
            read: The request is read here. Else gRPC passes its bytes, or a stream of requests.
        """
        callers = self._callers
        if admission is not None:
            behavior = _admitted(behavior, admission)

        async def serve(data: Any, call: Call, peer: str) -> Any:
            call.caller = await callers.caller(call, peer)
            call.unread = self._parser.held
            check_method(call.caller.permissions, method)
            self.rate.take(call.caller)
            if not read:
                self.arrivals.arrived()
            else:
                data = await self.arrivals.read(call.context)
                # That may have taken a while.
                call.caller = await callers.caller(call, peer)
                check_method(call.caller.permissions, method)
            lasts = method.lasts and call.caller.identity
            until_ended = callers.lasting.until_ended(call.caller) if lasts else _UNENDED
            with self._drain, until_ended:
                return await self._serve(method, behavior, data, call)

        return self._answering(method.path, serve, traced=True)

    def of_other(self, path: str, behavior: Handler) -> Handler:
        """Wrap a method of health or reflection, which every caller may use."""

        async def serve(request: Any, call: Call, _peer: str) -> Any:
            return await behavior(request, call.context)

        return self._answering(path, serve, traced=False)

    def _answering(self, path: str, serve: _Serve, *, traced: bool) -> Handler:
        """Return what gRPC calls: `serve`, measured, with errors as statuses."""
        metrics, running, name = self._metrics, self.running, path[1:]

        async def answer(request: Any, context: Context) -> Any:
            call = Call(context)
            peer = context.peer()
            running[peer] += 1
            metrics.begin(name, call, traced=traced)
            try:
                answer = await serve(request, call, peer)
                call.status = context.code()
            except grpc.aio.AbortError:
                call.status = context.code()
                raise
            except asyncio.CancelledError:
                raise
            except grpc.aio.InternalError:
                return None  # the client disconnected in the middle of a message
            except Exception as error:  # noqa: BLE001
                if isinstance(error, Unauthenticated | AccessDenied):
                    # Not the connection: those of many would crowd out the lines of others.
                    audit_denial(name, call.caller.identity or address_of(peer), error)
                status = _released_status(error)
                call.status = status.code
            else:
                return answer
            finally:
                metrics.end(name, call)
                running[peer] -= 1
                if not running[peer]:
                    del running[peer]
            abort = context.abort_with_status(rpc_status.to_status(status))
            # gRPC's call keeps the exception of the abort, and that this frame. If the frame kept
            # the call, both would stay in memory until they are collected as garbage.
            del request, context, call
            return await abort

        return answer

    async def _serve(self, method: Method, behavior: Behavior, data: Any, call: Call) -> Any:
        if type(data) is not bytes:
            await behavior(None, call)  # it reads a stream
            return None
        call.received = size = len(data)
        caller = call.caller
        if size >= CALL_BYTES:
            self.rate.add(caller, size // CALL_BYTES)
        held = size if size > INLINE_BYTES else 0
        self._parser.held.acquire(caller, held)
        try:
            if method.large:
                answer = await behavior(UnparsedRequest(data, method, self._parser), call)
            else:
                read = partial(parsed, method.request, data, max_bytes=MAX_PLAIN_MESSAGE_BYTES)
                request = await self._parser.run(caller, size, read)
                data = b""  # a watch may last long
                call.caller = authorised(caller, method, request, call)
                answer = await behavior(request, call)
        finally:
            self._parser.held.release(caller, held)
        return None if answer is None else self._counted(method, answer, call)

    def _counted(self, method: Method, answer: bytes, call: Call) -> bytes:
        """Count the bytes of an answer until gRPC has sent them.

        If a client does not read, gRPC buffers its answers. If a caller has too many, its
        reading calls are refused here. Other calls are answered, and the next one is refused.
        """
        call.sent = size = len(answer)
        if size > INLINE_BYTES:
            held, caller = self._parser.held, call.caller
            held.acquire(caller, size, refuse=method.reads)
            sent: Any = lambda _: held.release(caller, size)  # noqa: E731
            call.context.add_done_callback(sent)
            if size >= CALL_BYTES:
                self.rate.add(caller, size // CALL_BYTES)
        return answer


def _admitted(behavior: Behavior, admission: Admission) -> Behavior:
    """Return the behavior, counted for its caller while it runs."""

    async def serve(request: Any, call: Call) -> Any:
        with admission.admit(call.caller):
            return await behavior(request, call)

    return serve


def _released_status(error: Exception) -> status_pb2.Status:
    """Return an error's status, and release the frames that it was raised through.

    They contain the request, and the error refers to them in a cycle.
    """
    status = status_of(error)
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return status
