"""The maximum age of streams: watches reconnect regularly, so load spreads over servers."""

import asyncio
import math
import random
from typing import Final

from jobledger_server.admission.endings import StreamTooOld

HEARTBEAT_STEP: Final = 1 / 150
"""Between two moments at which streams are sent heartbeats, as a part of the interval."""


class StreamAge:
    """The age that one stream may reach.

    Args:
        max_age: The age in seconds, plus or minus up to a quarter, so that streams that
            started together do not end together. 0 means no limit.
    """

    def __init__(self, max_age: float) -> None:
        self._loop = asyncio.get_running_loop()
        span = max_age * random.uniform(0.75, 1.25) if max_age else float("inf")  # noqa: S311
        self._end = self._loop.time() + span

    def remaining(self) -> float | None:
        """Return how many seconds are left, or None if there is no limit."""
        return None if self._end == float("inf") else max(0.0, self._end - self._loop.time())

    def max_wait(self, heartbeat: float) -> float:
        """Return how many seconds the stream may wait for the next update.

        Raises StreamTooOld once the stream has reached its age.
        """
        left = self._end - self._loop.time()
        if left <= 0:
            raise StreamTooOld
        return min(heartbeat, left)

    def until_heartbeat(self, heartbeat: float) -> float:
        """Return how many seconds the stream may wait for the next update before a heartbeat.

        Streams share the moments of their heartbeats, at most HEARTBEAT_STEP of the interval
        early: the loop wakes once for many of them, and so do clients that have many streams.

        Raises StreamTooOld once the stream has reached its age.
        """
        now, step = self._loop.time(), heartbeat * HEARTBEAT_STEP
        return self.max_wait(math.floor((now + heartbeat) / step) * step - now)
