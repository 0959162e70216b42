"""What can go wrong on the way to the database of a world."""

from collections import Counter

from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop
from jobledger_world.nodes import Node

SLOW_SECONDS = (0.005, 0.5)
"""What a slow statement takes."""

EARLY = 0.5
"""The part of statements that take their time on the way to the database."""


class DatabaseFaults:
    """How long statements take, and which of them fail.

    Args:
        loop: The world's loop.
        chance: Decides latencies and faults.

    Attributes:
        latency: Seconds that a statement takes, from and to.
        slow: The part of statements that take SLOW_SECONDS, from 0 to 1.
        fails: The part of statements that fail.
        rejects: The part of commits that fail, and change nothing.
        loses: The part of commits that are done, and reported as failed.
        cut: The servers that do not reach the database.
        counts: How often what happened: `statements`, `commits`, and the faults.
    """

    def __init__(self, loop: WorldLoop, chance: Chance) -> None:
        self.latency = (0.0002, 0.002)
        self.slow = self.fails = self.rejects = self.loses = 0.0
        self.cut: dict[Node, None] = {}
        self.counts: Counter[str] = Counter()
        self._loop = loop
        self._times, self._faults = chance.of("disk latency"), chance.of("disk faults")
        self._stalled_until = 0.0

    def stall(self, seconds: float) -> None:
        """Have the database answer nobody for so long."""
        self._stalled_until = max(self._stalled_until, self._loop.time() + seconds)

    def times(self) -> tuple[float, float]:
        """Return how long a statement that begins now takes on its way there, and back."""
        seconds = self._times.uniform(*self.latency)
        if self.slow and self._times.random() < self.slow:
            self.counts["slow"] += 1
            seconds = self._times.uniform(*SLOW_SECONDS)
        stalled = max(0.0, self._stalled_until - self._loop.time())
        # One of both, so that an answer may be old, and a statement takes a step of the loop.
        return (stalled + seconds, 0.0) if self._times.random() < EARLY else (stalled, seconds)

    def is_cut(self, node: Node | None) -> bool:
        """Return whether this server does not reach the database, and count it."""
        if node not in self.cut:
            return False
        self.counts["cut"] += 1
        return True

    def happens(self, fault: str, part: float) -> bool:
        """Return whether a fault happens now, and count it."""
        happens = part > 0 and self._faults.random() < part
        self.counts[fault] += happens
        return happens
