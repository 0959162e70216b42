"""One claimed job from its claim to its last call: a handler, a lease, and its reports.

Two tasks run side by side. One runs the handler and knows nothing of the other, which reports, and
renews the lease where nothing else has. However the handler returns, the job then has exactly one
outcome: it is finished, it is released, or, if it is no longer this worker's, nothing is sent.
"""

import asyncio
import contextlib
import logging
import uuid
from typing import Any, Final, Protocol

from jobledger.core.models import Asset, Job
from jobledger.core.retry import Backoff, is_transient
from jobledger.errors import JobledgerError
from jobledger.worker.context import Stop
from jobledger.worker.handlers import Handler
from jobledger.worker.handling import Handling
from jobledger.worker.lease import Lease
from jobledger.worker.lease_calls import GONE, last_try, persist, release
from jobledger.worker.outcomes import (
    Failed,
    Finish,
    Outcome,
    Release,
    clean_message,
    failure,
    summary,
)
from jobledger.worker.throttle import INTERVAL, Throttle
from jobledger.worker.updates import Reported, Updates

ASK: Final = 1.0
"""Seconds that `progress()` waits for an answer."""

MAX_PROGRESS_MESSAGE: Final = 512

_logger = logging.getLogger("jobledger.worker")


class Sender(Protocol):
    """Where a job runs."""

    @property
    def updates(self) -> Updates:
        """How updates are sent at present."""


class JobRun:
    """Runs one job.

    Args:
        sender: knows how updates are sent at present.
        job: as it was claimed.
        handler: of its type.
        lease: as it was granted.
        state: what the worker's lifespan yielded.
    """

    def __init__(
        self, sender: Sender, job: Job, handler: Handler, lease: Lease, *, state: Any = None
    ) -> None:
        self.job = job
        self.lease = lease
        self.is_handled = True
        """Whether the handler has not returned."""
        self._expired = False  # by this worker's own clock; the service did not say so
        self._shut_down = False
        self._sender = sender
        self._handling = Handling(job, handler, self, state)
        self._throttle = Throttle(job.progress)
        self._to_report = asyncio.Event()
        self._throttled_until = self._failing_until = 0.0
        # Done when the report that is under way, or was asked for, has its answer.
        self._asked: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Run the job to its outcome. Cancelling this call shuts down the job."""
        _logger.info("%s: claimed", self._name)
        handling = self._handling.start()
        keeping = asyncio.create_task(self._keep())
        try:
            await self._through(handling)
        finally:
            self.is_handled = False
            self._handling.close()
            keeping.cancel()
            await asyncio.wait({keeping})
        sending = asyncio.create_task(self._send(self._conclude()))
        await self._through(sending)
        sending.result()

    def shut_down(self) -> None:
        """Stop the handler, so that the job can be released; insist after a while."""
        self._shut_down = True
        self._handling.stop(Stop.SHUTDOWN)

    @property
    def lost(self) -> bool:
        """Whether the job is no longer this worker's."""
        return self._handling.lost

    def lose(self, why: str) -> None:
        """Stop the handler, and send nothing: the job is no longer this worker's.

        If the handler has returned, the answer to its outcome decides.
        """
        if self.is_handled:
            _logger.warning("%s is no longer this worker's: %s", self._name, why)
            self._handling.stop(Stop.LOST)

    def cancel(self, reason: str) -> None:
        """Pass a requested cancellation on to the handler."""
        self._handling.cancel(reason)

    # --- what the handler reports -------------------------------------------------------------

    def report(self, progress: int | None, message: str | None) -> None:
        """Send this soon, unless something newer comes first."""
        if message is not None:
            message = clean_message(message, MAX_PROGRESS_MESSAGE)
        self._throttle.offer(progress, message)
        self._to_report.set()

    async def ask(self) -> None:
        """Wait for the answer to a report: to one under way, or one that is sent for this.

        If the last answer is new enough, or the service unavailable, nothing is sent.
        """
        now = self.lease.clock()
        if self._asked is None and (
            self._handling.lost or now < max(self._throttled_until, self._failing_until)
        ):
            return
        await asyncio.wait({self._ask()}, timeout=ASK)

    async def deliver(self) -> None:
        """Wait until what was reported is committed, unless the handler has to stop.

        The report does not wait for the next tenth of a second.
        """
        while self._throttle.pending and not self._handling.thrown:
            await asyncio.wait({self._ask()})

    async def link_asset(self, asset: Asset) -> Asset:
        """Link an asset, once."""
        request_id = str(uuid.uuid4())
        try:
            return await persist(
                lambda: self._sender.updates.link(self.job, asset, request_id),
                self.lease,
                self.lease.clock() + self.lease.duration,
            )
        except GONE as error:
            self.lose(str(error))
            raise asyncio.CancelledError from error

    # ------------------------------------------------------------------------------------------

    async def _through(self, task: "asyncio.Task[Any]") -> None:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                self.shut_down()

    def _ask(self) -> "asyncio.Future[None]":
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._to_report.set()
        return self._asked

    # --- reports and renewals -----------------------------------------------------------------

    async def _keep(self) -> None:
        """Report what is new and renew the lease, until it is lost or this is cancelled."""
        try:
            await self._keep_reporting()
        except Exception:
            _logger.exception("%s: a bug", self._name)
            self.lose("its lease is no longer renewed")
        finally:
            self._answered()

    async def _keep_reporting(self) -> None:
        backoff = Backoff(self.lease.longest_pause)
        while not self._handling.lost:
            await self._until_due()
            if self.lease.over:
                self._expired = True
                self.lose("the lease expired, and no renewal was answered in time")
                return
            sent = self.lease.clock()
            self._throttled_until = sent + INTERVAL
            report = self._throttle.pending
            self._ask()
            try:
                async with asyncio.timeout(self.lease.renewal_timeout):
                    answer = await self._sender.updates.report(self.job, report)
                self._learn(answer, sent)
            except GONE as error:
                self.lose(str(error))
            except JobledgerError as error:
                self._failing_until = self.lease.clock() + backoff.pause(error)
                if not is_transient(error) and report:
                    _logger.warning("%s: a report was refused: %s", self._name, error)
                    self._throttle.arrived(report)
            except TimeoutError:
                pass  # the lease is over, unless something else has renewed it
            else:
                backoff.reset()
                self._throttle.arrived(report)
            self._answered()

    def _answered(self) -> None:
        if self._asked is not None:
            self._asked.set_result(None)
            self._asked = None

    def _learn(self, answer: Reported, sent: float) -> None:
        if answer.applied:
            self.lease.renewed(sent)
        else:
            # Late, and the lease is not renewed: send one that is not.
            self.lease.renew_now()
        if answer.cancel_reason is not None:
            self.cancel(answer.cancel_reason)

    async def _until_due(self) -> None:
        while True:
            now = self.lease.clock()
            if self._asked is not None:
                due = self._failing_until
            elif self._throttle.pending:
                due = max(self._throttled_until, self._failing_until)
            else:
                due = max(self.lease.renew_at, self._failing_until)
            due = min(due, self.lease.deadline)
            if now >= due:
                return
            self._to_report.clear()
            # During the wait an answer to another job's update may renew the lease.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due - now):
                    await self._to_report.wait()

    # --- the outcome --------------------------------------------------------------------------

    def _conclude(self) -> Outcome | None:
        """Return how the job finishes; None if it is no longer this worker's."""
        if self._handling.lost:
            return Release() if self._expired else None
        outcome = self._handling.conclude()
        if (error := self._handling.raised) is not None:
            _logger.error("%s failed", self._name, exc_info=error)
        return outcome

    async def _send(self, outcome: Outcome | None) -> None:
        try:
            match outcome:
                case None:
                    return
                case Release():
                    await self._release()
                case _:
                    await self._finish(outcome)
        except GONE as error:
            _logger.warning("%s: its outcome came too late: %s", self._name, error)
        except JobledgerError as error:
            _logger.error("%s: could not be finished: %s", self._name, error)  # noqa: TRY400

    async def _finish(self, outcome: Finish) -> None:
        try:
            await self._transition(outcome)
        except JobledgerError as error:
            if isinstance(error, GONE) or is_transient(error):
                raise
            text = f"the outcome was refused: {error}"
            await self._transition(Failed(clean_message(text), error.reason or error.code.name))
        except Exception as error:
            # It cannot be sent: it was changed after it was returned.
            _logger.exception("%s: its outcome cannot be sent", self._name)
            await self._transition(failure(error))

    async def _transition(self, outcome: Finish) -> None:
        await persist(
            # What the handler reported last arrives with its outcome, if not before.
            lambda: self._sender.updates.finish(self.job, outcome, self._throttle.pending),
            self.lease,
            lambda error: last_try(error, self.lease, stopping=self._shut_down),
        )
        _logger.info("%s: %s", self._name, summary(outcome))

    async def _release(self) -> None:
        await release(
            lambda: self._sender.updates.release(self.job), self.lease, lambda: self._shut_down
        )
        _logger.info("%s: released", self._name)

    @property
    def _name(self) -> str:
        return f"job {self.job.id} ({self.job.job_type}, attempt {self.job.attempt})"
