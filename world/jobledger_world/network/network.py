"""The network: who listens, which connections there are, and how long messages take."""

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import grpc

from jobledger.core.channel import CHANNEL_OPTIONS, Option
from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop
from jobledger_world.network.channel import CONNECT_SECONDS, Channel
from jobledger_world.network.connection import Connection
from jobledger_world.network.keepalive import leave_in_time
from jobledger_world.network.pipe import Pipe
from jobledger_world.network.server import Server
from jobledger_world.nodes import Node, current_node

if TYPE_CHECKING:
    from asyncio import TimerHandle

Closed: TypeAlias = Literal["refused", "unanswered"]

SLOW = 0.01, 3.0
"""Seconds that a slow message takes."""

WINDOW = 64 * 1024
"""HTTP/2's: gRPC's own begins with it, and becomes as large as the link can carry."""

RESEND_SECONDS = 1.0
"""After so long a kernel asks again for a connection, and then after twice as long each time."""


class Network:
    """See the module.

    Attributes:
        latency: Seconds that a message takes, at least and at most.
        slow: The part of messages that take much longer.
        duplicates: The part of calls that reach the server twice, as a proxy may send them.
        lost_answers: The part of calls whose connection is lost when the server has served them.
        closed: Who gets no new connection: a target or a client's node. It is "refused", or
            "unanswered", as by a firewall that drops packets or by a full queue of connections.
        window: Bytes of a stream that one side sends before the other one reads.
        listening: The servers, by what they listen on.
    """

    def __init__(self, loop: WorldLoop, chance: Chance) -> None:
        self.loop = loop
        self.latency = 0.0002, 0.002
        self.slow = self.duplicates = self.lost_answers = 0.0
        self.closed: dict[str | Node, Closed] = {}
        self.window = WINDOW
        self.listening: dict[str, Server] = {}
        self.random = chance.of("network")
        self._connections: dict[Connection, None] = {}
        self._addresses: dict[Node | None, int] = {}
        self._ports = 20_000

    def new_server(
        self, *_: object, options: Sequence[tuple[str, Any]] = (), **__: object
    ) -> grpc.aio.Server:
        """Return a server of the node that runs now: what `grpc.aio.server` does."""
        return Server(self, current_node(), options)

    def channel(self, target: str, *, options: Sequence[Option] = CHANNEL_OPTIONS) -> Channel:
        """Return a channel of the node that runs now: what `grpc.aio.insecure_channel` does."""
        return Channel(self, target, current_node(), options)

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

    # For the parts of the network.

    def connect(self, channel: Channel, done: Callable[[Connection | None], None]) -> None:
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
            server.connections[connection] = None
            leave_in_time(self, connection, server.options)
            connection.confirm(done)

        self.later(None, arrive)

    def delay(self) -> float:
        """Return the seconds that the next message takes."""
        if self.slow and self.random.random() < self.slow:
            return self.random.uniform(*SLOW)
        return self.random.uniform(*self.latency)

    def happens(self, part: float) -> bool:
        """Decide whether a fault happens now that does so in this part of cases."""
        return bool(part) and self.random.random() < part

    def pipe(self, node: Node | None) -> Pipe:
        """Return a new pipe to a node."""
        return Pipe(self.loop, self.delay, lambda: _context(node))

    def soon(self, node: Node | None, action: Callable[..., object], *args: object) -> None:
        """Have a node do this."""
        self.loop.call_soon(action, *args, context=_context(node))

    def later(self, node: Node | None, action: Callable[..., object], *args: object) -> None:
        """Have a node do this when a message would have arrived."""
        self.after(node, self.delay(), action, *args)

    def after(
        self, node: Node | None, seconds: float, action: Callable[..., object], *args: object
    ) -> "TimerHandle":
        """Have a node do this after a time."""
        handle: TimerHandle = self.loop.call_later(seconds, action, *args, context=_context(node))
        return handle

    def new_port(self) -> int:
        """Return a port that nobody has had."""
        self._ports += 1
        return self._ports

    def new_peer(self, node: Node | None) -> str:
        """Return the address of a new connection of a node, as gRPC writes it."""
        return f"ipv4:{self._address(node)}:{self.new_port()}"

    def watch(self, node: Node | None) -> None:
        """Have keepalive notice from now on when the node is frozen, or dies."""
        self._address(node)

    def _address(self, node: Node | None) -> str:
        if node not in self._addresses:
            self._addresses[node] = len(self._addresses) + 1
            if node is not None:
                node.watchers.append(lambda: self._changed(node))
        number = self._addresses[node]
        return f"10.0.{number // 256}.{number % 256}"

    def _changed(self, node: Node) -> None:
        for connection in self.connections(node=node):
            connection.watch_silence()


def _context(node: Node | None) -> Context:
    return Context() if node is None else node.context
