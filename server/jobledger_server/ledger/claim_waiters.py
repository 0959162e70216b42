"""Claim waiters: wakes one waiting claim for each job that becomes claimable.

Jobs become claimable by a change, which `observe` receives, or because their time has come. The
promoter sees to the latter, and the lookout to whatever was missed: see maintenance/lookout.py.

If a job woke every waiting claim, all of them would query at once, and only one would find
it. A waiter that leaves with an unused wake-up wakes the next one.

The query of a waiter found no job. So if this process sees every job that becomes claimable, the
one that woke it is the oldest, and it need not query again.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from jobledger_server.domain.job import Job, Phase
from jobledger_server.store import Change, Claimable


class ClaimWaiter:
    """A claim that waits for a job."""

    def __init__(self) -> None:
        self.woken_for: str | None = None
        """The type of the job that it was woken for."""
        self.oldest: Claimable | None = None
        """That job, if no older one of its types can be claimed. None if that is not known."""
        self._woken = asyncio.Event()

    def wake(self, job_type: str | None, oldest: Claimable | None = None) -> None:
        self.woken_for, self.oldest = job_type, oldest
        self._woken.set()

    def reset(self) -> Claimable | None:
        """Clear the wake-up: the claim is about to query. Return `oldest`."""
        oldest = self.oldest
        self.woken_for = self.oldest = None
        self._woken.clear()
        return oldest

    async def wait(self, max_wait: float) -> bool:
        """Wait until it is woken, for at most `max_wait` seconds. Return whether it was."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max_wait):
                await self._woken.wait()
        return self._woken.is_set()


class ClaimWaiters:
    """The waiting claims, woken by changes that make a job claimable."""

    def __init__(self) -> None:
        self._waiters: dict[str, dict[ClaimWaiter, None]] = {}  # by job type, first come first
        self.sees_every_job = False
        """Whether no other server can make a job claimable."""
        self.announce: Callable[[], None] = lambda: None
        """Tells the other servers that jobs are ready which no claim here waits for."""
        self.ready_elsewhere = asyncio.Event()
        """Set when another server has said so."""
        self.draining = False
        self.drained = asyncio.Event()
        """Set when no waiter may wait any more."""
        self.waiting_claims = 0

    def observe(self, change: Change) -> None:
        """Receive a change; wake one waiter if its job is claimable now."""
        job = change.job
        if job.job_type not in self._waiters or change.deleted:
            return
        if job.phase is Phase.READY:
            self._wake_one(job.job_type, _claimable(job) if self.sees_every_job else None)

    def awaited(self) -> Mapping[str, int]:
        """Return by job type how many claims wait for it."""
        return {job_type: len(waiters) for job_type, waiters in self._waiters.items()}

    def wake(self, job_type: str, count: int) -> int:
        """Wake as many waiters: so many jobs of this type can be claimed.

        Returns:
            How many jobs are left that no claim here waits for.
        """
        for waiter in self._waiters.get(job_type, ()):
            if waiter.woken_for is not None:
                waiter.oldest = None  # It may get one of these jobs, too or instead.
            elif count:
                waiter.wake(job_type)
                count -= 1
        return count

    def offer(self, job_type: str, count: int) -> None:
        """Wake claims for jobs that were made ready here without a change, else other servers."""
        if self.wake(job_type, count):
            self.announce()

    def hand_on(self, job: Job) -> None:
        """Wake a claim for a job that waited for a free slot or for its time, else other servers.

        The claim takes this job without a query: when it queried, no job was ready.
        """
        if not self._wake_one(job.job_type, _claimable(job)):
            self.announce()

    @contextmanager
    def waiting(self, job_types: Collection[str]) -> Iterator[ClaimWaiter]:
        """Yield a waiter that is woken when there may be a job of one of these types.

        Enter the block before the first query, so that no job becomes claimable unseen.
        """
        waiter = ClaimWaiter()
        self.waiting_claims += 1
        for job_type in job_types:
            self._waiters.setdefault(job_type, {})[waiter] = None
        if self.draining:
            waiter.wake(None)
        try:
            yield waiter
        finally:
            self.waiting_claims -= 1
            self._remove(waiter, job_types)
            if waiter.woken_for is not None:
                self._wake_one(waiter.woken_for, waiter.oldest)

    def count(self, job_type: str) -> int:
        """Return how many claims wait for a job of this type."""
        return len(self._waiters.get(job_type, ()))

    def drain(self) -> None:
        """Wake every waiter, and let none wait from now on."""
        self.draining = True
        self.drained.set()
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.wake(None)

    def _wake_one(self, job_type: str, oldest: Claimable | None) -> bool:
        """Wake a waiter; return whether there was one to wake."""
        waiters = self._waiters.get(job_type, ())
        for waiter in waiters:
            if waiter.woken_for is None:
                waiter.wake(job_type, oldest)
                return True
        for waiter in waiters:  # Each may get this job, too or instead.
            waiter.oldest = None
        return False

    def _remove(self, waiter: ClaimWaiter, job_types: Collection[str]) -> None:
        for job_type in job_types:
            waiters = self._waiters[job_type]
            waiters.pop(waiter, None)
            if not waiters:
                del self._waiters[job_type]


def _claimable(job: Job) -> Claimable:
    size = job.content_bytes + job.payload_bytes
    return Claimable(job.id, job.job_type, size, job.priority, job.tenant)
