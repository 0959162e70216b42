"""One claimed job, from the start of its handler to its outcome.

However the handler returns, the job has exactly one outcome: it is finished, it is released, or,
if it is no longer this worker's, nothing is sent.
"""

import asyncio
import contextlib
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Final, cast

from jobledger.core.models import Job
from jobledger.worker.failures import RetryLater, failure
from jobledger.worker.handlers.handler import Handler
from jobledger.worker.handlers.parameters import InvalidParameters
from jobledger.worker.handlers.task_handlers import InvalidResult
from jobledger.worker.handlers.tracing import continued_trace
from jobledger.worker.job import ClaimedJob, RunState, Stop, Updates, log_name
from jobledger.worker.outcomes import Completed, Failed, Outcome, Release
from jobledger.worker.output import WRITER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

CLEAN_UP: Final = 10.0
"""Seconds that a handler has to clean up before it is cancelled again."""

LAST: Final = 0.1
"""The part of it after which a handler that ignored a second cancellation is ended."""

SENDING: Final = 0.5
"""The part of it for which a worker that stops tries to send an outcome."""

_logger = logging.getLogger("jobledger.worker")


class JobRun:
    """Runs the handler of one job, and stops it if it has to.

    Args:
        job: as it was claimed.
        handler: of the job's type.
        state: what the worker's lifespan yielded.
        clean_up: seconds that a handler has to clean up before it is cancelled again.
        on_stuck: called when the handler goes on although its job is over.
    """

    def __init__(
        self,
        job: Job,
        handler: Handler,
        state: Any = None,
        *,
        clean_up: float = CLEAN_UP,
        on_stuck: "Callable[[], object]" = lambda: None,
    ) -> None:
        self.job = job
        self.raised: BaseException | None = None
        """What the handler raised, if that made the job FAILED."""
        self._name = log_name(job)
        self._handler = handler
        self._lifespan_state = state
        self._clean_up = clean_up
        self._on_stuck = on_stuck
        self._state = RunState(raises_cancellation=handler.raises_cancellation)
        self._cancelled = False
        self._context = contextvars.copy_context()
        self._running: asyncio.Task[Outcome | None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def run(self, updates: Updates) -> None:
        """Run the job to its outcome. Cancelling this call shuts the job down first."""
        self._running = asyncio.create_task(self._handle(updates), context=self._context)
        if self._state.raised:
            self._running.cancel()
        if self._handler.timeout is not None:
            self._later("timeout", self._handler.timeout, lambda: self._stop(Stop.TIMED_OUT))
        renewing = asyncio.create_task(updates.renew_lease())
        await self._wait(self._running)
        self._state.returned = True
        self._cancel_timers()
        if self._state.left_thread is not None:
            self._on_stuck()  # before the service knows the outcome, and pushes another job
        outcome = self._outcome(self._running)
        renewing.cancel()
        await self._wait(renewing)
        if outcome is not None:
            self._sending = asyncio.create_task(updates.send_outcome(outcome))
            if Stop.SHUTDOWN in self._state.reasons:
                self._limit_sending(self._sending)
            await self._wait(self._sending)
            self._cancel_timers()
            if self._sending.cancelled():
                _logger.error("%s: its outcome was not sent: the worker stops", self._name)
            else:
                self._sending.result()
        if not renewing.cancelled():
            renewing.result()
        if self._cancelled:
            raise asyncio.CancelledError

    @property
    def is_handled(self) -> bool:
        """Whether the handler has not returned."""
        return not self._state.returned

    @property
    def lost(self) -> bool:
        """Whether the job is no longer this worker's."""
        return self._state.lost

    @property
    def is_stuck(self) -> bool:
        """Whether the handler has not returned long after the job was lost."""
        return self.lost and self.is_handled and self._state.overdue

    @property
    def left_thread(self) -> "asyncio.Future[Any] | None":
        """The end of the handler's thread, if it was left behind when its time was over."""
        return self._state.left_thread

    def cancel(self, reason: str) -> None:
        """Pass a requested cancellation on to the handler, once."""
        done = self._running is not None and self._running.done()
        if self._state.cancel_reason is None and not (self.lost or done):
            self._state.cancel_reason = reason
            self._stop(Stop.CANCELLED)

    def lose(self, reason: Stop, why: str) -> None:
        """Stop the handler: the job is no longer this worker's.

        If the handler has returned, the answer to its outcome decides.

        Args:
            reason: LOST, or EXPIRED. Then the job is released when the handler has returned.
            why: for the log.
        """
        if self.is_handled and not self.lost:
            _logger.warning("%s is no longer this worker's: %s", self._name, why)
        if self.is_handled:
            self._stop(reason)

    def shut_down(self) -> None:
        """Stop the handler, so that the job can be released; cancel it again after a while."""
        self._stop(Stop.SHUTDOWN)
        if self._sending is not None:
            self._limit_sending(self._sending)

    # --- running ------------------------------------------------------------------------------

    async def _handle(self, updates: Updates) -> Outcome | None:
        job = ClaimedJob(self.job, self._lifespan_state, self._state, updates)
        WRITER.set(job)  # in the context of this run
        try:
            with continued_trace(self.job):
                return await self._handler.run(job)
        except SystemExit as error:
            self.raised = error
            return failure(error)

    async def _wait(self, task: "asyncio.Task[Any]") -> None:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                self._cancelled = True
                self.shut_down()

    def _outcome(self, task: "asyncio.Task[Outcome | None]") -> Outcome | None:
        """Return how the job finishes; None if it is no longer this worker's."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self.lost:
            return Release() if self._state.strongest is Stop.EXPIRED else None
        if error is None and (outcome := task.result()) is not None:
            if self.raised is not None:
                self._log_raised(self.raised)
            return outcome
        if self._state.cancel_reason is not None:
            return Release()  # the service makes it FAILED / CANCELLED
        if Stop.TIMED_OUT in self._state.reasons:
            return Failed(
                f"not finished within {self._handler.timeout:g} s",
                "TIMED_OUT",
                retryable=issubclass(TimeoutError, self._handler.retry_on),
            )
        if error is None:
            return Completed()
        if self._state.strongest is Stop.SHUTDOWN:
            return Release()
        self.raised = error
        failed = failure(error, self._handler.retry_on)
        if isinstance(error, RetryLater):
            # The message is what the handler has to say; what it has caught has a traceback.
            cause = error.__cause__ or error.__context__
            self._log_retry(f"asks for a retry: {failed.message}", cause)
        elif failed.retryable:
            kind = type(error).__name__
            self._log_retry(f"failed and asks for a retry: {kind}: {failed.message}", error)
        else:
            self._log_raised(error)
        return failed

    def _log_retry(self, text: str, error: BaseException | None) -> None:
        """Log one line; the traceback too if the job has no attempt left, else only at DEBUG."""
        line = " ".join(text.split())
        # A released attempt is not used up, so another one may be left: then it is logged early.
        if self.job.attempt >= self.job.retry_policy.max_attempts:
            _logger.warning("%s %s", self._name, line, exc_info=error)
            return
        _logger.warning("%s %s", self._name, line)
        if error is not None:
            _logger.debug("%s: why it asks for a retry", self._name, exc_info=error)

    def _log_raised(self, error: BaseException) -> None:
        if isinstance(error, InvalidParameters | InvalidResult):  # says it all
            _logger.error("%s failed: %s", self._name, error)
        else:
            _logger.error("%s failed", self._name, exc_info=error)

    # --- stopping -----------------------------------------------------------------------------

    def _stop(self, why: Stop) -> None:
        task = self._running
        if why < Stop.SHUTDOWN and task is not None and task.done():
            return  # too late: it has returned in time
        raised_before = self._state.raised
        self._state.reasons.add(why)
        if self._state.returned:
            return
        if why > Stop.CANCELLED and "clean up" not in self._timers:
            self._cancel_again_later()
        # Once: a later reason would interrupt what the handler does to clean up.
        if self._state.raised and not raised_before and task is not None:
            task.cancel()

    def _cancel_again_later(self) -> None:
        seconds = self._clean_up * LAST if self._state.abandoned else self._clean_up
        self._later("clean up", seconds, self._cancel_again)

    def _cancel_again(self) -> None:
        if self._running is not None:
            if self._state.abandoned:
                self._end(self._running)
            else:
                _logger.warning("%s does not stop; cancelling it again", self._name)
            self._running.cancel()
        self._state.overdue = True
        self._cancel_again_later()
        if self.is_stuck:
            self._on_stuck()

    def _end(self, task: "asyncio.Task[Outcome | None]") -> None:
        """End a handler that swallows its cancellation, or the worker could not exit."""
        _logger.error("%s does not stop; ending its handler", self._name)
        # RuntimeError: it swallows this, too. Others: what it raises while it cleans up.
        with contextlib.suppress(Exception, asyncio.CancelledError):
            # In its own context, which it may have changed and wants to restore.
            self._context.run(cast("Coroutine[Any, Any, Any]", task.get_coro()).close)

    def _limit_sending(self, sending: "asyncio.Task[None]") -> None:
        self._later("sending", self._clean_up * SENDING, sending.cancel)

    def _later(self, name: str, seconds: float, call: "Callable[[], object]") -> None:
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, call)

    def _cancel_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
