"""A worker in twenty lines: claims jobs, runs a handler for each, and always tells the end.

    async with AsyncClient("127.0.0.1:50051") as client:
        worker = Worker(client, concurrency=8)

        @worker.handler("thumbnail")
        async def thumbnail(job: ClaimedJob) -> Completed | Partial:
            await job.progress(25, "decoded")
            await job.add_asset("image/png", url=..., file_size=...)
            return Completed({"count": 1})

        await worker.run()

Handlers need to know nothing of leases, retries and shutdowns; docs/workers.md
says what is done for them.
"""

import asyncio
import contextlib
import inspect
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final, Literal, TypeVar

from jobledger.v1.job_pb2 import Job
from jobledger_client._async import AsyncClient
from jobledger_client._claimed import ClaimedJob
from jobledger_client._lease import Lease
from jobledger_client._outcome import Completed, Failed, Outcome, Partial
from jobledger_client._persist import Backoff, is_transient
from jobledger_client._reporter import Reporter
from jobledger_client._requests import Seconds
from jobledger_client._run import Function, Handler, JobRun
from jobledger_client._threads import BlockingFunction, BlockingJob, in_thread
from jobledger_client.errors import JobledgerError

__all__ = [
    "BlockingJob",
    "ClaimedJob",
    "Completed",
    "Failed",
    "Outcome",
    "Partial",
    "Worker",
]

MAX_CLAIM: Final = 100
# How long a claim that is under way when the worker stops may take to bring jobs,
# which are then given back. One that has brought none by then is cancelled: it waits for
# jobs to come, and the service takes back what it may find at that moment.
LAST_CLAIM: Final = 0.25
LONGEST_PAUSE: Final = 5.0

_Function = TypeVar("_Function", bound=Function)
_BlockingFunction = TypeVar("_BlockingFunction", bound=BlockingFunction)
OnCancel = Literal["raise", "flag"]

_logger = logging.getLogger("jobledger_client.worker")


class Worker:
    """Claims jobs of the types that it has handlers for and runs up to `concurrency` at once.

    client: speaks for the worker; its owner, if any, does not matter.
    lease: seconds, or a timedelta, 5 s to 24 h. If the worker dies, its jobs pass to
        another one, or fail, after so long; if the service is away, handlers go on
        for nearly so long.
    grace: seconds that running jobs have to end when the worker stops. Then their
        handlers are cancelled, and the jobs given back to be claimed by another
        worker, without using up an attempt.
    claim_wait: seconds that a claim waits for jobs to come, at most 60.
    worker_id: what the worker calls itself. Default: the client's `worker_id`.

    A worker runs once.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        concurrency: int = 1,
        lease: Seconds = 60.0,
        grace: float = 10.0,
        claim_wait: float = 20.0,
        worker_id: str | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency: at least 1")
        self._client = client
        self._concurrency = concurrency
        self._lease = lease.total_seconds() if isinstance(lease, timedelta) else float(lease)
        self._grace = grace
        self._claim_wait = claim_wait
        self.worker_id = client.worker_id if worker_id is None else worker_id
        self._handlers: dict[str, Handler] = {}
        self._runs: set[JobRun] = set()
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._slot_freed = asyncio.Event()

    def handler(
        self, job_type: str, *, on_cancel: OnCancel = "raise"
    ) -> Callable[[_Function], _Function]:
        """Make an async function the handler of a type of job.

        It returns Completed, Partial, Failed, or None for Completed; what it raises
        makes the job FAILED, with the exception's class as the reason.

        on_cancel: what happens to it when somebody asks to cancel the job: "raise"
            throws asyncio.CancelledError into it, "flag" only sets
            `job.cancel_requested`. Where it then returns no outcome, the job ends as
            FAILED / CANCELLED. It has 30 s.
        """

        def register(function: _Function) -> _Function:
            if not inspect.iscoroutinefunction(inspect.unwrap(function)):
                raise TypeError("an async function is needed; use blocking_handler for a plain one")
            self._register(job_type, function, on_cancel)
            return function

        return register

    def blocking_handler(
        self, job_type: str, *, on_cancel: OnCancel = "raise"
    ) -> Callable[[_BlockingFunction], _BlockingFunction]:
        """Make a plain function the handler of a type of job; it runs in a thread.

        As `handler`, but a thread cannot be interrupted: it hears of a cancellation
        when it next reports. One that does not stop within 10 s of the end of the
        worker's grace is left behind, and its job given back.
        """

        def register(function: _BlockingFunction) -> _BlockingFunction:
            if inspect.iscoroutinefunction(inspect.unwrap(function)):
                raise TypeError("a plain function is needed; use handler for an async one")
            self._register(job_type, in_thread(function), on_cancel)
            return function

        return register

    def stop(self, *, now: bool = False) -> None:
        """Stop claiming and let `run` end: after the jobs, or at the end of the grace.

        now: without the grace.

        To be called in the event loop's thread; may be repeated.
        """
        self._stopping.set()
        self._slot_freed.set()
        if now:
            self._hurrying.set()

    async def run(self, *, signals: bool = True) -> None:
        """Work until `stop` is called.

        signals: SIGTERM and SIGINT call `stop`, and a second one `stop(now=True)`.
            Only in the main thread.

        Being cancelled is as `stop(now=True)`. Raises a JobledgerError that will not
        go away by itself: InvalidField, AccessDenied. A service that is away is none.
        """
        if not self._handlers:
            raise ValueError("a worker without handlers has nothing to do")
        cancelled = False
        with self._signals() if signals else contextlib.nullcontext():
            working = asyncio.create_task(self._work())
            while not working.done():
                try:
                    await asyncio.wait({working})
                except asyncio.CancelledError:
                    cancelled = True
                    self.stop(now=True)
        working.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _work(self) -> None:
        try:
            async with Reporter(self._client) as reporter, asyncio.TaskGroup() as group:
                group.create_task(self._claim_jobs(group, reporter))
                await self._stopping.wait()
                await self._wait_for_runs()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    # --- the end ------------------------------------------------------------------------------

    async def _wait_for_runs(self) -> None:
        if self._runs:
            _logger.info(
                "stopping; jobs running: %d, %g s left to them", len(self._runs), self._grace
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                while self._runs and not self._hurrying.is_set():
                    self._slot_freed.clear()
                    await self._slot_freed.wait()
        for run in self._runs:
            run.shut_down()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = [signal.getsignal(number) for number in numbers]
        for number in numbers:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _signalled(self) -> None:
        self.stop(now=self._stopping.is_set())

    # --- claims -------------------------------------------------------------------------------

    async def _claim_jobs(self, group: asyncio.TaskGroup, reporter: Reporter) -> None:
        backoff = Backoff(LONGEST_PAUSE)
        while not self._stopping.is_set():
            if len(self._runs) >= self._concurrency:
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            try:
                await self._claim(group, reporter)
            except JobledgerError as error:
                if not is_transient(error):
                    raise
                pause = backoff.pause(error)
                _logger.warning("no claim (%s); another try in %.1f s", error, pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
            else:
                backoff.reset()

    async def _claim(self, group: asyncio.TaskGroup, reporter: Reporter) -> None:
        """Claim as many jobs as there are slots, and start them."""
        sent = time.monotonic()
        claim = asyncio.create_task(
            self._client.claim_jobs(
                list(self._handlers),
                max_jobs=min(self._concurrency - len(self._runs), MAX_CLAIM),
                lease_duration=self._lease,
                wait=self._claim_wait,
                worker_id=self.worker_id,
            )
        )
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({claim, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not claim.done():
                await asyncio.wait({claim}, timeout=LAST_CLAIM)
        finally:
            stopping.cancel()
            claim.cancel()
            await asyncio.wait({claim, stopping})
        if not claim.cancelled():
            for job in claim.result():
                self._start(group, reporter, job, sent)

    def _start(self, group: asyncio.TaskGroup, reporter: Reporter, job: Job, sent: float) -> None:
        lease = Lease(self._lease, sent)
        answered = time.monotonic()
        if lease.renew_at <= answered:
            # The claim has waited for the job; when in that time the lease began,
            # only the service knows. The first renewal tells.
            lease.renewed(answered)
            lease.renew_now()
        handler = self._handlers[job.job_type]
        run = JobRun(self._client, reporter, job, handler, lease, worker_id=self.worker_id)
        self._runs.add(run)
        if self._stopping.is_set():
            run.shut_down()
        group.create_task(self._run(run), name=f"jobledger-{job.id}")

    async def _run(self, run: JobRun) -> None:
        try:
            await run.run()
        except Exception:
            _logger.exception("job %s: a bug", run.job.id)
        finally:
            self._runs.discard(run)
            self._slot_freed.set()

    def _register(self, job_type: str, function: Function, on_cancel: OnCancel) -> None:
        if job_type in self._handlers:
            raise ValueError(f"{job_type} has a handler")
        self._handlers[job_type] = Handler(function, cancellation_is_thrown=on_cancel == "raise")
