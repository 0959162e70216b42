"""The methods of a stub, and the calls that they return."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc

from jobledger_world.network.call import Call, Caller, Stub


class UnaryCall(Call, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one request and one answer."""

    _answer: bytes | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self.cancelling(self._receive()).__await__()

    async def _receive(self) -> Any:
        # It may be awaited again.
        if self._answer is None:
            self._answer = await self.receive()
        await self.code()
        self.check()
        return self._stub.deserialize(self._answer or b"")


class StreamCall(Call, grpc.aio.UnaryStreamCall[Any, Any], grpc.aio.StreamStreamCall[Any, Any]):
    """A call with a stream of answers, and maybe of requests."""

    async def read(self) -> Any:
        data = await self.cancelling(self.receive())
        return grpc.aio.EOF if data is None else self._stub.deserialize(data)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def write(self, request: Any) -> None:
        if self.done():
            raise asyncio.InvalidStateError("RPC already finished.")
        if self.half_closed:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        self.send(self._stub.serialize(request))
        await self.cancelling(self.sent())

    async def done_writing(self) -> None:
        if not self.done() and not self.half_closed:
            self.half_close()


class Method(Stub):
    """A method of a stub, with one request for each call.

    Args:
        channel: Makes the calls.
        kind: What a call is.
        path: `/package.Service/Method`.
        request_serializer: Makes bytes of a request; None if it is bytes.
        response_deserializer: Makes an answer of bytes; None if it is bytes.
        _registered_method: Means nothing here.
    """

    def __init__(
        self,
        channel: Caller,
        kind: Callable[..., Call],
        path: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = None,
    ) -> None:
        super().__init__(channel, path, request_serializer, response_deserializer)
        self._kind = kind

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: object = None,
        wait_for_ready: bool | None = None,
        compression: object = None,
    ) -> Any:
        data = self.serialize(request)
        call = self._kind(self, timeout, metadata)
        call.send(data)
        call.half_close()
        self.channel.start(call)
        return call


class StreamingMethod(Method):
    """A method with a stream of requests for each call."""

    def __call__(
        self,
        request_iterator: None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: object = None,
        wait_for_ready: bool | None = None,
        compression: object = None,
    ) -> Any:
        if request_iterator is not None:
            raise NotImplementedError("requests are written, not taken from an iterator")
        call = self._kind(self, timeout, metadata)
        self.channel.start(call)
        return call
