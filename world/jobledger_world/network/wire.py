"""What the parts of the network share: its time, its chance and its addresses."""

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING

from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop
from jobledger_world.network.pipe import Pipe
from jobledger_world.nodes import Node

if TYPE_CHECKING:
    from asyncio import TimerHandle

SLOW = 0.01, 3.0
"""Seconds that a slow message takes."""

WINDOW = 64 * 1024
"""HTTP/2's: gRPC's own begins with it, and becomes as large as the link can carry."""


class Wire:
    """How messages get from node to node.

    Attributes:
        latency: Seconds that a message takes, at least and at most.
        slow: The part of messages that take much longer.
        duplicates: The part of calls that reach the server twice, as a proxy may send them.
        lost_answers: The part of calls whose connection is lost when the server has served them.
        window: Bytes of a stream that one side sends before the other one reads.
    """

    def __init__(self, loop: WorldLoop, chance: Chance) -> None:
        self.loop = loop
        self.latency = 0.0002, 0.002
        self.slow = self.duplicates = self.lost_answers = 0.0
        self.window = WINDOW
        self.random = chance.of("network")
        self._addresses: dict[Node | None, int] = {}
        self._ports = 20_000

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
        return f"ipv4:{self.address(node)}:{self.new_port()}"

    def address(self, node: Node | None) -> str:
        """Return the address of a node, which it gets when it is first asked for."""
        number = self._addresses.setdefault(node, len(self._addresses) + 1)
        return f"10.0.{number // 256}.{number % 256}"


def _context(node: Node | None) -> Context:
    return Context() if node is None else node.context
