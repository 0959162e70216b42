"""The network: who listens, which connections there are, and how long messages take."""

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import grpc

from jobledger.core.channel import CHANNEL_OPTIONS, Option
from jobledger.testing.world.chance import Chance
from jobledger.testing.world.loop import Node, WorldLoop, current_node
from jobledger.testing.world.network.channel import Channel
from jobledger.testing.world.network.connection import Connection
from jobledger.testing.world.network.pipe import Pipe
from jobledger.testing.world.network.server import Server

SLOW = 0.01, 3.0
"""Seconds that a slow message takes."""


class Network:
    """See the module.

    Attributes:
        latency: Seconds that a message takes, at least and at most.
        slow: The part of messages that take much longer.
        duplicates: The part of calls that reach the server twice, as a proxy may send them. Only
            calls that are safe to repeat.
        lost_answers: The part of calls whose connection is lost when the server answers.
        listening: The servers, by what they listen on.
    """

    def __init__(self, loop: WorldLoop, chance: Chance) -> None:
        self.loop = loop
        self.latency = 0.0002, 0.002
        self.slow = self.duplicates = self.lost_answers = 0.0
        self.listening: dict[str, Server] = {}
        self.random = chance.of("network")
        self._connections: dict[Connection, None] = {}
        self._addresses: dict[Node | None, int] = {}
        self._ports = 20_000

    def new_server(
        self,
        *_: object,
        options: Sequence[tuple[str, Any]] = (),
        **__: object,
    ) -> grpc.aio.Server:
        """Return a server of the node that runs now: what `grpc.aio.server` does."""
        return Server(self, current_node(), options)

    def channel(
        self, target: str, *, retries: bool = True, options: Sequence[Option] = CHANNEL_OPTIONS
    ) -> Channel:
        """Return a channel of the node that runs now: what `grpc.aio.insecure_channel` does."""
        return Channel(self, target, current_node(), options, retries=retries)

    def connections(self, target: str | None = None, node: Node | None = None) -> list[Connection]:
        """Return the open connections: of one target, or of one node, the client's or server's."""
        self._connections = {
            each: None for each in self._connections if each.client_open or each.server_open
        }
        return [
            each
            for each in self._connections
            if (target is None or each.target == target)
            and (node is None or node in (each.client_node, each.server_node))
        ]

    def crash(self, node: Node) -> None:
        """Reset the connections of a node that has died, and let nobody connect to it."""
        for target, server in list(self.listening.items()):
            if server.node is node:
                del self.listening[target]
        for connection in self.connections(node=node):
            connection.reset()

    # For the parts of the network.

    def connect(
        self,
        target: str,
        node: Node | None,
        lost: Callable[[Connection], None],
        connected: Callable[[Connection | None], None],
    ) -> None:
        """Call `connected` with a new connection, or with None if nobody listens."""

        def arrive() -> None:
            server = self.listening.get(target)
            if server is None:
                self.later(node, connected, None)
            else:
                # gRPC, not the kernel, answers the handshake: while its node is frozen, nobody.
                self.soon(server.node, accept, server)

        def accept(server: Server) -> None:
            if self.listening.get(target) is not server:
                self.later(node, connected, None)
                return
            connection = Connection(self, server, node, lost)
            self._connections[connection] = None
            self.later(node, connected, connection)

        self.later(None, arrive)

    def delay(self) -> float:
        """Return the seconds that the next message takes."""
        if self.slow and self.random.random() < self.slow:
            return self.random.uniform(*SLOW)
        return self.random.uniform(*self.latency)

    def pipe(self, node: Node | None) -> Pipe:
        """Return a new pipe to a node."""
        return Pipe(self.loop, self.delay, lambda: _context(node))

    def soon(self, node: Node | None, action: Callable[..., object], *args: object) -> None:
        """Have a node do this."""
        self.loop.call_soon(action, *args, context=_context(node))

    def later(self, node: Node | None, action: Callable[..., object], *args: object) -> None:
        """Have a node do this when a message would have arrived."""
        self.loop.call_later(self.delay(), action, *args, context=_context(node))

    def new_port(self) -> int:
        """Return a port that nobody has had."""
        self._ports += 1
        return self._ports

    def new_peer(self, node: Node | None) -> str:
        """Return the address of a new connection of a node, as gRPC writes it."""
        number = self._addresses.setdefault(node, len(self._addresses) + 1)
        return f"ipv4:10.0.{number // 256}.{number % 256}:{self.new_port()}"


def _context(node: Node | None) -> Context:
    return Context() if node is None else node.context
