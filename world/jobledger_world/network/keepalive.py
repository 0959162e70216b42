"""When a side gives up a silent connection."""

from collections.abc import Callable, Mapping
from typing import Any

from jobledger_world.network.wire import Wire
from jobledger_world.nodes import Node


class Keepalive:
    """Loses a connection whose other side answers no pings.

    No pings are sent: the network knows when they would not be answered, and chance decides how
    long it is to the next one. So an idle connection takes no steps.

    Args:
        wire: The network.
        node: The node whose side this is.
        options: Of its channel, or server.
        lose: Called when no ping was answered for too long.
    """

    def __init__(
        self,
        wire: Wire,
        node: Node | None,
        options: Mapping[str, Any],
        lose: Callable[[str], None],
    ) -> None:
        self._wire, self._node, self._lose = wire, node, lose
        self._interval = options.get("grpc.keepalive_time_ms")
        self._timeout = options.get("grpc.keepalive_timeout_ms", 20_000)
        self._timer: Any = None

    def watch(self, *, silent: bool) -> None:
        """Take note of whether the other side answers pings."""
        if not silent and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif silent and self._timer is None and self._interval is not None:
            wait = self._wire.random.uniform(0, self._interval) + self._timeout
            self._timer = self._wire.after(self._node, wait / 1000, self._lose, "ping timeout")
