"""How many jobs of which types a worker can run at once, and the jobs that it runs."""

import asyncio
from collections.abc import Callable
from typing import Final

from jobledger.worker.runner import JobRun

MAX_CLAIM: Final = 100


class Slots:
    """The slots of some job types. A claim asks for no more jobs than there are free ones.

    Args:
        size: how many jobs at once.
        on_free: called when a slot is free again.
    """

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self.job_types: list[str] = []
        self.runs: set[JobRun] = set()
        self._size = size
        self._on_free = on_free
        self._changed = asyncio.Event()
        self._most = MAX_CLAIM

    @property
    def room(self) -> int:
        """How many jobs the next claim may ask for."""
        return max(0, min(self._size - len(self.runs), self._most))

    async def wait_for_room(self) -> None:
        """Wait until a slot is free, or `wake` is called."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """End the waits for room."""
        self._changed.set()

    def fill(self, run: JobRun) -> None:
        """Use a slot for a job."""
        self.runs.add(run)

    def free(self, run: JobRun) -> None:
        """Take note that a job is done."""
        self.runs.discard(run)
        self.wake()
        self._on_free()

    def claim_less(self, asked: int) -> None:
        """Take note that the answer to a claim of this many jobs was too large."""
        self._most = max(1, asked // 2)
