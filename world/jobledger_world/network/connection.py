"""A connection of a channel to a server, and what can happen to it."""

from collections.abc import Callable
from typing import Any, Protocol

from jobledger_world.network.keepalive import Keepalive
from jobledger_world.network.status import Headers, Status, unavailable
from jobledger_world.network.stream import ClientStream, ServerStream, Signal
from jobledger_world.network.wire import Wire
from jobledger_world.nodes import Node

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_STREAMS = 2**31
"""gRPC's defaults."""

CLOSED = "Socket closed"


class ClientEnd(Protocol):
    """What a connection needs of its channel."""

    node: Node | None
    options: dict[str, Any]

    def lost(self, connection: "Connection") -> None:
        """Take note that a connection is closed, or will be."""

    def released(self, connection: "Connection") -> None:
        """Take note that a call of a connection has ended: another one may begin."""


class ServerEnd(Protocol):
    """What a connection needs of its server."""

    node: Node | None
    target: str
    options: dict[str, Any]

    def accept(self, connection: "Connection", stream: ServerStream, headers: Headers) -> None:
        """Begin a call that has arrived."""

    def closed(self, connection: "Connection") -> None:
        """Take note that a connection is closed."""


class Connection:
    """A connection. Each side knows of the other's end only what has reached it.

    Attributes:
        target: What the client connected to.
        client_node: The client's node; None if it belongs to none.
        server_node: The server's node.
        client_open: The client has not found it closed.
        server_open: The server has not found it closed.
        peer: The client's address, as gRPC writes it.
        idle_since: When the server ended its last call; None while it serves one.
    """

    def __init__(self, wire: Wire, channel: ClientEnd, server: ServerEnd) -> None:
        self.target = server.target
        self.client_node, self.server_node = channel.node, server.node
        self.client_open = self.server_open = True
        self.peer = wire.new_peer(channel.node)
        self._wire, self._channel, self._server = wire, channel, server
        self.idle_since: float | None = wire.loop.time()
        self._leaving = False
        self._client_streams: dict[ClientStream, None] = {}
        self._server_streams: dict[ServerStream, None] = {}
        self._to_server = wire.pipe(server.node)
        self._to_client = wire.pipe(channel.node)
        lookahead = server.options.get("grpc.http2.lookahead_bytes", wire.window)
        self._window_to_server = min(wire.window, lookahead)
        self._keepalives = (
            Keepalive(wire, channel.node, channel.options, self.lose_client),
            Keepalive(wire, server.node, server.options, self.lose_server),
        )

    # Faults.

    def reset(self, why: str = CLOSED) -> None:
        """Lose the connection, with all that is under way, on both sides."""
        self._wire.loop.record("reset", self.peer)
        self._to_server.close()
        self._to_client.close()
        self._wire.soon(self.server_node, self.lose_server, why)
        self._wire.soon(self.client_node, self.lose_client, why)

    def block(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let nothing through until `heal`. Keepalive may find out, on either side."""
        self._wire.loop.record("block", self.peer, to_server, to_client)
        for pipe, blocks in ((self._to_server, to_server), (self._to_client, to_client)):
            if blocks:
                pipe.block()
        self.watch_silence()

    def heal(self) -> None:
        """Go on after `block`, with what was sent meanwhile."""
        self._wire.loop.record("heal", self.peer)
        self._to_server.heal()
        self._to_client.heal()
        self.watch_silence()

    def crash(self, node: Node) -> None:
        """Close it for a node that has died, without a step of that node."""
        if node is self.server_node:
            self._close_server(CLOSED)
        if node is self.client_node:
            self._close_client(CLOSED)

    def watch_silence(self) -> None:
        """Have keepalive take note of whether each side still gets answers."""
        blocked = self._to_server.blocked or self._to_client.blocked
        for keepalive, is_open, other in zip(
            self._keepalives,
            (self.client_open, self.server_open),
            (self.server_node, self.client_node),
            strict=True,
        ):
            answers = not blocked and (other is None or other.state == "up")
            keepalive.watch(silent=is_open and not answers)

    # The client's side.

    def confirm(self, done: Callable[["Connection"], None]) -> None:
        """Tell the client that it is connected."""
        self._to_client.send(done, self)

    @property
    def takes_calls(self) -> bool:
        """Whether the channel can begin another call."""
        limit = self._server.options.get("grpc.max_concurrent_streams", MAX_STREAMS)
        return self.client_open and not self._leaving and len(self._client_streams) < limit

    def open(
        self, headers: Headers, changed: Signal, on_end: Callable[[Status], object]
    ) -> ClientStream:
        """Begin a call."""
        limit = "grpc.max_receive_message_length"
        stream = ClientStream(
            self._to_server,
            self._window_to_server,
            self._channel.options.get(limit, MAX_MESSAGE_BYTES),
            changed,
            on_end,
        )
        self._client_streams[stream] = None
        to_answer = ServerStream(
            self._to_client,
            self._wire.window,
            self._server.options.get(limit, MAX_MESSAGE_BYTES),
            stream,
        )
        self._to_server.send(self._server.accept, self, to_answer, headers)
        return stream

    def forget(self, stream: ClientStream) -> None:
        """Take note that the client's side of a call has ended."""
        self._client_streams.pop(stream, None)
        if self._leaving and not self._client_streams:
            self._close_client("GOAWAY received")
        self._channel.released(self)

    def lose_client(self, why: str) -> None:
        """Have the client find the connection closed."""
        if self.client_open:
            self._close_client(why)
            for stream in list(self._client_streams):
                stream.lose(unavailable(why))
            self._channel.lost(self)

    def _close_client(self, why: str) -> None:
        self.client_open = False
        self._to_client.close()
        self._to_server.send(self.lose_server, why)
        self.watch_silence()

    # The server's side.

    def accepted(self, stream: ServerStream) -> None:
        """Take note of a call that the server serves."""
        self._server_streams[stream] = None
        self.idle_since = None

    def served(self, stream: ServerStream) -> None:
        """Take note that the server has ended a call."""
        self._server_streams.pop(stream, None)
        if not self._server_streams:
            self.idle_since = self._wire.loop.time()

    def lose_server(self, why: str) -> None:
        """Have the server find the connection closed, or close it."""
        if self.server_open:
            self._close_server(why)
            for stream in list(self._server_streams):
                stream.cancel()

    def _close_server(self, why: str) -> None:
        self.server_open = False
        self._server.closed(self)
        self._to_server.close()
        self._to_client.send(self.lose_client, why)
        self.watch_silence()

    def leave(self) -> None:
        """Tell the client to make its next calls on another connection (GOAWAY)."""
        self._to_client.send(self._left)

    def _left(self) -> None:
        self._leaving = True
        self._channel.lost(self)
        if not self._client_streams:
            self._close_client("GOAWAY received")
