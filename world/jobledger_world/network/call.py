"""What all calls of a channel do, from their start to their status."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import grpc

from jobledger_world.network.connection import Connection
from jobledger_world.network.status import Headers, Status
from jobledger_world.network.stream import ClientStream, Signal
from jobledger_world.network.wire import Wire

Result = TypeVar("Result")

CANCELLED = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class Caller(Protocol):
    """What a call needs of its channel."""

    wire: Wire

    def check(self) -> None:
        """Raise UsageError if it is closed."""

    def start(self, call: "Call") -> None:
        """Begin a call."""

    def ended(self, call: "Call") -> None:
        """Take note that a call has ended."""


class Stub:
    """What a call needs of its method.

    Args:
        channel: Makes the calls.
        path: `/package.Service/Method`.
        request_serializer: Makes bytes of a request; None if it is bytes.
        response_deserializer: Makes an answer of bytes; None if it is bytes.
    """

    def __init__(
        self,
        channel: Caller,
        path: str,
        request_serializer: Callable[[Any], bytes] | None,
        response_deserializer: Callable[[bytes], Any] | None,
    ) -> None:
        self.channel, self.path = channel, path
        self.serialize = request_serializer or bytes
        self.deserialize = response_deserializer or bytes


class Call(grpc.aio.Call):
    """See the module.

    Args:
        stub: The method.
        timeout: In seconds.
        metadata: What the server gets first.
    """

    def __init__(self, stub: Stub, timeout: float | None, metadata: Any) -> None:
        self._stub, self._channel = stub, stub.channel
        self._channel.check()
        self._headers = Headers(stub.path, tuple(metadata or ()), timeout)
        self._loop = self._channel.wire.loop
        self._timer: asyncio.TimerHandle | None = None
        if timeout is not None:
            self._timer = self._loop.call_later(timeout, self._leave, LATE)
        self._stream: ClientStream | None = None
        self._connection: Connection | None = None
        # What the server has said, while messages before it are not read.
        self._last: Status | None = None
        self._status: Status | None = None
        self._changed = Signal()
        # For a connection that comes later, and for a second delivery, until an answer begins.
        self._requests: list[bytes] = []
        self._answered = False
        self.half_closed = False
        self._callbacks: list[Callable[[Any], None]] = []

    # For the channel.

    @property
    def method(self) -> str:
        """The name of the method, without its service."""
        return self._headers.method.rpartition("/")[2]

    def send_again(self, connection: Connection) -> None:
        """Have the server get the same request a second time. Nobody waits for the answer."""
        stream = connection.open(self._headers, Signal(), lambda _: connection.forget(stream))
        for data in self._requests:
            stream.send(data)
        stream.half_close()

    def begin(self, connection: Connection) -> None:
        """Begin on a connection."""
        headers = replace(self._headers, timeout=self.time_remaining())
        self._connection = connection
        self._stream = connection.open(headers, self._changed, self.ended)
        for data in self._requests:
            self._stream.send(data)
        if self.half_closed:
            self._stream.half_close()
        self._changed.send()

    def ended(self, status: Status) -> None:
        """Take the status, once the messages before it are read."""
        if self._stream is not None and self._stream.incoming:
            self._last = status
            return
        self._detach()
        self._finish(status)

    def _detach(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and self._connection is not None:
            self._connection.forget(stream)

    def _leave(self, status: Status) -> None:
        """End the call without the server."""
        if self._stream is not None:
            self._stream.cancel()
        self._detach()
        self._finish(status)

    def _finish(self, status: Status) -> None:
        if self._status is None:
            self._status = status
            if self._timer is not None:
                self._timer.cancel()
            self._channel.ended(self)
            self._changed.send()
            for callback in self._callbacks:
                callback(self)

    # For both kinds of calls.

    def send(self, data: bytes) -> None:
        """Send a message. The caller waits while the stream is full."""
        if not self._answered:
            self._requests.append(data)
        if self._stream is not None:
            self._stream.send(data)

    def half_close(self) -> None:
        """Say that no message follows."""
        self.half_closed = True
        if self._stream is not None:
            self._stream.half_close()

    async def receive(self) -> bytes | None:
        """Return the next message, or None at the end. Raises AioRpcError, CancelledError."""
        while True:
            if self._stream is not None and self._stream.incoming:
                self._answered = True
                data = self._stream.read()
                if self._last is not None and not self._stream.incoming:
                    self._detach()
                    self._finish(self._last)
                return data
            if self._status is not None:
                self.check()
                return None
            await self._changed.wait()

    async def sent(self) -> None:
        """Return when another message may be sent. Raises AioRpcError, CancelledError."""
        while self._status is None and (self._stream is None or self._stream.full):
            await self._changed.wait()
        self.check()

    def check(self) -> None:
        """Raise if the call has failed: AioRpcError, CancelledError."""
        status = self._status
        if status is CANCELLED:
            raise asyncio.CancelledError
        if status is not None and status.code is not grpc.StatusCode.OK:
            trailing = grpc.aio.Metadata(*status.trailing)
            raise grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailing, status.details)

    async def cancelling(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await this; cancel the call if the task is cancelled meanwhile."""
        try:
            return await work
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _end(self) -> Status:
        while self._status is None:
            await self._changed.wait()
        return self._status

    # grpc.aio.Call

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        self._leave(CANCELLED)
        return True

    def cancelled(self) -> bool:
        return self._status is not None and self._status.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None

    def time_remaining(self) -> float | None:
        if self._timer is None:
            return None
        return max(0.0, self._timer.when() - self._loop.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._status is None:
            self._callbacks.append(callback)
        else:
            callback(self)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        raise NotImplementedError("the network has no initial metadata")

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*(await self._end()).trailing)

    async def code(self) -> grpc.StatusCode:
        return (await self._end()).code

    async def details(self) -> str:
        return (await self._end()).details

    async def wait_for_connection(self) -> None:
        while self._stream is None and self._status is None:
            await self._changed.wait()
        self.check()
