"""A server in the network: what `grpc.aio.server` makes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from jobledger.testing.world.loop import Node
from jobledger.testing.world.network.connection import Connection
from jobledger.testing.world.network.context import Context, Requests
from jobledger.testing.world.network.status import OK, Metadata, Status, unavailable
from jobledger.testing.world.network.stream import ServerStream

if TYPE_CHECKING:
    from jobledger.testing.world.network.calls import Headers
    from jobledger.testing.world.network.network import Network


class _Details(NamedTuple):
    """What gRPC says of a call when it looks for the handler."""

    method: str
    invocation_metadata: Metadata


class Server(grpc.aio.Server):
    """See the module.

    Attributes:
        node: The node that made it.
        target: What it listens on.
        connections: Those that it has not found closed.
    """

    def __init__(
        self, network: "Network", node: Node | None, options: Sequence[tuple[str, Any]]
    ) -> None:
        self.node = node
        self.target = ""
        self.options = dict(options)
        self.connections: dict[Connection, None] = {}
        self._network = network
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._running: dict[asyncio.Task[None], None] = {}
        self._stopping = False
        self._stopped = asyncio.Event()

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
        number = int(port) or self._network.new_port()
        self.target = f"{host}:{number}"
        if self.target in self._network.listening:
            raise RuntimeError(f"Failed to bind to address {self.target}")
        return number

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        raise NotImplementedError("the network has no TLS")

    async def start(self) -> None:
        self._network.listening[self.target] = self

    async def stop(self, grace: float | None) -> None:
        self._stopping = True
        if self._network.listening.get(self.target) is self:
            del self._network.listening[self.target]
        for connection in list(self.connections):
            connection.leave()
        if self._running and grace:
            await asyncio.wait(list(self._running), timeout=grace)
        for connection in list(self.connections):
            connection.lose_server()
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False

    # Calls.

    def accept(self, connection: Connection, stream: ServerStream, headers: "Headers") -> None:
        """Begin a call that has arrived."""
        if self._stopping:
            stream.end(unavailable("Server shutting down")._replace(refused=True))
            return
        connection.server_streams[stream] = None
        context = Context(self._network.loop, connection, stream, headers)
        name = headers.method.rpartition("/")[2]
        task = asyncio.get_running_loop().create_task(self._serve(context, headers), name=name)
        stream.on_cancel = context.cancelled_by_client
        context.task = task
        self._running[task] = None
        task.add_done_callback(self._running.pop)
        task.add_done_callback(context.finish)

    async def _serve(self, context: Context, headers: "Headers") -> None:
        try:
            await self._answer(context, headers)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001
            context.fail(error)

    async def _answer(self, context: Context, headers: "Headers") -> None:
        details: Any = _Details(headers.method, headers.metadata)
        handler: Any = None
        for each in self._handlers:
            if (handler := each.service(details)) is not None:
                break
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
        elif not handler.response_streaming:
            context.send(await answer)
        else:
            await answer
        context.end(OK)
