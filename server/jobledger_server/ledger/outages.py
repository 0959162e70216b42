"""Outages: since when workers can reach the service again, by the database's clock.

Workers cannot renew their leases during an outage. So each decision about an expired lease
takes into account when the last outage ended, as etcd extends all leases when a new leader
takes over (`lessor.Promote`). See docs/decisions/0039.
"""

import asyncio
from collections.abc import Callable

from jobledger_server.domain.job import MICROS_PER_SECOND, Instant, Micros

MAX_GAP = Micros(2_000_000)
"""The longest gap between two answers of the database without an outage: the lookout asks it
every half second. After a longer gap this process was frozen, the machine was suspended, or the
database's clock was changed."""


class Outages:
    """Tracks the outages that one process sees. An outage ends with the first answer.

    Args:
        clock: Returns seconds that have passed. By default it is the event loop's.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.resumed_at: Instant | None = None
        """When the last outage ended; None before the first answer."""
        self._clock = clock or asyncio.get_running_loop().time
        self._latest = Instant(0)
        self._latest_at = 0.0  # by the clock
        self._unavailable = True  # a process starts in an outage

    def failed(self) -> None:
        """Record that the database is unavailable."""
        self._unavailable = True

    def answered(self, now: Instant) -> None:
        """Record an answer of the database, and its time."""
        if self._unavailable or abs(now - self._latest) > MAX_GAP:
            self.resumed_at = self._latest = now
            self._unavailable = False
        if now >= self._latest:
            self._latest, self._latest_at = now, self._clock()

    def about_now(self) -> Instant | None:
        """Return what time it is about by the database's clock; None during an outage."""
        if self._unavailable:
            return None
        passed = self._clock() - self._latest_at
        return Instant(self._latest + round(passed * MICROS_PER_SECOND))
