"""Updates and claims as calls, where no stream of Work gets through."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc

from jobledger.core.aio.client import AsyncClient
from jobledger.core.models import Asset, Job
from jobledger.core.retry import Backoff, is_transient
from jobledger.errors import DeadlineExceeded, JobledgerError, JobTerminal, MessageTooLarge
from jobledger.worker.lease import Lease
from jobledger.worker.outcomes import STATUSES, Finish, error_of
from jobledger.worker.slots import Slots
from jobledger.worker.throttle import Report
from jobledger.worker.updates import Reported

MAX_CLAIM: Final = 100
CLAIM_WAIT: Final = 20.0
"""Seconds that a claim waits for jobs."""

# How long a claim may still take when no more are to be made. After that it is cancelled: it waits
# for jobs to be created, and the service releases any that it finds at that moment.
LAST_CLAIM: Final = 0.25
LONGEST_PAUSE: Final = 5.0

_Answer = TypeVar("_Answer")

_logger = logging.getLogger("jobledger.worker")


class CallUpdates:
    """Sends each update as a call of its own.

    Args:
        client: makes the calls.
        worker_id: the worker's.
        patience: seconds that an update may take.
    """

    def __init__(self, client: AsyncClient, worker_id: str, patience: float) -> None:
        self.answered = False
        """Whether any call was answered, even with a refusal."""
        self._client = client
        self._worker_id = worker_id
        self._patience = patience
        self._failing = False

    async def report(self, job: Job, report: Report) -> Reported:
        answer = await self._sent(
            self._client.update_progress(
                job.id, report.progress, progress_message=report.message, attempt=job.attempt
            )
        )
        if answer.job.is_terminal:
            code = grpc.StatusCode.FAILED_PRECONDITION
            raise JobTerminal(f"it is {answer.job.status}", code=code)
        reason = answer.job.cancel_reason if answer.cancel_requested else None
        return Reported(answer.applied, reason)

    async def link(self, job: Job, asset: Asset, request_id: str) -> Asset:
        return await self._sent(
            self._client.create_asset(
                job.id,
                asset.asset_type,
                url=asset.url,
                storage_path=asset.storage_path,
                file_size=asset.file_size,
                attempt=job.attempt,
                request_id=request_id,
            )
        )

    async def finish(self, job: Job, outcome: Finish, last: Report) -> None:
        await self._sent(
            self._client.transition_job(
                job.id,
                STATUSES[type(outcome)],
                attempt=job.attempt,
                progress=last.progress,
                progress_message=last.message,
                result=outcome.result,
                error=error_of(outcome),
                assets=outcome.assets,
                worker_id=self._worker_id,
            )
        )

    async def release(self, job: Job) -> None:
        await self._sent(self._client.release_job(job.id, job.attempt))

    async def _sent(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            async with asyncio.timeout(self._patience):
                return await self._noted(call)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer within {self._patience:g} s", code=grpc.StatusCode.DEADLINE_EXCEEDED
            ) from None

    async def _noted(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            answer = await call
        except JobledgerError as error:
            self.answered |= not is_transient(error)
            raise
        self.answered = True
        return answer

    def recovered(self) -> None:
        """Log the end of an outage: claims, or the stream that replaces them, are answered."""
        if self._failing:
            self._failing = False
            _logger.warning("the service answers again")

    # --- claims -------------------------------------------------------------------------------

    async def claim(
        self,
        slots: Slots,
        lease: float,
        start: Callable[[Job, Lease], None],
        until: asyncio.Event,
    ) -> None:
        """Claim jobs for these slots whenever one is free, until an event. Raises JobledgerError.

        The slots have to be woken when the event is set.
        """
        backoff = Backoff(LONGEST_PAUSE)
        most = MAX_CLAIM
        while not until.is_set():
            if not (room := min(slots.free, most)):
                await slots.wait_for_change()
                continue
            try:
                await self._claim(slots, room, lease, start, until)
            except JobledgerError as error:
                if isinstance(error, MessageTooLarge):
                    # Its jobs are claimable again when their leases have expired.
                    most = max(1, room // 2)
                elif not is_transient(error):
                    raise
                pause = backoff.pause(error)
                level = logging.DEBUG if self._failing else logging.WARNING
                self._failing = True
                _logger.log(level, "claim failed (%s); trying until one succeeds", error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await until.wait()
            else:
                backoff.reset()
                self.recovered()

    async def _claim(
        self,
        slots: Slots,
        room: int,
        lease: float,
        start: Callable[[Job, Lease], None],
        until: asyncio.Event,
    ) -> None:
        sent = time.monotonic()
        claim = asyncio.ensure_future(
            self._noted(
                self._client.claim_jobs(
                    slots.job_types,
                    max_jobs=room,
                    lease_duration=lease,
                    wait=CLAIM_WAIT,
                    worker_id=self._worker_id,
                )
            )
        )
        ending = asyncio.ensure_future(until.wait())
        try:
            await asyncio.wait({claim, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not claim.done():
                await asyncio.wait({claim}, timeout=LAST_CLAIM)
        finally:
            ending.cancel()
            claim.cancel()
            await asyncio.wait({claim, ending})
        if not claim.cancelled():
            for job in claim.result():
                start(job, _granted(lease, sent))


def _granted(duration: float, sent: float) -> Lease:
    lease = Lease(duration, sent)
    answered = time.monotonic()
    if lease.renew_at <= answered:
        # The claim has waited for the job, and only the service knows when in that time
        # the lease began. So it is renewed at once.
        lease.renewed(answered)
        lease.renew_now()
    return lease
