"""What was not delivered yet, of one webhook: deliveries that wait for another attempt."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from jobledger.internal.v1alpha1.webhook_delivery_service_pb2 import PendingDelivery

MAX_DELIVERIES: Final = 100
MAX_BYTES: Final = 40 * 1024
"""A little less than the service stores: one more may be added after this was reached."""


class Pending:
    """Pending deliveries, in the order of versions for each job.

    Of each job only the first is tried, so that none is delivered before an earlier one.
    """

    def __init__(self, deliveries: Iterable[PendingDelivery]) -> None:
        self._of_job: dict[str, list[PendingDelivery]] = {}
        self._removed = asyncio.Condition()
        self.added = asyncio.Event()
        """Set when one was added."""
        self.awaiting_room = 0
        """How many wait until there is room for another one."""
        for each in deliveries:
            self.add(each)

    def __iter__(self) -> Iterator[PendingDelivery]:
        for deliveries in self._of_job.values():
            yield from deliveries

    def of_job(self, job_id: str) -> Sequence[PendingDelivery]:
        """Return those of a job."""
        return self._of_job.get(job_id, ())

    def firsts(self) -> Sequence[PendingDelivery]:
        """Return the first of each job."""
        return [deliveries[0] for deliveries in self._of_job.values()]

    def first_times(self) -> Sequence[float]:
        """Return when each was tried first, in seconds since the Unix epoch."""
        return [each.first_time.ToMicroseconds() / 1_000_000 for each in self]

    async def room(self) -> None:
        """Wait until there is room for another one."""
        self.awaiting_room += 1
        try:
            async with self._removed:
                await self._removed.wait_for(self.has_room)
        finally:
            self.awaiting_room -= 1

    def add(self, delivery: PendingDelivery) -> None:
        """Add one, after the others of its job."""
        self._of_job.setdefault(delivery.transition.job_id, []).append(delivery)
        self.added.set()

    async def remove(self, delivery: PendingDelivery) -> None:
        """Remove the first of a job."""
        deliveries = self._of_job[delivery.transition.job_id]
        assert deliveries[0] is delivery  # noqa: S101
        del deliveries[0]
        if not deliveries:
            del self._of_job[delivery.transition.job_id]
        self.added.set()  # the next one of its job is a first one now
        async with self._removed:
            self._removed.notify_all()

    def has_room(self) -> bool:
        """Return whether another one may be added."""
        # Counted anew: a delivery's times change, and with them its size.
        sizes = [each.ByteSize() + 4 for each in self]
        return len(sizes) < MAX_DELIVERIES and sum(sizes) < MAX_BYTES
