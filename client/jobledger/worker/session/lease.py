"""The lease of one job, by the worker's own clock.

Pure: the clock is a parameter. A renewed lease lasts for its duration from when the request was
*sent*, less a margin for what is still under way when the worker stops. Whether a call still counts
is decided by the fence, `attempt`, not by any clock; this one only says when to stop in time.
"""

import random
from collections.abc import Callable
from typing import Final

from jobledger.errors import IllegalTransition, JobNotFound, JobTerminal, LeaseLost

GONE: Final = (LeaseLost, JobTerminal, JobNotFound, IllegalTransition)
"""The job is no longer this worker's: it has another attempt, is terminal or deleted."""

# A part of the duration: if two renewals fail, there is time for a third.
RENEWAL: Final = 1 / 3
MARGIN: Final = 0.1
MAX_MARGIN: Final = 5.0
# Seconds that a renewal always has, even if the lease is nearly over.
SHORTEST_RENEWAL: Final = 0.05


class Lease:
    """Until when a job is leased to this worker, and when to renew the lease.

    Args:
        duration: seconds.
        granted: when the job came, by `clock`.
        clock: monotonic.
        uniform: random numbers.
    """

    def __init__(
        self,
        duration: float,
        granted: float,
        *,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.duration = duration
        self.clock = clock
        self._uniform = uniform
        self._margin = min(duration * MARGIN, MAX_MARGIN)
        self.deadline = 0.0
        self.renew_at = 0.0
        self._late = 0.0
        self._noted = granted  # when the last late wait ended
        self.renewed(granted)

    def renewed(self, sent: float) -> None:
        """Take note that a request sent at that moment has renewed the lease."""
        if sent >= self._noted:
            self._late = 0.0
        self.deadline = max(self.deadline, sent + self.duration - self._margin)
        # Spread, so that jobs that were claimed together are not always renewed together.
        wait = self.duration * RENEWAL * self._uniform(0.9, 1.0)
        self.renew_at = max(self.renew_at, sent + wait)

    def waited(self, until: float) -> None:
        """Take note that a wait which ended now was to end at that moment."""
        now = self.clock()
        if now - until > self._late:
            self._late, self._noted = now - until, now

    @property
    def blocked(self) -> float:
        """For how many seconds the event loop was blocked, if that may have cost the lease; or 0.

        A shorter time leaves another renewal.
        """
        return self._late if self._late >= self.duration * RENEWAL else 0.0

    @property
    def over(self) -> bool:
        return self.clock() >= self.deadline

    @property
    def renewal_timeout(self) -> float:
        """How long a renewal that starts now may take, in seconds: not beyond the deadline."""
        return max(self.deadline - self.clock(), SHORTEST_RENEWAL)

    @property
    def longest_pause(self) -> float:
        """How long to wait between two tries at most, in seconds."""
        return min(self.duration / 20, 2.0)
