"""What a worker sends about its jobs, over a stream or as calls."""

from typing import NamedTuple, Protocol

from jobledger.core.models import Asset, Job
from jobledger.worker.outcomes import Finish
from jobledger.worker.throttle import Report


class Reported(NamedTuple):
    """What became of a report."""

    applied: bool
    """False if it was late: progress is higher already."""
    cancel_reason: str | None = None
    """Why cancellation was requested, if that is known from the answer."""


class Updates(Protocol):
    """Sends each update once, and returns after its commit. All raise JobledgerError."""

    async def report(self, job: Job, report: Report) -> Reported:
        """Report progress, or send a heartbeat: both renew the lease."""

    async def link(self, job: Job, asset: Asset, request_id: str) -> Asset:
        """Link an asset."""

    async def finish(self, job: Job, outcome: Finish, last: Report) -> None:
        """Finish a job, with what was reported last and has not arrived."""

    async def release(self, job: Job) -> None:
        """Release a job."""
