"""What a handler gets of its call: grpc.aio's ServicerContext."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Never

import grpc

from jobledger.testing.world.loop import WorldLoop
from jobledger.testing.world.network.connection import Connection
from jobledger.testing.world.network.status import Metadata, Status
from jobledger.testing.world.network.stream import ServerStream

if TYPE_CHECKING:
    from jobledger.testing.world.network.calls import Headers

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Context(grpc.aio.ServicerContext[Any, Any]):
    """See the module."""

    task: asyncio.Task[None]

    def __init__(
        self, loop: WorldLoop, connection: Connection, stream: ServerStream, headers: "Headers"
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._stream = stream
        self._metadata = headers.metadata
        self._deadline = None if headers.timeout is None else loop.time() + headers.timeout
        self._timer = None
        if self._deadline is not None:
            self._timer = loop.call_at(self._deadline, stream.cancel)
        self._serialize: Callable[[Any], bytes] | None = None
        self._deserialize: Callable[[bytes], Any] | None = None
        self._code = 0
        self._details = ""
        self._trailing: Metadata = ()
        self._ended = self._aborted = False
        self._callbacks: list[Callable[[Any], None]] = []

    # For the server.

    def use(self, deserialize: Any, serialize: Any) -> None:
        """Set how the handler's messages become bytes; None for a handler that takes bytes."""
        self._deserialize, self._serialize = deserialize, serialize

    async def receive(self) -> Any:
        """Return the next message, or EOF."""
        while not self._stream.incoming:
            if self._stream.half_closed or self._stream.cancelled:
                return grpc.aio.EOF
            await self._stream.changed.wait()
        data = self._stream.read()
        return data if self._deserialize is None else self._deserialize(data)

    def send(self, message: Any) -> None:
        """Send a message, without waiting."""
        if not self._stream.cancelled:
            self._stream.send(message if self._serialize is None else self._serialize(message))

    def end(self, status: Status) -> None:
        """Send the status, unless one was sent."""
        if not self._ended:
            self._ended = True
            self._code, self._details = status.code.value[0], status.details
            self._stream.end(status._replace(trailing=status.trailing or self._trailing))

    def fail(self, error: Exception) -> None:
        """End the call after an error of its handler."""
        self._loop.call_exception_handler({"message": "a handler failed", "exception": error})
        code = CODES[self._code] if self._code else grpc.StatusCode.UNKNOWN
        self.end(Status(code, f"Unexpected {type(error)}: {error}"))

    def cancelled_by_client(self) -> None:
        """Cancel the handler."""
        if not self._ended:
            self.task.cancel()

    def finish(self, _: object) -> None:
        """Take note that the handler's task is done."""
        if self._timer is not None:
            self._timer.cancel()
        self._ended = True
        self._connection.server_streams.pop(self._stream, None)
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()

    # grpc.aio.ServicerContext

    async def read(self) -> Any:
        self._check()
        return await self.receive()

    async def write(self, message: Any) -> None:
        self._check()
        self.send(message)
        while self._stream.full and not self._stream.cancelled:
            await self._stream.changed.wait()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> Never:
        if self._aborted:
            raise grpc.aio.UsageError("Abort already called!")
        self._aborted = True
        trailing = tuple(trailing_metadata) or self._trailing
        self.end(Status(code, details or self._details, trailing))
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def _check(self) -> None:
        if self._aborted:
            raise grpc.aio.AbortError("Locally aborted.")
        if self._ended:
            raise grpc.aio.UsageError("RPC already finished.")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._check()

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing

    def invocation_metadata(self) -> Any:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code.value[0]

    def code(self) -> Any:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def peer(self) -> str:
        return self._connection.peer

    def peer_identities(self) -> Iterable[bytes] | None:
        return None

    def peer_identity_key(self) -> str | None:
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}

    def time_remaining(self) -> Any:
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def set_compression(self, compression: grpc.Compression) -> None: ...

    def disable_next_message_compression(self) -> None: ...

    def add_done_callback(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self._stream.cancelled

    def done(self) -> bool:
        return self._ended


class Requests:
    """The requests of a stream, one after the other."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message
