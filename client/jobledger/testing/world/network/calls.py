"""The calls of a channel: what a stub's method returns."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc

from jobledger.testing.world.network.connection import Connection
from jobledger.testing.world.network.status import Metadata, Status
from jobledger.testing.world.network.stream import ClientStream, Signal

if TYPE_CHECKING:
    from jobledger.testing.world.network.channel import Channel

CANCELLED = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


@dataclass(frozen=True, slots=True)
class Headers:
    """What the server gets before the first message. `timeout` is in seconds."""

    method: str
    metadata: Metadata
    timeout: float | None


class Call(grpc.aio.Call):
    """A call: attempts on connections, until one has ended for good."""

    def __init__(
        self, channel: "Channel", method: "Method", timeout: float | None, metadata: Metadata
    ) -> None:
        if channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
            raise grpc.aio.UsageError("Channel is closed.")
        self._channel, self._method = channel, method
        self._headers = Headers(method.path, metadata, timeout)
        loop = channel.loop
        self._deadline = None if timeout is None else loop.time() + timeout
        self._timer = None
        if self._deadline is not None:
            self._timer = loop.call_at(self._deadline, self._give_up, LATE)
        self._status: Status | None = None
        self._stream: ClientStream | None = None
        self._connection: Connection | None = None
        self._changed = Signal()
        self._attempts = 0
        # What the next attempt has to send, too.
        self._sent: list[bytes] = []
        self._half_closed = False
        self._received: deque[bytes] = deque()
        self._callbacks: list[Callable[[Any], None]] = []
        channel.calls[self] = None

    # For the channel.

    def begin(self, connection: Connection) -> None:
        """Begin an attempt on a connection."""
        if self._status is not None:
            return
        self._connection = connection
        self._attempts += 1
        left = self.time_remaining()
        headers = replace(self._headers, timeout=left)
        if self._attempts > 1:
            again = ("grpc-previous-rpc-attempts", str(self._attempts - 1))
            headers = replace(headers, metadata=(*headers.metadata, again))
        self._stream = connection.open(headers, self._changed, self.end)
        for data in self._sent:
            self._stream.send(data)
        if self._half_closed:
            self._stream.half_close()
        self._changed.send()

    def end(self, status: Status) -> None:
        """End an attempt, and the call unless there is another attempt."""
        stream, self._stream = self._stream, None
        if stream is not None and self._connection is not None:
            self._connection.client_streams.pop(stream, None)
        if self._status is not None:
            return
        began = stream is not None and stream.incoming
        if not began and self._channel.retries:
            if status.refused:
                self._attempts -= 1
                self._channel.assign(self)
                return
            policy = self._channel.policy_of(self._method.path)
            attempts = max(1, self._attempts)
            if policy is not None and (
                pause := policy.pause(attempts, status, self._channel.network.random)
            ):
                self._attempts = attempts + (stream is None)
                self._channel.loop.call_later(pause, self._try_again)
                return
        self._finish(status, stream)

    def _try_again(self) -> None:
        if self._status is None:
            self._channel.assign(self)

    def _give_up(self, status: Status) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and self._connection is not None:
            self._connection.client_streams.pop(stream, None)
            stream.cancel()
        self._finish(status, None)

    def _finish(self, status: Status, stream: ClientStream | None) -> None:
        if self._status is None:
            self._status = status
            self._received = deque() if stream is None else stream.incoming
            if self._timer is not None:
                self._timer.cancel()
            self._channel.forget(self)
            self._changed.send()
            for callback in self._callbacks:
                callback(self)

    # For both kinds of calls.

    def send(self, data: bytes) -> None:
        self._sent.append(data)
        if self._stream is not None:
            self._stream.send(data)

    def half_close(self) -> None:
        self._half_closed = True
        if self._stream is not None:
            self._stream.half_close()

    async def _receive(self) -> Any:
        """Return the next message, or EOF at the end. Raises AioRpcError, CancelledError."""
        try:
            while True:
                if self._stream is not None and self._stream.incoming:
                    self._sent.clear()
                    return self._method.deserialize(self._stream.read())
                if self._received:
                    return self._method.deserialize(self._received.popleft())
                if self._status is not None:
                    self._check()
                    return grpc.aio.EOF
                await self._changed.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _check(self) -> None:
        if self._status is CANCELLED:
            raise asyncio.CancelledError
        if self._status is not None and self._status.code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                self._status.code,
                grpc.aio.Metadata(),
                grpc.aio.Metadata(*self._status.trailing),
                self._status.details,
            )

    async def _end(self) -> Status:
        while self._status is None:
            await self._changed.wait()
        return self._status

    # grpc.aio.Call

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        self._give_up(CANCELLED)
        return True

    def cancelled(self) -> bool:
        return self._status is not None and self._status.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None

    def time_remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._channel.loop.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._status is None:
            self._callbacks.append(callback)
        else:
            callback(self)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*(await self._end()).trailing)

    async def code(self) -> grpc.StatusCode:
        return (await self._end()).code

    async def details(self) -> str:
        return (await self._end()).details

    async def wait_for_connection(self) -> None:
        while self._stream is None and self._status is None:
            await self._changed.wait()
        self._check()


class UnaryCall(Call, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one answer."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            await self._end()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._check()
        return self._method.deserialize(self._received[0])


class StreamCall(Call, grpc.aio.UnaryStreamCall[Any, Any], grpc.aio.StreamStreamCall[Any, Any]):
    """A call with a stream of answers, and maybe of requests."""

    async def read(self) -> Any:
        return await self._receive()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._each()

    async def _each(self) -> AsyncIterator[Any]:
        while (message := await self._receive()) is not grpc.aio.EOF:
            yield message

    async def write(self, request: Any) -> None:
        if self._status is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        if self._half_closed:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        self.send(self._method.serialize(request))
        try:
            while self._status is None and (self._stream is None or self._stream.full):
                await self._changed.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._check()

    async def done_writing(self) -> None:
        if self._status is None and not self._half_closed:
            self.half_close()


class Method:
    """A method of a stub."""

    def __init__(
        self,
        channel: "Channel",
        kind: type[Call],
        path: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
        *,
        streams: bool = False,
    ) -> None:
        self._channel, self._kind = channel, kind
        self.path = path
        self.serialize = serialize or bytes
        self.deserialize = deserialize or bytes
        self._streams = streams

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: object = None,
        wait_for_ready: bool | None = None,
        compression: object = None,
    ) -> Any:
        call = self._kind(self._channel, self, timeout, tuple(metadata or ()))
        if not self._streams:
            call.send(self.serialize(request))
            call.half_close()
        self._channel.assign(call)
        return call
