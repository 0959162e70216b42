"""What is sent of one job: progress, assets, its outcome, and renewals of its lease."""

import asyncio
import itertools
import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

import grpc

from jobledger.core.aio.client import AsyncClient
from jobledger.core.models import Asset, Job
from jobledger.core.new_job import NewJob
from jobledger.core.retry import Backoff, is_transient, is_unreachable, wait_at_most
from jobledger.errors import DeadlineExceeded, JobledgerError
from jobledger.v1.worker_service_pb2 import JobUpdate, UpdateResult
from jobledger.worker.failures import failure
from jobledger.worker.job import Stop, log_name
from jobledger.worker.outcomes import Failed, Finish, Outcome, Release, clean_message, summary
from jobledger.worker.session.job_output import JobOutput
from jobledger.worker.session.lease import GONE, Lease
from jobledger.worker.session.messages import (
    asset_update,
    finish_update,
    progress_update,
    release_update,
)
from jobledger.worker.session.reports import PendingReport, Report
from jobledger.worker.session.work_stream import WorkStream

INTERVAL: Final = 0.1
"""Seconds between two reports of one job."""

ASK: Final = 1.0
"""Seconds that `progress()` waits for an answer."""

MAX_PROGRESS_MESSAGE: Final = 512

MAX_RELEASE_WAIT: Final = 2.0
"""Seconds that a job which is released waits for output that the service refuses for now."""

_logger = logging.getLogger("jobledger.worker")


class JobUpdates:
    """Sends the updates of one job.

    Args:
        job: as it was claimed.
        lease: as it was granted.
        stream: carries the updates.
        output: what the handler writes.
        on_lost: called if the job is no longer this worker's.
        blocked: says that the event loop was blocked, for the log, if it was.
    """

    def __init__(
        self,
        job: Job,
        lease: Lease,
        stream: WorkStream,
        output: JobOutput,
        *,
        on_lost: Callable[[Stop, str], None],
        blocked: Callable[[], str] = str,
        client: AsyncClient | None = None,
    ) -> None:
        self.lease = lease
        self.accepted: Outcome | None = None
        """The outcome, once the service has accepted it."""
        self.output = output
        """What the handler writes."""
        self._job = job
        self._stream = stream
        self._on_lost = on_lost
        self._blocked = blocked
        self._client = client
        self._pending = PendingReport(job.progress)
        self._numbers = itertools.count(1)
        self._made = lease.clock()
        self._to_report = asyncio.Event()
        self._next_report = 0.0  # the earliest, by the lease's clock
        self._next_try = 0.0
        # Done when the report that is under way, or was asked for, has its answer: its refusal, or
        # None.
        self._asked: asyncio.Future[JobledgerError | None] | None = None

    # --- for the handler ----------------------------------------------------------------------

    def report(
        self, progress: int | None, message: str | None, checkpoint: dict[str, Any] | None = None
    ) -> None:
        """Send this soon, unless something newer comes first."""
        if message is not None:
            message = clean_message(message, MAX_PROGRESS_MESSAGE)
        self._pending.add(progress, message, checkpoint)
        self._to_report.set()

    async def ask(self) -> None:
        """Wait for the answer to a report: to one under way, or one that is sent for this.

        If the last answer is new enough, or the last report was refused, nothing is sent.
        """
        now = self.lease.clock()
        if self._asked is not None or now >= max(self._next_report, self._next_try):
            await asyncio.wait({self._ask()}, timeout=ASK)

    async def deliver(self) -> bool:
        """Send at once what was reported; return whether all of it is committed.

        Raises:
            JobledgerError: a report was refused.
        """
        if self._pending.report:
            asked = self._ask()
            await asyncio.wait({asked})
            if (refusal := asked.result()) is not None:
                raise refusal
        return not self._pending.report

    async def create_child(self, job: NewJob) -> Job:
        """Create a job of the same owner.

        Raises:
            JobledgerError: it was refused, or no server answered.
        """
        assert self._client is not None  # noqa: S101  # a session has one
        (child,) = await self._client.create_jobs([job], user_id=self._job.user_id)
        return child

    async def link_asset(self, asset: Asset) -> Asset:
        """Link an asset, once."""
        update = asset_update(self._job, asset, str(uuid.uuid4()))
        try:
            async with asyncio.timeout(self.lease.duration):
                await self.output.settle(self.lease.duration)
                result = await self._send(update)
        except GONE as error:
            self._on_lost(Stop.LOST, str(error))
            # In the handler's own task, which that cancels, this raises: once, or the next error
            # would interrupt what the handler does to clean up.
            await asyncio.sleep(0)
            raise asyncio.CancelledError from error
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer within {self.lease.duration:g} s",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from None
        return Asset.from_proto(result.asset)

    def _ask(self) -> "asyncio.Future[JobledgerError | None]":
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._to_report.set()
        return self._asked

    # --- reports and renewals -----------------------------------------------------------------

    async def renew_lease(self) -> None:
        """Report what is new and renew the lease, until it is lost or this is cancelled."""
        self.lease.waited(self._made)  # a handler may block from its first line on
        try:
            await self._report_until_lost()
        finally:
            self._answered()

    async def _report_until_lost(self) -> None:
        backoff = Backoff(self.lease.longest_pause)
        while True:
            await self._until_due()
            if self.lease.over:
                why = "the lease expired, and no renewal was answered in time"
                self._on_lost(Stop.EXPIRED, why)
                return
            report, refusal = self._pending.report, None
            if report and not await self.output.settle(self.lease.renew_at - self.lease.clock()):
                report = Report()  # it comes after the output that was written before it
            sent = self.lease.clock()
            self._next_report = sent + INTERVAL
            self._ask()
            try:
                async with asyncio.timeout(self.lease.renewal_timeout):
                    result = await self._stream.send(self._progress_update(report))
            except GONE as error:
                self._on_lost(Stop.LOST, str(error))
                return
            except JobledgerError as error:
                self._next_try = self.lease.clock() + backoff.pause(error)
                if not is_transient(error) and report:
                    _logger.warning("%s: a report was refused: %s", log_name(self._job), error)
                    self._pending.committed(report)
                    refusal = error
            except TimeoutError:
                pass  # the lease is over, unless something else has renewed it
            else:
                if not result.applied:
                    self._on_lost(Stop.LOST, "it is terminal")
                    return
                backoff.reset()
                self._pending.committed(report)
                self.lease.renewed(sent)
            self._answered(refusal)

    def _answered(self, refusal: JobledgerError | None = None) -> None:
        if self._asked is not None:
            self._asked.set_result(refusal)
            self._asked = None

    def _progress_update(self, report: Report) -> JobUpdate:
        number = next(self._numbers) if report else 0  # 0: a renewal of the lease
        return progress_update(self._job, report, number)

    async def _until_due(self) -> None:
        while True:
            now = self.lease.clock()
            due = self._next_try
            if self._asked is None:
                due = max(due, self._next_report)
                if not self._pending.report:
                    due = max(due, self.lease.renew_at)
            due = min(due, self.lease.deadline)
            if now >= due:
                return
            self._to_report.clear()
            try:
                # During the wait an answer to another job's update may renew the lease.
                await wait_at_most(due - now, self._to_report)
            finally:
                self.lease.waited(due)

    # --- the outcome --------------------------------------------------------------------------

    async def send_outcome(self, outcome: Outcome) -> None:
        """Finish the job, or release it: tried until this is cancelled.

        The service extends leases that expire in an outage, so the job may still be this worker's
        after it; the service decides by the attempt.
        """
        name = log_name(self._job)
        try:
            is_released = isinstance(outcome, Release)
            await self.output.end(MAX_RELEASE_WAIT if is_released else self.lease.duration)
            if isinstance(outcome, Release):
                await self._send(*self._last_report(), release_update(self._job, outcome))
                self.accepted = outcome
                _logger.info("%s: released", name)
            else:
                self.accepted = finished = await self._finish(outcome)
                _logger.info("%s: %s", name, summary(finished))
        except GONE as error:
            why = f"{error}{self._blocked()}"
            _logger.warning("%s: its outcome came too late: %s", name, why)
        except JobledgerError as error:
            _logger.error("%s: could not be finished: %s", name, error)  # noqa: TRY400

    async def _finish(self, outcome: Finish) -> Finish:
        """Finish the job, as FAILED if the outcome is refused; return how it finished."""
        try:
            update = finish_update(self._job, outcome)
        except (TypeError, ValueError) as error:
            # It was changed after it was returned.
            _logger.exception("%s: its outcome cannot be sent", log_name(self._job))
            outcome = failure(error)
            update = finish_update(self._job, outcome)
        try:
            await self._send(*self._last_report(), update)
        except JobledgerError as error:
            if isinstance(error, GONE) or is_transient(error):
                raise
            text = clean_message(f"the outcome was refused: {error}")
            outcome = Failed(text, error.reason or error.code.name)
            await self._send(finish_update(self._job, outcome))
        return outcome

    def _last_report(self) -> list[JobUpdate]:
        """Return what the handler reported last, to arrive with its outcome if not before."""
        report = self._pending.report
        return [self._progress_update(report)] if report else []

    async def _send(self, *updates: JobUpdate) -> UpdateResult:
        """Send updates until the last one is accepted.

        Raises:
            JobledgerError: a refusal that will not change, or did not for as long as a lease lasts
                although the service can be reached.
        """
        backoff = Backoff(self.lease.longest_pause)
        limit = self.lease.clock() + self.lease.duration
        while True:
            try:
                return await self._stream.send(*updates)
            except JobledgerError as error:
                if not is_transient(error):
                    raise
                pause = backoff.pause(error)
                if not is_unreachable(error) and self.lease.clock() + pause > limit:
                    raise
            await asyncio.sleep(pause)
