"""One claimed job from its claim to its end: a handler, a lease, and one last call.

Two tasks run side by side. One runs the handler and knows nothing of the other,
which reports and renews the lease. Whichever way the handler ends, the job then
has exactly one ending: its outcome is written, it is given back, or, where it is
no longer this worker's, nothing at all is said.
"""

import asyncio
import enum
import logging
import math
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Job, JobStatus
from jobledger_client._async import AsyncClient
from jobledger_client._claimed import ClaimedJob
from jobledger_client._lease import Lease
from jobledger_client._outcome import (
    STATUSES,
    Completed,
    Failed,
    Outcome,
    clean_message,
    error_of,
    failure,
)
from jobledger_client._persist import GONE, Backoff, is_transient, is_unreachable, persist
from jobledger_client._reporter import Acknowledgement, Reporter
from jobledger_client._throttle import INTERVAL, Throttle
from jobledger_client._watch import TERMINAL_STATUSES
from jobledger_client.errors import JobledgerError

CLEAN_UP: Final = 10.0
"""Seconds that a handler has to tidy up when the worker stops, before it is told again."""

RELEASE: Final = 5.0
"""Seconds for which giving a job back is tried."""

MAX_PROGRESS_MESSAGE: Final = 512

_logger = logging.getLogger("jobledger_client.worker")

Function: TypeAlias = Callable[[ClaimedJob], Awaitable[Outcome | None]]


@dataclass(frozen=True, slots=True)
class Handler:
    """What runs for a type of job, and whether a cancellation is thrown into it."""

    function: Function
    cancellation_is_thrown: bool


class Stop(enum.IntEnum):
    """Why a handler has to stop; a later reason outweighs the ones before it."""

    NOT = 0
    CANCELLED = 1
    SHUTDOWN = 2
    LOST = 3


class GiveBack:
    """The ending of a job that is not done: its worker stops, or could not renew the lease."""


class JobRun:
    """Runs one job."""

    def __init__(
        self,
        client: AsyncClient,
        reporter: Reporter,
        job: Job,
        handler: Handler,
        lease: Lease,
        *,
        worker_id: str,
    ) -> None:
        self.job = job
        self.cancel_requested = False
        self.cancel_reason = ""
        self.stopped = Stop.NOT
        self.abandoned = False
        self._expired = False  # by this worker's own clock, and not by the service's word
        self._shut_down = False
        self._client = client
        self._reporter = reporter
        self._handler = handler
        self._lease = lease
        self._worker_id = worker_id
        self._throttle = Throttle(job.progress)
        self._news = asyncio.Event()
        self._handling: asyncio.Task[Outcome | None] | None = None
        self._insisting: asyncio.TimerHandle | None = None

    # --- what the worker does with it ---------------------------------------------------------

    async def run(self) -> None:
        """Run the job to its end. Being cancelled is a shutdown of this job, no way out of it."""
        self._handling = handling = asyncio.create_task(self._handle())
        keeping = asyncio.create_task(self._keep())
        if self.thrown:
            handling.cancel()
        try:
            await self._through(handling)
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
            if self._insisting is not None:
                self._insisting.cancel()
        ending = asyncio.create_task(self._end(self._conclude(handling)))
        await self._through(ending)
        ending.result()

    def shut_down(self) -> None:
        """Stop the handler, so that the job can be given back; insist after a while."""
        self._shut_down = True
        self._stop(Stop.SHUTDOWN)
        if self._insisting is None:
            self._insisting = asyncio.get_running_loop().call_later(CLEAN_UP, self._insist)

    # --- what the handler does with it --------------------------------------------------------

    @property
    def lost(self) -> bool:
        return self.stopped is Stop.LOST

    @property
    def thrown(self) -> Stop:
        """The reason that has been thrown into the handler."""
        if self.stopped is Stop.CANCELLED and not self._handler.cancellation_is_thrown:
            return Stop.NOT
        return self.stopped

    def report(self, progress: int | None, message: str | None) -> None:
        if message is not None:
            message = clean_message(message, MAX_PROGRESS_MESSAGE)
        self._throttle.offer(progress, message)
        self._news.set()

    async def link_asset(
        self, asset_type: str, url: str, storage_path: str, file_size: int
    ) -> Asset:
        request_id = str(uuid.uuid4())
        try:
            return await persist(
                lambda: self._client.create_asset(
                    self.job.id,
                    asset_type,
                    url=url,
                    storage_path=storage_path,
                    file_size=file_size,
                    attempt=self.job.attempt,
                    request_id=request_id,
                ),
                self._lease,
                self._lease.clock() + self._lease.duration,
            )
        except GONE as error:
            self._lose(str(error))
            raise asyncio.CancelledError from error

    # --- the handler --------------------------------------------------------------------------

    async def _handle(self) -> Outcome | None:
        try:
            outcome = await self._handler.function(ClaimedJob(self))
        except SystemExit as error:
            return failure(error)
        if not isinstance(outcome, Outcome | None):
            raise TypeError(
                f"the handler returned {type(outcome).__name__}, "
                "not Completed, Partial, Failed or None"
            )
        return outcome

    def _stop(self, why: Stop) -> None:
        if why <= self.stopped:
            return
        self.stopped = why
        if self.thrown and self._handling is not None:
            self._handling.cancel()

    def _lose(self, words: str) -> None:
        _logger.warning("%s is no longer this worker's: %s", self._name, words)
        self._stop(Stop.LOST)

    def _insist(self) -> None:
        self.abandoned = True
        _logger.warning("%s does not stop; telling it again", self._name)
        if self._handling is not None:
            self._handling.cancel()
        self._insisting = asyncio.get_running_loop().call_later(CLEAN_UP, self._insist)

    async def _through(self, task: "asyncio.Task[object]") -> None:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                self.shut_down()

    # --- reports and renewals -----------------------------------------------------------------

    async def _keep(self) -> None:
        """Report what is new and renew the lease, until it is lost or this is cancelled."""
        try:
            await self._keep_reporting()
        except Exception:
            _logger.exception("%s: a bug", self._name)
            self._lose("nothing renews it any more")

    async def _keep_reporting(self) -> None:
        backoff = Backoff(self._lease.longest_pause)
        not_before = 0.0
        while not self.lost:
            await self._until_due(not_before)
            if self._lease.over:
                self._expired = True
                self._lose("the lease ran out, and no renewal was answered in time")
                return
            sent = self._lease.clock()
            not_before = sent + INTERVAL
            report = self._throttle.pending
            try:
                answer = await self._reporter.report(self.job, report, self._lease)
                self._learn(answer, sent)
            except GONE as error:
                self._lose(str(error))
            except JobledgerError as error:
                not_before = self._lease.clock() + backoff.pause(error)
                if not is_transient(error) and report:
                    _logger.warning("%s: a report was refused: %s", self._name, error)
                    self._throttle.arrived(report)
            else:
                backoff.reset()
                self._throttle.arrived(report)

    def _learn(self, answer: Acknowledgement, sent: float) -> None:
        if answer.job.status in TERMINAL_STATUSES:
            self._lose(f"it ended as {JobStatus.Name(answer.job.status)}")
        elif answer.applied:
            self._lease.renewed(sent)
        else:
            # Late, and the lease is not renewed: say something that is not.
            self._lease.renew_now()
        if answer.cancel_requested and not self.cancel_requested and not self.lost:
            self.cancel_reason = answer.job.cancel_reason
            self.cancel_requested = True
            self._stop(Stop.CANCELLED)

    async def _until_due(self, not_before: float) -> None:
        while True:
            now = self._lease.clock()
            due = now if self._throttle.pending else self._lease.renew_at
            due = min(max(due, not_before), self._lease.deadline)
            if now >= due:
                return
            self._news.clear()
            try:
                async with asyncio.timeout(due - now):
                    await self._news.wait()
            except TimeoutError:
                return

    # --- the end ------------------------------------------------------------------------------

    def _conclude(self, handling: "asyncio.Task[Outcome | None]") -> Outcome | GiveBack | None:
        """Decide how the job ends; None: it is not this worker's to end."""
        error: BaseException | None = asyncio.CancelledError()
        outcome = None
        if not handling.cancelled():
            error = handling.exception()
            outcome = handling.result() if error is None else None
        if self.lost:
            return GiveBack() if self._expired else None
        if outcome is not None:
            return outcome
        if self.cancel_requested:
            return Failed(self.cancel_reason or "cancelled", "CANCELLED")
        if error is None:
            return Completed()
        if self.stopped is Stop.SHUTDOWN:
            return GiveBack()
        _logger.error("%s failed", self._name, exc_info=error)
        return failure(error)

    async def _end(self, ending: Outcome | GiveBack | None) -> None:
        try:
            match ending:
                case None:
                    return
                case GiveBack():
                    await self._give_back()
                case _:
                    await self._write(ending)
        except GONE as error:
            _logger.warning("%s: its end came too late: %s", self._name, error)
        except JobledgerError as error:
            _logger.error("%s: could not be ended: %s", self._name, error)  # noqa: TRY400
        except Exception:
            _logger.exception("%s: could not be ended", self._name)

    async def _write(self, outcome: Outcome) -> None:
        try:
            await self._transition(outcome)
        except GONE:
            raise
        except (ValueError, TypeError) as error:
            # No request could be built: the handler's values are no JSON.
            await self._transition(failure(error))
        except JobledgerError as error:
            if is_transient(error):
                raise
            words = f"the outcome was refused: {error}"
            await self._transition(Failed(words, error.reason or error.code.name))

    async def _transition(self, outcome: Outcome) -> None:
        assets = list(outcome.assets)
        details = error_of(outcome)
        await persist(
            lambda: self._client.transition_job(
                self.job.id,
                STATUSES[type(outcome)],
                attempt=self.job.attempt,
                # What the handler said last arrives with its end, if not before.
                progress=self._throttle.pending.progress,
                progress_message=self._throttle.pending.message,
                result=outcome.result,
                error=details,
                assets=assets,
                worker_id=self._worker_id,
            ),
            self._lease,
            self._last_try,
        )
        _logger.info("%s: %s", self._name, type(outcome).__name__)

    async def _give_back(self) -> None:
        until = min(self._lease.clock() + RELEASE, self._lease.deadline)
        await persist(
            lambda: self._client.release_job(self.job.id, self.job.attempt),
            self._lease,
            self._last_try if self._expired else until,
        )
        _logger.info("%s: given back", self._name)

    def _last_try(self, error: JobledgerError) -> float:
        """Return until when the last call is tried: in an outage for as long as the worker runs.

        The service extends the leases that expire in an outage, so the job may still be
        this worker's after it; the fence decides.
        """
        if is_unreachable(error) and not self._shut_down:
            return math.inf
        return self._lease.deadline

    @property
    def _name(self) -> str:
        return f"job {self.job.id} ({self.job.job_type}, attempt {self.job.attempt})"
