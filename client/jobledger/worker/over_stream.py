"""Updates over a stream of Work."""

from jobledger.core.job_updates import (
    asset_update,
    finish_update,
    progress_update,
    release_update,
)
from jobledger.core.models import Asset, Job
from jobledger.core.work_stream import WorkStream
from jobledger.worker.outcomes import STATUSES, Finish, error_of
from jobledger.worker.throttle import Report
from jobledger.worker.updates import Reported


class StreamUpdates:
    """Sends updates over a stream. Cancellations and lost leases come as its signals."""

    def __init__(self, stream: WorkStream) -> None:
        self._stream = stream

    async def report(self, job: Job, report: Report) -> Reported:
        update = progress_update(job, report.progress, report.message)
        return Reported((await self._stream.send(update)).applied)

    async def link(self, job: Job, asset: Asset, request_id: str) -> Asset:
        result = await self._stream.send(asset_update(job, asset, request_id))
        return Asset.from_proto(result.asset)

    async def finish(self, job: Job, outcome: Finish, last: Report) -> None:
        finish = finish_update(
            job,
            STATUSES[type(outcome)],
            result=outcome.result,
            error=error_of(outcome),
            assets=outcome.assets,
        )
        before = [progress_update(job, last.progress, last.message)] if last else []
        await self._stream.send(*before, finish)

    async def release(self, job: Job) -> None:
        await self._stream.send(release_update(job))
