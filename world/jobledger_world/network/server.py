"""A server in the network: what `grpc.aio.server` makes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import grpc

from jobledger_world.network.connection import Connection
from jobledger_world.network.context import Context, Requests
from jobledger_world.network.status import OK, Headers, Metadata, Status
from jobledger_world.network.stream import ServerStream, Signal
from jobledger_world.network.wire import Wire
from jobledger_world.nodes import Node

AGE_JITTER = 0.1
"""gRPC's."""


class _Details(NamedTuple):
    """What gRPC says of a call when it looks for the handler."""

    method: str
    invocation_metadata: Metadata


class Server(grpc.aio.Server):
    """See the module.

    Attributes:
        node: The node that made it.
        target: What it listens on.
        options: Its options.
        connections: Those that it has not found closed.
        stopped: Set when `stop` has ended.
    """

    def __init__(
        self,
        wire: Wire,
        listening: "dict[str, Server]",
        node: Node | None,
        options: Sequence[tuple[str, Any]],
    ) -> None:
        self.node = node
        self.target = ""
        self.options = dict(options)
        self.connections: dict[Connection, None] = {}
        self.stopped = asyncio.Event()
        self._wire, self._listening = wire, listening
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._calls: dict[Context, None] = {}
        self._ended = Signal()
        self._stopping = False

    # grpc.aio.Server

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._handlers.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """Ignore the handlers: the generated code adds each method in both ways."""

    def add_insecure_port(self, address: str) -> int:
        host, _, port = address.rpartition(":")
        number = int(port) or self._wire.new_port()
        self.target = f"{host}:{number}"
        if self.target in self._listening:
            raise RuntimeError(f"Failed to bind to address {self.target}")
        return number

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        raise NotImplementedError("the network has no TLS")

    async def start(self) -> None:
        self._listening[self.target] = self

    async def stop(self, grace: float | None) -> None:
        self._stopping = True
        if self._listening.get(self.target) is self:
            del self._listening[self.target]
        for connection in list(self.connections):
            connection.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace or 0):
                # Not for the handlers of calls that have ended: gRPC does not wait for them.
                while self._calls:
                    await self._ended.wait()
        for connection in list(self.connections):
            connection.lose_server("Cancelling all calls")
        self.stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self.stopped.wait()
        except TimeoutError:
            return True
        return False

    # Connections and calls.

    def connected(self, connection: Connection) -> None:
        """Take note of a new connection."""
        self.connections[connection] = None
        _leave_in_time(self._wire, connection, self.options)

    def accept(self, connection: Connection, stream: ServerStream, headers: Headers) -> None:
        """Begin a call that has arrived."""
        if self._stopping:
            # As gRPC does it. So a client does not know whether the call was begun.
            stream.end(Status(grpc.StatusCode.CANCELLED, "CANCELLED"))
            return
        context = Context(self._wire, connection, stream, headers, self.stopped, self._ended_call)
        self._calls[context] = None
        name = headers.method.rpartition("/")[2]
        context.run(self._serve(context, headers), name)

    def _ended_call(self, context: Context) -> None:
        """Take note that a call has ended. Its handler may still run."""
        self._calls.pop(context, None)
        self._ended.send()

    def closed(self, connection: Connection) -> None:
        """Take note that a connection is closed."""
        self.connections.pop(connection, None)

    async def _serve(self, context: Context, headers: Headers) -> None:
        try:
            await self._answer(context, headers)
        except grpc.aio.AbortError:
            pass
        except Exception as error:  # noqa: BLE001
            context.fail(error)

    async def _answer(self, context: Context, headers: Headers) -> None:
        details: Any = _Details(headers.method, headers.metadata)
        found = (each.service(details) for each in self._handlers)
        handler: Any = next((each for each in found if each is not None), None)
        if handler is None:
            context.end(Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
            return
        context.use(handler.request_deserializer, handler.response_serializer)
        request: Any
        if handler.request_streaming:
            request = Requests(context)
        elif (request := await context.receive()) is grpc.aio.EOF:
            return
        behavior = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        answer = behavior(request, context)
        if hasattr(answer, "__aiter__"):
            async for each in answer:
                await context.write(each)
        elif handler.response_streaming:
            await answer
        else:
            context.send(await answer)
        context.end(OK)


def _leave_in_time(wire: Wire, connection: Connection, options: Mapping[str, Any]) -> None:
    """Have a server leave a connection that is old or not used, as its options say."""
    node = connection.server_node
    spread = wire.random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
    if (age := options.get("grpc.max_connection_age_ms")) is not None:
        wire.after(node, age / 1000 * spread, connection.leave)
        if (grace := options.get("grpc.max_connection_age_grace_ms")) is not None:
            seconds = (age * spread + grace) / 1000
            wire.after(node, seconds, connection.lose_server, "max_age")
    if (idle := options.get("grpc.max_connection_idle_ms")) is not None:
        limit = idle / 1000 * spread

        def check() -> None:
            since = connection.idle_since
            left = limit if since is None else since + limit - wire.loop.time()
            if left <= 0:
                connection.leave()
            elif connection.server_open:
                wire.after(node, left, check)

        wire.after(node, limit, check)
