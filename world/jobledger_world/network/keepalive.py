"""When a side gives up a silent connection, and a server one that is old or not used."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jobledger_world.nodes import Node

if TYPE_CHECKING:
    from jobledger_world.network.connection import Connection
    from jobledger_world.network.network import Network

AGE_JITTER = 0.1
"""gRPC's."""


class Keepalive:
    """Loses a connection whose other side answers no pings.

    No pings are sent: the network knows when they would not be answered, and chance decides how
    long it is to the next one. So an idle connection takes no steps.

    Args:
        network: The network.
        node: The node whose side this is.
        options: Of its channel, or server.
        lose: Called when no ping was answered for too long.
    """

    def __init__(
        self,
        network: "Network",
        node: Node | None,
        options: Mapping[str, Any],
        lose: Callable[[str], None],
    ) -> None:
        self._network, self._node, self._lose = network, node, lose
        self._interval = options.get("grpc.keepalive_time_ms")
        self._timeout = options.get("grpc.keepalive_timeout_ms", 20_000)
        self._timer: Any = None

    def watch(self, *, silent: bool) -> None:
        """Take note of whether the other side answers pings."""
        if not silent and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif silent and self._timer is None and self._interval is not None:
            wait = self._network.random.uniform(0, self._interval) + self._timeout
            self._timer = self._network.after(self._node, wait / 1000, self._lose, "ping timeout")


def leave_in_time(network: "Network", connection: "Connection", options: Mapping[str, Any]) -> None:
    """Have a server leave a connection that is old or not used, as its options say."""
    node = connection.server_node
    spread = network.random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
    if (age := options.get("grpc.max_connection_age_ms")) is not None:
        network.after(node, age / 1000 * spread, connection.leave)
        if (grace := options.get("grpc.max_connection_age_grace_ms")) is not None:
            seconds = (age * spread + grace) / 1000
            network.after(node, seconds, connection.lose_server, "max_age")
    if (idle := options.get("grpc.max_connection_idle_ms")) is not None:
        limit = idle / 1000 * spread

        def check() -> None:
            since = connection.idle_since
            left = limit if since is None else since + limit - network.loop.time()
            if left <= 0:
                connection.leave()
            elif connection.server_open:
                network.after(node, left, check)

        network.after(node, limit, check)
