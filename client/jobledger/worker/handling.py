"""One run of a handler: it is started, stopped if it has to, and its outcome is worked out."""

import asyncio
import contextlib
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from jobledger.core.models import Asset, Job
from jobledger.worker.context import ClaimedJob, Stop
from jobledger.worker.handlers import Handler
from jobledger.worker.outcomes import Completed, Failed, Outcome, Release, failure
from jobledger.worker.tracing import continued_trace

if TYPE_CHECKING:
    from collections.abc import Coroutine

CLEAN_UP: Final = 10.0
"""Seconds that a handler has to clean up before it is cancelled again."""

LAST: Final = 0.1
"""The part of it after which a handler that ignored a second cancellation is ended."""

_logger = logging.getLogger("jobledger.worker")


class Outlet(Protocol):
    """Where the reports and assets of a handler go."""

    def report(self, progress: int | None, message: str | None) -> None: ...

    async def ask(self) -> None: ...

    async def deliver(self) -> None: ...

    async def link_asset(self, asset: Asset) -> Asset: ...


class Handling:
    """Runs a handler for one job.

    Args:
        job: as it was claimed.
        handler: of the job's type.
        outlet: where its reports and assets go.
        state: what the worker's lifespan yielded.
    """

    def __init__(self, job: Job, handler: Handler, outlet: Outlet, state: Any = None) -> None:
        self.job = job
        self.state = state
        self.cancel_requested = False
        self.cancel_reason = ""
        self.insisted = False
        self.raised: BaseException | None = None
        self._handler = handler
        self._outlet = outlet
        self._reasons = {Stop.NOT}
        self._task: asyncio.Task[Outcome | None] | None = None
        self._context = contextvars.copy_context()
        self._closed = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # --- for the runner -----------------------------------------------------------------------

    def start(self) -> "asyncio.Task[Outcome | None]":
        """Start the handler; one that was stopped before does not begin."""
        self._task = asyncio.create_task(self._handle(), context=self._context)
        if self.thrown:
            self._task.cancel()
        if self._handler.timeout is not None:
            self._set_timer("timeout", self._handler.timeout, Stop.TIMED_OUT)
        return self._task

    def stop(self, why: Stop) -> None:
        """Stop the handler; after a while insist."""
        if why < Stop.SHUTDOWN and self._task is not None and self._task.done():
            return  # too late: it has returned in time
        outweighs = why > self.stopped
        self._reasons.add(why)
        if why > Stop.CANCELLED and "insist" not in self._timers:
            self._insist_later()
        if outweighs and self.thrown and self._task is not None:
            self._task.cancel()

    def cancel(self, reason: str) -> None:
        """Pass a requested cancellation on, once."""
        returned = self._task is not None and self._task.done()
        if not (self.cancel_requested or self.lost or returned):
            self.cancel_reason = reason
            self.cancel_requested = True
            self.stop(Stop.CANCELLED)

    def close(self) -> None:
        """Stop the timers, and what the handler left running: it has returned."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        if self._task is not None and not self._task.cancelled():
            self._task.exception()  # retrieved, though nobody may need it

    def conclude(self) -> Outcome:
        """Say how the job finishes, once the handler has returned."""
        task = self._task
        assert task is not None  # noqa: S101
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None and (outcome := task.result()) is not None:
            return outcome
        if self.cancel_requested:
            return Failed(self.cancel_reason or "cancelled", "CANCELLED")
        if Stop.TIMED_OUT in self._reasons:
            return Failed(f"not finished within {self._handler.timeout:g} s", "TIMED_OUT")
        if error is None:
            return Completed()
        if self.stopped is Stop.SHUTDOWN:
            return Release()
        self.raised = error
        return failure(error)

    # --- for the handler ----------------------------------------------------------------------

    @property
    def stopped(self) -> Stop:
        return max(self._reasons)

    @property
    def lost(self) -> bool:
        return Stop.LOST in self._reasons

    @property
    def thrown(self) -> Stop:
        """The reason for which the handler was cancelled; to what it left running, LOST."""
        if self._closed:
            return Stop.LOST
        if self.stopped is Stop.CANCELLED and not self._handler.cancellation_is_thrown:
            return Stop.NOT
        return self.stopped

    @property
    def abandoned(self) -> bool:
        """Whether a thread that does not stop is abandoned."""
        return self.insisted and bool(self._reasons & {Stop.TIMED_OUT, Stop.SHUTDOWN})

    def report(self, progress: int | None, message: str | None) -> None:
        self._outlet.report(progress, message)

    async def ask(self) -> None:
        await self._outlet.ask()

    async def deliver(self) -> None:
        await self._outlet.deliver()

    async def link_asset(self, asset: Asset) -> Asset:
        return await self._outlet.link_asset(asset)

    # ------------------------------------------------------------------------------------------

    async def _handle(self) -> Outcome | None:
        try:
            with continued_trace(self.job):
                return await self._handler.run(ClaimedJob(self))
        except SystemExit as error:
            self.raised = error
            return failure(error)

    def _set_timer(self, name: str, seconds: float, why: Stop) -> None:
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, self.stop, why)

    def _insist_later(self) -> None:
        seconds = CLEAN_UP * LAST if self.abandoned else CLEAN_UP
        self._timers["insist"] = asyncio.get_running_loop().call_later(seconds, self._insist)

    def _insist(self) -> None:
        if self._task is not None:
            if self.abandoned:
                self._end(self._task)
            else:
                _logger.warning("job %s does not stop; cancelling it again", self.job.id)
            self._task.cancel()
        self.insisted = True
        self._insist_later()

    def _end(self, task: "asyncio.Task[Outcome | None]") -> None:
        """End a handler that swallows its cancellation, or the worker could not exit."""
        _logger.error("job %s does not stop; ending its handler", self.job.id)
        with contextlib.suppress(RuntimeError):  # it swallows this, too
            # In its own context, which it may have changed and wants to restore.
            self._context.run(cast("Coroutine[Any, Any, Any]", task.get_coro()).close)
