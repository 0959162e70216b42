"""A channel to a server in the network: what `grpc.aio.insecure_channel` makes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import grpc
from grpc import ChannelConnectivity as State

from jobledger.core.channel import Option
from jobledger_world.network.call import Call
from jobledger_world.network.calls import Method, StreamCall, StreamingMethod, UnaryCall
from jobledger_world.network.connection import Connection
from jobledger_world.network.status import unavailable
from jobledger_world.network.stream import Signal
from jobledger_world.network.wire import Wire
from jobledger_world.nodes import Node

CONNECT_SECONDS = 20.0
"""How long gRPC waits for a connection to be ready."""

REFUSED = "Failed to connect to remote host: Connection refused"
TIMED_OUT = "connection attempt timed out before receiving SETTINGS frame"

DUPLICATE_SECONDS = 0.5
"""How much later a request may come again."""

DUPLICATED = frozenset(
    {
        "CancelJob",
        "CreateAsset",
        "DeleteJob",
        "MarkCompleted",
        "MarkFailed",
        "MarkPartial",
        "ReleaseJob",
        "TransitionJob",
        "UpdateProgress",
    }
)
"""Methods of which a request changes nothing when it comes again, however late."""

BACKOFF_MULTIPLIER, BACKOFF_JITTER = 1.6, 0.2
"""gRPC's."""


Connect: TypeAlias = Callable[["Channel", Callable[[Connection | None], None]], None]
"""Calls the second with a new connection, or with None if it is refused; or never."""


class Channel(grpc.aio.Channel):
    """See the module. It connects at its first call, and at the next one after a loss.

    Attributes:
        wire: The network.
        target: What it connects to.
        node: The node that made it.
        options: Its options.
    """

    def __init__(
        self,
        wire: Wire,
        connect: Connect,
        target: str,
        node: Node | None,
        options: Sequence[Option],
    ) -> None:
        self.wire = wire
        self._connect_to = connect
        self.target = target
        self.node = node
        self.options: dict[str, Any] = dict(options)
        self._state = State.IDLE
        self._changed = Signal()
        self._connection: Connection | None = None
        self._calls: dict[Call, None] = {}
        self._waiting: dict[Call, None] = {}
        self._error = ""
        self._failures = 0
        self._connecting = 0

    # For its calls.

    def check(self) -> None:
        """Raise UsageError if it is closed."""
        if self._state is State.SHUTDOWN:
            raise grpc.aio.UsageError("Channel is closed.")

    def start(self, call: Call) -> None:
        """Begin a call."""
        self._calls[call] = None
        self.assign(call)
        wire = self.wire
        if call.method in DUPLICATED and wire.happens(wire.duplicates):
            pause = wire.random.uniform(0, DUPLICATE_SECONDS)
            wire.after(None, pause, self._duplicate, call)

    def _duplicate(self, call: Call) -> None:
        """Have the server get a call again. Nobody waits for what it answers."""
        if self._connection is not None:
            call.send_again(self._connection)

    def assign(self, call: Call) -> None:
        """Give a call a connection, now or later, or fail it."""
        if self._state is State.TRANSIENT_FAILURE:
            self.wire.loop.call_soon(call.ended, unavailable(self._error))
        else:
            self._waiting[call] = None
            self._begin_waiting()

    def ended(self, call: Call) -> None:
        """Take note that a call has ended."""
        self._calls.pop(call, None)
        self._waiting.pop(call, None)

    # For its connections.

    def lost(self, connection: Connection) -> None:
        """Take note that a connection is closed, or will be."""
        if connection is self._connection:
            self._connection = None
            self._become(State.IDLE)
            if self._waiting:
                self._begin_waiting()

    def released(self, connection: Connection) -> None:
        """Take note that a call of a connection has ended: another one may begin."""
        if connection is self._connection and self._waiting:
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        if self._connection is None:
            if self._state is State.IDLE:
                self._connect()
            return
        while self._waiting and self._connection.takes_calls:
            call = next(iter(self._waiting))
            del self._waiting[call]
            call.begin(self._connection)

    def _connect(self) -> None:
        if self._state is State.SHUTDOWN:
            return
        if self._state is State.IDLE:
            self._become(State.CONNECTING)
        self._connecting = attempt = self._connecting + 1
        self._connect_to(self, lambda made: self._connected(attempt, made, REFUSED))
        self.wire.after(self.node, CONNECT_SECONDS, self._connected, attempt, None, TIMED_OUT)

    def _connected(self, attempt: int, connection: Connection | None, why: str) -> None:
        if attempt != self._connecting or self._state is State.SHUTDOWN:
            if connection is not None:
                connection.lose_client("nobody waits for it")
            return
        self._connecting += 1
        if connection is None:
            self._failed(why)
        else:
            self._failures = 0
            self._connection = connection
            self._become(State.READY)
            self._begin_waiting()

    def _failed(self, why: str) -> None:
        self._error = (
            f"failed to connect to all addresses; last error: UNKNOWN: {self.target}: {why}"
        )
        self._become(State.TRANSIENT_FAILURE)
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.ended(unavailable(self._error))
        first = self.options.get("grpc.initial_reconnect_backoff_ms", 1_000)
        last = self.options.get("grpc.max_reconnect_backoff_ms", 120_000)
        pause = min(first * BACKOFF_MULTIPLIER ** min(self._failures, 100), last) / 1000
        pause *= self.wire.random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)
        self._failures += 1
        # It connects again without being called, and fails calls until it has succeeded.
        self.wire.after(self.node, pause, self._connect)

    def _become(self, state: State) -> None:
        if self._state is not State.SHUTDOWN:
            self._state = state
            self._changed.send()

    # grpc.aio.Channel

    def unary_unary(self, *method: Any, **options: Any) -> Any:
        return Method(self, UnaryCall, *method, **options)

    def unary_stream(self, *method: Any, **options: Any) -> Any:
        return Method(self, StreamCall, *method, **options)

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("no method of the service takes a stream and answers once")

    def stream_stream(self, *method: Any, **options: Any) -> Any:
        return StreamingMethod(self, StreamCall, *method, **options)

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
        if grace and self._calls:
            ends = [asyncio.ensure_future(call.code()) for call in self._calls]
            await asyncio.wait(ends, timeout=grace)
        self._become(State.SHUTDOWN)
        for call in list(self._calls):
            call.cancel()
        if self._connection is not None:
            self._connection.lose_client("Channel closed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
