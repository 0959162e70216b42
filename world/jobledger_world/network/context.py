"""What a handler gets of its call: grpc.aio's ServicerContext."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any, Never

import grpc

from jobledger_world.network.connection import Connection
from jobledger_world.network.status import OK, Headers, Metadata, Status
from jobledger_world.network.stream import ServerStream
from jobledger_world.network.wire import Wire


class Context(grpc.aio.ServicerContext[Any, Any]):
    """See the module.

    Args:
        wire: The network.
        connection: What the call has come on.
        stream: The server's side of the call.
        headers: What the client has sent first.
        stopped: Set when the server has stopped.
        on_end: Called once when the call has ended.
    """

    def __init__(
        self,
        wire: Wire,
        connection: Connection,
        stream: ServerStream,
        headers: Headers,
        stopped: asyncio.Event,
        on_end: Callable[["Context"], object],
    ) -> None:
        self._wire, self._connection, self._stopped = wire, connection, stopped
        self._stream, self._on_end = stream, on_end
        self._metadata = headers.metadata
        self._timer = None
        if headers.timeout is not None:
            self._timer = wire.loop.call_later(headers.timeout, stream.cancel)
        self._serialize: Callable[[Any], bytes] | None = None
        self._deserialize: Callable[[bytes], Any] | None = None
        # As in gRPC, None means OK until the handler says otherwise.
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Metadata = ()
        self._ended = self._answered = self._aborted = False
        self._callbacks: list[Callable[[Any], None]] = []
        connection.accepted(stream)

    # For the server.

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start the call's task."""
        self._task = task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._finish)

        def cancel() -> None:
            # A handler that reads or writes learns of it there, and is cancelled after that.
            if not self._ended:
                self._end()
                self._wire.loop.call_soon(task.cancel)

        self._stream.on_cancel = cancel

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
        if not self._stream.cancelled and not self._ended:
            self._stream.send(message if self._serialize is None else self._serialize(message))

    def end(self, status: Status) -> None:
        """Send the status, unless the call has ended."""
        if not self._ended:
            self._answered = True
            self._end()
            if status is OK and self._wire.happens(self._wire.lost_answers):
                self._connection.reset()
                return
            if status is OK and self._code is not None:
                status = Status(self._code, self._details)
            self._stream.end(status._replace(trailing=status.trailing or self._trailing))

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._connection.served(self._stream)
        self._on_end(self)

    def fail(self, error: Exception) -> None:
        """End the call after an error of its handler."""
        if self._stream.cancelled and isinstance(error, grpc.aio.InternalError):
            return
        facts = {"message": "a handler failed", "exception": error}
        self._wire.loop.call_exception_handler(facts)
        code = self._code or grpc.StatusCode.UNKNOWN
        self.end(Status(code, f"Unexpected {type(error)}: {error}"))

    def _finish(self, _: object) -> None:
        # A handler that was cancelled by something else than its client has sent no status. As in
        # gRPC, the call is open until its client leaves.
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
        if self._stream.cancelled:
            raise grpc.aio.InternalError('Failed "execute_batch"')

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> Never:
        if self._aborted:
            raise grpc.aio.UsageError("Abort already called!")
        self._aborted = True
        trailing = tuple(trailing_metadata or ()) or self._trailing
        self._code = code
        self.end(Status(code, details or self._details, trailing))
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def _check(self) -> None:
        if self._aborted:
            raise grpc.aio.AbortError("Locally aborted.")
        if self._answered:
            raise grpc.aio.UsageError("RPC already finished.")
        # Until its handler is cancelled, a call does not see that gRPC has stopped.
        if self._stopped.is_set() and self._task.cancelling():
            raise grpc.aio.UsageError("Server already stopped.")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        raise NotImplementedError("the network has no initial metadata")

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing

    def invocation_metadata(self) -> Any:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

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
        return {"transport_security_type": [b"insecure"], "security_level": [b"TSI_SECURITY_NONE"]}

    def time_remaining(self) -> Any:
        if self._timer is None:
            return None
        return max(0.0, self._timer.when() - self._wire.loop.time())

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
