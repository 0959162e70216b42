"""A connection of a channel to a server, and what can happen to it."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobledger.testing.world.loop import Node
from jobledger.testing.world.network.status import Status, unavailable
from jobledger.testing.world.network.stream import ClientStream, ServerStream, Signal

if TYPE_CHECKING:
    from jobledger.testing.world.network.calls import Headers
    from jobledger.testing.world.network.network import Network
    from jobledger.testing.world.network.server import Server


class Connection:
    """A connection. Each side knows of the other's end only what has reached it.

    Attributes:
        target: What the client connected to.
        client_node: The client's node; None if it belongs to none.
        server_node: The server's node.
        client_open: The client has not found it closed.
        server_open: The server has not found it closed.
        leaving: The server has said, and the client has heard, that it takes no new calls.
        peer: The client's address, as gRPC writes it.
    """

    def __init__(
        self,
        network: "Network",
        server: "Server",
        client_node: Node | None,
        lost: Callable[["Connection"], None],
    ) -> None:
        self.target = server.target
        self.server = server
        self.client_node, self.server_node = client_node, server.node
        self.client_open = self.server_open = True
        self.leaving = False
        self.peer = network.new_peer(client_node)
        self.client_streams: dict[ClientStream, None] = {}
        self.server_streams: dict[ServerStream, None] = {}
        self._network = network
        self._lost = lost
        self._waiting: deque[Callable[[], None]] = deque()
        self._to_server = network.pipe(server.node)
        self._to_client = network.pipe(client_node)
        server.connections[self] = None

    # Faults.

    def reset(self, why: str = "Connection reset by peer") -> None:
        """Lose the connection, with all that is under way, on both sides."""
        self._network.loop.record("reset", self.peer)
        self._to_server.close()
        self._to_client.close()
        self._network.soon(self.server_node, self.lose_server)
        self._network.soon(self.client_node, self.lose_client, why)

    def block(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let nothing through until `heal`. Keepalive may find out, on either side."""
        self._network.loop.record("block", self.peer, to_server, to_client)
        for pipe, blocks in ((self._to_server, to_server), (self._to_client, to_client)):
            if blocks:
                pipe.block()

    def heal(self) -> None:
        """Go on after `block`, with what was sent meanwhile."""
        self._network.loop.record("heal", self.peer)
        self._to_server.heal()
        self._to_client.heal()

    # The client's side.

    def open(
        self, headers: "Headers", changed: Signal, ended: Callable[[Status], None]
    ) -> ClientStream:
        """Begin a call."""
        stream = ClientStream(self._to_server, changed, ended)
        self.client_streams[stream] = None
        ServerStream(self._to_client, stream)
        self._to_server.send(self.server.accept, self, stream.peer, headers)
        return stream

    def lose_client(self, why: str) -> None:
        """Have the client find the connection closed."""
        if self.client_open:
            self.client_open = False
            self._to_server.send(self.lose_server)
            for stream in list(self.client_streams):
                stream.end(unavailable(why))
            self._lost(self)

    # The server's side.

    def lose_server(self) -> None:
        """Have the server find the connection closed."""
        if self.server_open:
            self.server_open = False
            self._to_client.send(self.lose_client, "Socket closed")
            for stream in list(self.server_streams):
                stream.cancel()
            self.server.connections.pop(self, None)

    def leave(self) -> None:
        """Tell the client that the server takes no new calls."""
        self._to_client.send(self._left)

    def _left(self) -> None:
        self.leaving = True
        self._lost(self)
