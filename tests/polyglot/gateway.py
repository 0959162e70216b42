"""A proxy in front of the server that notes each attempt of a call and fails some on purpose."""

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

STREAMS = ("WatchJob", "WatchJobs", "WatchOutput")


@dataclass(frozen=True)
class Attempt:
    """One arrival of a call at the gateway."""

    request: bytes
    seconds: float | None
    """What was left of its deadline; None where it had none."""
    at: float
    """When, by time.monotonic()."""


@dataclass(frozen=True)
class Fail:
    """Answer with this, after `after` messages of the server: on a call 1, which is lost."""

    code: int
    retry_seconds: float | None = None
    after: int = 0


class Gateway:
    """Listens on a port of its own. `plan["CreateJob"] = [Fail(…), …]` fails the next calls."""

    def __init__(self, target: str) -> None:
        self.plan: dict[str, list[Fail]] = defaultdict(list)
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        self.messages = 0
        """How many messages of streams have gone through."""
        self.sent: list[bytes] = []
        """The messages of clients on their streams."""
        self._noted = threading.Condition()
        self._channel = grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers([_Router(self._handle)])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self._channel.close()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of `attempts` and `messages`."""
        with self._noted:
            assert self._noted.wait_for(condition, 30), (self.messages, dict(self.attempts))

    def _handle(self, path: str) -> Any:
        name = path.rpartition("/")[2]
        if name == "Work":
            return grpc.stream_stream_rpc_method_handler(partial(self._duplex, path))
        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(partial(self._stream, path))
        return grpc.unary_unary_rpc_method_handler(partial(self._unary, path))

    def _begin(self, path: str, request: bytes, context: grpc.ServicerContext) -> Fail | None:
        name = path.rpartition("/")[2]
        left = context.time_remaining()
        # grpc says "no deadline" with None or with an age of the world.
        seconds = left if left is not None and left < 365 * 24 * 3600 else None
        with self._noted:
            self.attempts[name].append(Attempt(request, seconds, time.monotonic()))
            self._noted.notify_all()
        return self.plan[name].pop(0) if self.plan[name] else None

    def _unary(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        fail = self._begin(path, request, context)
        if fail is not None and fail.after == 0:
            _abort(context, fail)
        try:
            answer: bytes = self._channel.unary_unary(path)(request, timeout=30)
        except grpc.RpcError as error:
            _pass_on(context, error)
        if fail is not None:
            _abort(context, fail)
        return answer

    def _stream(self, path: str, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        fail = self._begin(path, request, context)
        call = self._channel.unary_stream(path)(request)
        context.add_callback(call.cancel)
        try:
            for answer in itertools.islice(call, fail.after if fail else None):
                yield answer
                with self._noted:
                    self.messages += 1
                    self._noted.notify_all()
        except grpc.RpcError as error:
            _pass_on(context, error)
        finally:
            call.cancel()
        if fail is not None and fail.code != code_pb2.OK:
            _abort(context, fail)

    def _duplex(
        self, path: str, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        if (fail := self._begin(path, b"", context)) is not None:
            _abort(context, fail)
        call = self._channel.stream_stream(path)(self._note_sent(requests))
        context.add_callback(call.cancel)
        try:
            yield from call
        except grpc.RpcError as error:
            _pass_on(context, error)
        finally:
            call.cancel()

    def _note_sent(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        for request in requests:
            with self._noted:
                self.sent.append(request)
                self._noted.notify_all()
            yield request


class _Router(grpc.GenericRpcHandler):
    def __init__(self, handle: Callable[[str], Any]) -> None:
        self._handle = handle

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handle(handler_call_details.method)


def _abort(context: grpc.ServicerContext, fail: Fail) -> NoReturn:
    status = status_pb2.Status(code=fail.code, message="failed on purpose")
    if fail.retry_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(fail.retry_seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort raises")


def _pass_on(context: grpc.ServicerContext, error: Any) -> NoReturn:
    context.set_trailing_metadata(error.trailing_metadata() or ())
    context.abort(error.code(), error.details())
    raise AssertionError("abort raises")
