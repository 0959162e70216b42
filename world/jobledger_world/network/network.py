"""The network: who listens, which connections there are, and how long messages take."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import grpc

from jobledger.core.channel import CHANNEL_OPTIONS, Option
from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop
from jobledger_world.network.channel import CONNECT_SECONDS, Channel
from jobledger_world.network.connection import Connection
from jobledger_world.network.server import Server
from jobledger_world.network.wire import Wire
from jobledger_world.nodes import Node, current_node

Closed: TypeAlias = Literal["refused", "unanswered"]

RESEND_SECONDS = 1.0
"""After so long a kernel asks again for a connection, and then after twice as long each time."""


class Network(Wire):
    """See the module, and `Wire` for the faults of messages.

    Attributes:
        closed: Who gets no new connection: a target or a client's node. It is "refused", or
            "unanswered", as by a firewall that drops packets or by a full queue of connections.
        listening: The servers, by what they listen on.
    """

    def __init__(self, loop: WorldLoop, chance: Chance) -> None:
        super().__init__(loop, chance)
        self.closed: dict[str | Node, Closed] = {}
        self.listening: dict[str, Server] = {}
        self._connections: dict[Connection, None] = {}
        self._watched: dict[Node | None, None] = {}

    def new_server(
        self, *_: object, options: Sequence[tuple[str, Any]] = (), **__: object
    ) -> grpc.aio.Server:
        """Return a server of the node that runs now: what `grpc.aio.server` does."""
        node = current_node()
        self._watch(node)
        return Server(self, self.listening, node, options)

    def channel(self, target: str, *, options: Sequence[Option] = CHANNEL_OPTIONS) -> Channel:
        """Return a channel of the node that runs now: what `grpc.aio.insecure_channel` does."""
        node = current_node()
        self._watch(node)
        return Channel(self, self._connect, target, node, options)

    def connections(self, target: str | None = None, node: Node | None = None) -> list[Connection]:
        """Return the open connections: of one target, or of one node, the client's or server's."""
        for each in list(self._connections):
            if not (each.client_open or each.server_open):
                del self._connections[each]
        return [
            each
            for each in self._connections
            if (target is None or each.target == target)
            and (node is None or node in (each.client_node, each.server_node))
        ]

    def crash(self, node: Node) -> None:
        """Close the connections of a node that has died, and let nobody connect to it."""
        for target, server in list(self.listening.items()):
            if server.node is node:
                del self.listening[target]
        for connection in self.connections(node=node):
            connection.crash(node)

    def _connect(self, channel: Channel, done: Callable[[Connection | None], None]) -> None:
        """Call `done` with a new connection, or with None if it is refused; or never."""

        def arrive(pause: float = RESEND_SECONDS) -> None:
            server = self.listening.get(channel.target)
            closed = self.closed.get(channel.target)
            if closed is None and channel.node is not None:
                closed = self.closed.get(channel.node)
            if closed == "unanswered":
                if pause < CONNECT_SECONDS:  # the client has given up by then
                    self.after(None, pause, arrive, 2 * pause)
            elif closed == "refused" or server is None:
                self.later(channel.node, done, None)
            else:
                # gRPC, not the kernel, answers the handshake: while its node is frozen, nobody.
                self.soon(server.node, accept, server)

        def accept(server: Server) -> None:
            if self.listening.get(channel.target) is not server:
                self.later(channel.node, done, None)
                return
            connection = Connection(self, channel, server)
            self._connections[connection] = None
            server.connected(connection)
            connection.confirm(done)

        self.later(None, arrive)

    def _watch(self, node: Node | None) -> None:
        """Have keepalive notice from now on when the node is frozen, or dies."""
        if node not in self._watched:
            self._watched[node] = None
            self.address(node)
            if node is not None:
                node.watchers.append(lambda: self._changed(node))

    def _changed(self, node: Node) -> None:
        for connection in self.connections(node=node):
            connection.watch_silence()
