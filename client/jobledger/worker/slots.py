"""How many jobs of which types a worker can run at once, and the jobs that it runs."""

import asyncio
from collections.abc import Callable
from typing import Final

from jobledger.core.models import Job
from jobledger.worker.runner import JobRun

MAX_SLOTS: Final = 1000
"""Jobs that a stream can have, and that `hello` can name."""


class Slots:
    """The slots of some job types.

    A type with a limit has slots and claims of its own: a claim that waits for other types would
    not name it when a slot of it becomes free.

    Args:
        size: how many jobs at once.
        on_free: called when a slot is free again.
    """

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self.job_types: list[str] = []
        self.runs: dict[tuple[str, int], JobRun] = {}
        """By the job's id and the attempt."""
        self._size = size
        self._on_free = on_free
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        """How many jobs may be claimed."""
        return max(0, self._size - len(self.runs))

    @property
    def usable(self) -> int:
        """How many jobs the service may push, those that the worker holds included.

        A handler whose job is lost, and which has not returned, takes up a slot of its own.
        """
        return self._size - sum(run.lost and run.is_handled for run in self.runs.values())

    @property
    def is_full(self) -> bool:
        """Whether each slot has a handler that has not returned."""
        return sum(run.is_handled for run in self.runs.values()) >= self._size

    def held(self) -> list[Job]:
        """Return the jobs that are this worker's."""
        return [run.job for run in self.runs.values() if not run.lost]

    async def wait_for_change(self) -> None:
        """Wait until a slot is free, or `wake` is called."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """End the waits for a change."""
        self._changed.set()

    def fill(self, run: JobRun) -> None:
        """Use a slot for a job."""
        self.runs[run.job.id, run.job.attempt] = run

    def release(self, run: JobRun) -> None:
        """Take note that a job is done."""
        del self.runs[run.job.id, run.job.attempt]
        self.wake()
        self._on_free()
