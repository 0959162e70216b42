"""A channel for the generated stubs that makes its calls by the hand-made HTTP/2 (http2.py)."""

import asyncio
from collections.abc import Callable
from typing import Any

from benchmarks.load.http2 import Call, CallRefused, Connection, connect


class Channel:
    """Makes unary calls as a grpc.aio.Channel does, for the generated stubs.

    Each method has a connection of its own. A stub's streams are not there: a
    `Connection` has them.
    """

    def __init__(self, target: str) -> None:
        self._target = target

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] = bytes,
        response_deserializer: Callable[[bytes], Any] = bytes,
        _registered_method: bool = False,  # noqa: FBT001, FBT002
    ) -> "_Method":
        return _Method(self._target, method, request_serializer, response_deserializer)

    def unary_stream(self, *_: object, **__: object) -> None:
        pass

    stream_unary = stream_stream = unary_stream


class _Method:
    """Makes calls of one method. Each raises CallFailed where there is no answer."""

    def __init__(
        self,
        target: str,
        path: str,
        serialize: Callable[[Any], bytes],
        deserialize: Callable[[bytes], Any],
    ) -> None:
        self._target = target
        self._path = path
        self._serialize = serialize
        self._deserialize = deserialize
        self._connecting: asyncio.Task[Connection] | None = None

    async def __call__(self, request: Any) -> Any:
        if self._connecting is None:
            self._connecting = asyncio.create_task(connect(self._target, self._path))
        connection = await self._connecting
        call = _Unary()
        connection.begin(call)
        connection.send(call, self._serialize(request), last=True)
        return self._deserialize(await call.answer)


class _Unary(Call):
    """A call of one message each way. Only one that succeeded has an answer."""

    __slots__ = ("_body", "answer")

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._body: bytes | None = None

    def message(self, body: bytes) -> None:
        self._body = body

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        if self.answer.done():
            return
        if self._body is None or why:
            self.answer.set_exception(why or CallRefused(f"no answer: {trailers!r}"))
        else:
            self.answer.set_result(self._body)
