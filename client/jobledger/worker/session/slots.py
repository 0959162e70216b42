"""How many jobs of which types a worker can run at once, and the jobs that it runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from jobledger.core.models import Job
from jobledger.worker.handlers.job_run import JobRun
from jobledger.worker.session.lease import Lease

if TYPE_CHECKING:
    import asyncio

MAX_SLOTS: Final = 1000
"""Jobs that a stream can have, and that `hello` can name."""


class Slots:
    """The slots of some job types.

    A type with a limit has slots of its own, and so a stream: the slots of a stream are for any of
    the types that its `hello` names.

    Args:
        size: how many jobs at once.
        on_free: called when a slot is free again.
    """

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self.job_types: list[str] = []
        self.runs: dict[tuple[str, int], JobRun] = {}
        """By the job's id and the attempt."""
        self._leases: dict[tuple[str, int], Lease] = {}
        self._left: set[asyncio.Future[Any]] = set()
        self.size = size
        """How many jobs at once."""
        self.last_message = 0.0
        """When the stream brought its last message, or began, by the event loop's clock."""
        self._on_free = on_free

    @property
    def usable(self) -> int:
        """How many jobs the service may push, those that the worker holds included.

        A handler whose job is lost, and which has not returned, takes up a slot of its own. So does
        a thread that was left behind.
        """
        lost = sum(run.lost and run.is_handled for run in self.runs.values())
        return self.size - lost - len(self._left)

    @property
    def busy(self) -> int:
        """How many slots have a handler that has not returned."""
        return sum(run.is_handled for run in self.runs.values())

    @property
    def stuck(self) -> int:
        """How many slots have a handler that goes on although its job is over."""
        return len(self._left) + sum(run.is_stuck for run in self.runs.values())

    @property
    def is_full(self) -> bool:
        """Whether each slot has a handler that has not returned, or a thread left behind."""
        return self.busy + len(self._left) >= self.size

    def held(self) -> list[Job]:
        """Return the jobs that are this worker's."""
        return [run.job for run in self.runs.values() if not run.lost]

    def renew_leases(self, sent: float) -> None:
        """Take note that the service has read a message that was sent at this time."""
        for lease in self._leases.values():
            lease.renewed(sent)

    def lease_of(self, run: JobRun) -> Lease:
        """Return the lease of a job that is not released."""
        return self._leases[run.job.id, run.job.attempt]

    def fill(self, run: JobRun, lease: Lease) -> None:
        """Use a slot for a job."""
        self.runs[run.job.id, run.job.attempt] = run
        self._leases[run.job.id, run.job.attempt] = lease

    def keep(self, thread: "asyncio.Future[Any]") -> None:
        """Have a thread that was left behind use a slot until its end."""
        self._left.add(thread)
        thread.add_done_callback(self._left.discard)

    def release(self, run: JobRun) -> None:
        """Take note that a job is done."""
        del self.runs[run.job.id, run.job.attempt]
        del self._leases[run.job.id, run.job.attempt]
        self._on_free()
