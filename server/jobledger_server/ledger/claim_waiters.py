"""Openings: wakes those who wait for work when there is some.

One who waits is woken for each job that comes to wait for a worker: all of them
would ask at once, and all but one in vain. Who is woken and does not ask after
all passes it on.
"""

import asyncio
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from jobledger_server.domain.state_machine import waits
from jobledger_server.store import Change

LOOK_SECONDS = 5.0
"""Who waits asks again so often even if not woken: a claim elsewhere may have been undone."""


class Seeker:
    """One who waits for work."""

    def __init__(self) -> None:
        self.woken_for: str | None = None
        self._woken = asyncio.Event()

    def wake(self, job_type: str | None) -> None:
        self.woken_for = job_type
        self._woken.set()

    def rest(self) -> None:
        """Forget having been woken, as one does who asks now."""
        self.woken_for = None
        self._woken.clear()

    async def wait(self, patience: float) -> None:
        """Return when woken, or after some seconds: `patience`, or when it is time for a look."""
        look = LOOK_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311
        try:
            async with asyncio.timeout(min(patience, look)):
                await self._woken.wait()
        except TimeoutError:
            pass


class Openings:
    """Where changes that leave a job waiting meet those who seek one, in one event loop."""

    def __init__(self) -> None:
        self._seekers: dict[str, dict[Seeker, None]] = {}  # in the order of their coming
        self.draining = False

    def observe(self, change: Change) -> None:
        """Take a change of a job; wake somebody if the job waits for a worker now."""
        if not change.deleted and waits(change.job):
            self._wake_one(change.job.job_type)

    @contextmanager
    def seeking(self, job_types: Collection[str]) -> Iterator[Seeker]:
        """Be woken in the block if there is a job of one of these types.

        Begin to seek before asking for a job, so that none slips through between.
        """
        seeker = Seeker()
        for job_type in job_types:
            self._seekers.setdefault(job_type, {})[seeker] = None
        if self.draining:
            seeker.wake(None)
        try:
            yield seeker
        finally:
            self._forget(seeker, job_types)
            if seeker.woken_for is not None:
                self._wake_one(seeker.woken_for)

    def waiters(self, job_type: str) -> int:
        """Return how many wait for a job of this type."""
        return len(self._seekers.get(job_type, ()))

    def drain(self) -> None:
        """Wake everybody, and let nobody wait any more."""
        self.draining = True
        for seekers in self._seekers.values():
            for seeker in seekers:
                seeker.wake(None)

    def _wake_one(self, job_type: str) -> None:
        for seeker in self._seekers.get(job_type, ()):
            if seeker.woken_for is None:
                seeker.wake(job_type)
                return

    def _forget(self, seeker: Seeker, job_types: Collection[str]) -> None:
        for job_type in job_types:
            seekers = self._seekers[job_type]
            seekers.pop(seeker, None)
            if not seekers:
                del self._seekers[job_type]
