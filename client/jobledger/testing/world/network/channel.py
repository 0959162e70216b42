"""A channel to a server in the network: what `grpc.aio.insecure_channel` makes."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc import ChannelConnectivity as State

from jobledger.core.channel import Option
from jobledger.testing.world.loop import Node
from jobledger.testing.world.network.calls import Call, Method, StreamCall, UnaryCall
from jobledger.testing.world.network.connection import Connection
from jobledger.testing.world.network.retries import RetryPolicy, policies
from jobledger.testing.world.network.status import unavailable
from jobledger.testing.world.network.stream import Signal

if TYPE_CHECKING:
    from jobledger.testing.world.network.network import Network

CONNECT_SECONDS = 20.0
"""How long gRPC waits for a connection to be ready."""

BACKOFF_MULTIPLIER, BACKOFF_JITTER = 1.6, 0.2
"""gRPC's."""


class Channel(grpc.aio.Channel):
    """See the module. It connects at its first call, and again at the next one after a loss."""

    def __init__(
        self,
        network: "Network",
        target: str,
        node: Node | None,
        options: Sequence[Option],
        *,
        retries: bool,
    ) -> None:
        self.network, self.loop = network, network.loop
        self.target = target
        self.node = node
        self.options: dict[str, Any] = dict(options)
        self.retries = retries
        self.calls: dict[Call, None] = {}
        self._policy_of = policies(self.options.get("grpc.service_config", "{}"))
        self._state = State.IDLE
        self._changed = Signal()
        self._connection: Connection | None = None
        self._waiting: dict[Call, None] = {}
        self._error = ""
        self._tries = 0
        self._attempt = 0

    # For its calls.

    def policy_of(self, method: str) -> RetryPolicy | None:
        """Return the retry policy of a method."""
        return self._policy_of(method) if self.retries else None

    def assign(self, call: Call) -> None:
        """Give a call a connection, now or later, or fail it."""
        if self._connection is not None:
            call.begin(self._connection)
        elif self._state is State.TRANSIENT_FAILURE:
            self.loop.call_soon(call.end, unavailable(self._error))
        else:
            self._waiting[call] = None
            self._connect()

    def forget(self, call: Call) -> None:
        """Take note that a call has ended."""
        self.calls.pop(call, None)
        self._waiting.pop(call, None)

    # Connections.

    def _connect(self) -> None:
        if self._state in (State.IDLE, State.TRANSIENT_FAILURE):
            if self._state is State.IDLE:
                self._become(State.CONNECTING)
            self._attempt = attempt = self._attempt + 1
            self.network.connect(
                self.target, self.node, self._lost, lambda made: self._connected(attempt, made)
            )
            self.loop.call_later(CONNECT_SECONDS, self._connected, attempt, None)

    def _connected(self, attempt: int, connection: Connection | None) -> None:
        if attempt != self._attempt or self._state is State.SHUTDOWN:
            if connection is not None:
                connection.lose_client("nobody waits for it")
            return
        self._attempt += 1
        if connection is None:
            self._failed()
        elif connection.client_open:
            self._tries = 0
            self._connection = connection
            self._become(State.READY)
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call.begin(connection)

    def _failed(self) -> None:
        self._error = (
            "failed to connect to all addresses; last error: UNKNOWN: "
            f"{self.target}: Failed to connect to remote host: Connection refused"
        )
        self._become(State.TRANSIENT_FAILURE)
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.end(unavailable(self._error))
        first = self.options.get("grpc.initial_reconnect_backoff_ms", 1_000) / 1000
        last = self.options.get("grpc.max_reconnect_backoff_ms", 120_000) / 1000
        pause = min(first * BACKOFF_MULTIPLIER**self._tries, last)
        self._tries += 1
        jitter = self.network.random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)
        # It tries without being called, and fails calls until it has connected.
        self.loop.call_later(pause * jitter, self._connect)

    def _lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._become(State.IDLE)

    def _become(self, state: State) -> None:
        if self._state is not State.SHUTDOWN:
            self._state = state
            self._changed.send()

    # grpc.aio.Channel

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,
    ) -> Any:
        return Method(self, UnaryCall, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,
    ) -> Any:
        return Method(self, StreamCall, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,
    ) -> Any:
        raise NotImplementedError("no method of the service takes a stream and answers once")

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,
    ) -> Any:
        return Method(
            self, StreamCall, method, request_serializer, response_deserializer, streams=True
        )

    def get_state(self, try_to_connect: bool = False) -> State:
        if try_to_connect and self._state is State.IDLE:
            self._connect()
        return self._state

    async def wait_for_state_change(self, last_observed_state: State) -> None:
        while self._state is last_observed_state:
            await self._changed.wait()

    async def channel_ready(self) -> None:
        while self.get_state(try_to_connect=True) is not State.READY:
            await self._changed.wait()

    async def close(self, grace: float | None = None) -> None:
        if self._state is State.SHUTDOWN:
            return
        if grace and self.calls:
            ends = [asyncio.ensure_future(call.code()) for call in self.calls]
            await asyncio.wait(ends, timeout=grace)
        self._become(State.SHUTDOWN)
        for call in list(self.calls):
            call.cancel()
        if self._connection is not None:
            self._connection.lose_client("Channel closed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
