"""Outages: since when workers can reach the service again, by the database's clock.

Where they could not, their leases expired without their doing. So what is known here
goes into each decision about an expired lease, as etcd's new leader extends the leases
that it finds (`lessor.Promote`). See docs/decisions/0039.
"""

from jobledger_server.domain.job import Instant, Micros

LONGEST_GAP = Micros(2_000_000)
"""Between two answers of the database; the reaper polls about each half second. After a longer
one this process was frozen, or the machine suspended, or the database's clock was set."""


class Outages:
    """Follows what the database answers to one process. An outage ends with the first answer."""

    def __init__(self) -> None:
        self.resumed_at: Instant | None = None
        """When the last outage ended; None before the first answer."""
        self._latest = Instant(0)
        self._unavailable = True  # its start ends an outage

    def failed(self) -> None:
        """Record that the database was unavailable."""
        self._unavailable = True

    def answered(self, now: Instant) -> None:
        """Record an answer, and the time of the database in it."""
        if self._unavailable or abs(now - self._latest) > LONGEST_GAP:
            self.resumed_at = self._latest = now
            self._unavailable = False
        self._latest = max(self._latest, now)
