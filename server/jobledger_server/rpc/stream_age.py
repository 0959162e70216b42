"""How long a stream may last: watches move on now and then, so that load spreads over servers."""

import asyncio
import random

from jobledger_server.watch.job_watch import Draining


class Lifetime:
    """The time of one stream: `age` seconds and up to a quarter less or more; 0: without end.

    The jitter keeps streams that began together from ending together.
    """

    def __init__(self, age: float) -> None:
        self._loop = asyncio.get_running_loop()
        span = age * random.uniform(0.75, 1.25) if age else float("inf")  # noqa: S311
        self._end = self._loop.time() + span

    def left(self) -> float | None:
        """Return how many seconds are left; None where there is no end."""
        return None if self._end == float("inf") else max(0.0, self._end - self._loop.time())

    def patience(self, heartbeat: float) -> float:
        """Return how many seconds the stream may wait for news.

        Raises Draining, with no need to wait before the next one, when its time is over.
        """
        left = self._end - self._loop.time()
        if left <= 0:
            raise Draining(rotated=True)
        return min(heartbeat, left)
