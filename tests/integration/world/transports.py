"""The two networks that a scenario runs on: gRPC's own, and the simulated one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Protocol

import grpc
import pytest

from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop
from jobledger_world.network import Network
from tests.support.tcp_line import tcp_line

SERVICE = "test.Service"

Options = Sequence[tuple[str, Any]]


class Line(Protocol):
    """What the connections of a channel go through."""

    target: str

    def reset(self) -> None: ...

    def block(self) -> None: ...

    def heal(self) -> None: ...


class Transport(Protocol):
    """Makes both sides of gRPC."""

    def server(self, options: Options) -> grpc.aio.Server: ...

    def channel(self, target: str, options: Options) -> grpc.aio.Channel: ...

    def line(self, target: str) -> AbstractAsyncContextManager[Line]: ...


class Real:
    """gRPC on a local port."""

    def server(self, options: Options) -> grpc.aio.Server:
        return grpc.aio.server(options=(("grpc.so_reuseport", 0), *options))

    def channel(self, target: str, options: Options) -> grpc.aio.Channel:
        # Channels with the same options would share a connection.
        own = ("grpc.use_local_subchannel_pool", 1)
        return grpc.aio.insecure_channel(target, (*options, own))

    def line(self, target: str) -> AbstractAsyncContextManager[Line]:
        return tcp_line(target)


class Simulated:
    """The network in memory."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def server(self, options: Options) -> grpc.aio.Server:
        return self.network.new_server(options=options)

    def channel(self, target: str, options: Options) -> grpc.aio.Channel:
        return self.network.channel(target, options=options)

    def line(self, target: str) -> AbstractAsyncContextManager[Line]:
        return nullcontext(SimulatedLine(self.network, target))


class SimulatedLine:
    """The connections to a target."""

    def __init__(self, network: Network, target: str) -> None:
        self._network = network
        self.target = target

    def reset(self) -> None:
        for connection in self._network.connections(self.target):
            connection.reset()

    def block(self) -> None:
        for connection in self._network.connections(self.target):
            connection.block()

    def heal(self) -> None:
        for connection in self._network.connections(self.target):
            connection.heal()


Scenario = Callable[[Transport], Awaitable[None]]


def on_both(scenario: Scenario) -> Callable[[str], None]:
    """Return the test that runs a scenario on gRPC and on the simulated network."""

    @pytest.mark.parametrize("network", ["grpc", "simulated"])
    def test(network: str) -> None:
        if network == "grpc":
            asyncio.run(_limited(scenario, Real()))
        else:
            chance = Chance(scenario.__name__)
            loop = WorldLoop(chance)
            loop.run_until_complete(_limited(scenario, Simulated(Network(loop, chance))))
            loop.close()

    return test


async def _limited(scenario: Scenario, transport: Transport) -> None:
    async with asyncio.timeout(60):
        await scenario(transport)


@asynccontextmanager
async def serving(
    transport: Transport, *, options: Options = (), listen: str = "127.0.0.1:0", **behaviors: Any
) -> AsyncIterator[tuple[grpc.aio.Server, str]]:
    """Serve methods of these names; yield the server and what it listens on.

    Args:
        transport: Has the server.
        options: Of the server.
        listen: Where it listens.
        behaviors: Handlers of streams of bytes, or what gRPC's `*_rpc_method_handler` return.
    """
    server = transport.server(options)
    handlers = {
        name: behavior
        if isinstance(behavior, grpc.RpcMethodHandler)
        else grpc.stream_stream_rpc_method_handler(behavior)
        for name, behavior in behaviors.items()
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port(listen)
    await server.start()
    try:
        yield server, f"{listen.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def calling(
    transport: Transport, target: str, options: Options = ()
) -> AsyncIterator[grpc.aio.Channel]:
    """Yield a channel."""
    channel = transport.channel(target, options)
    try:
        yield channel
    finally:
        await channel.close()


@asynccontextmanager
async def connected(
    transport: Transport, *, options: Options = (), channel: Options = (), **behaviors: Any
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve methods as `serving`; yield a channel to the server."""
    async with (
        serving(transport, options=options, **behaviors) as (_, target),
        calling(transport, target, channel) as opened,
    ):
        yield opened


@asynccontextmanager
async def through_a_line(
    transport: Transport, *, options: Options = (), channel: Options = (), **behaviors: Any
) -> AsyncIterator[tuple[Line, grpc.aio.Channel]]:
    """Serve methods as `serving`; yield a line to the server, and a channel through it."""
    async with (
        serving(transport, options=options, **behaviors) as (_, target),
        transport.line(target) as line,
        calling(transport, line.target, channel) as opened,
    ):
        yield line, opened


async def echo(requests: Any, context: Any) -> None:
    """Answer each message with itself."""
    async for request in requests:
        await context.write(request)


def unary(channel: grpc.aio.Channel, method: str, request: bytes = b"", **call: Any) -> Any:
    """Begin a call with one request and one answer."""
    return channel.unary_unary(f"/{SERVICE}/{method}")(request, **call)


def stream(channel: grpc.aio.Channel, method: str, **call: Any) -> Any:
    """Begin a call with streams of both."""
    return channel.stream_stream(f"/{SERVICE}/{method}")(**call)


async def failure(awaitable: Any) -> grpc.aio.AioRpcError:
    """Return the error of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await awaitable
    return raised.value


async def until(channel: grpc.aio.Channel, state: grpc.ChannelConnectivity) -> None:
    """Return when a channel is in a state."""
    while (now := channel.get_state()) is not state:
        await channel.wait_for_state_change(now)
