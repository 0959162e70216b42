"""Plain functions as handlers: each job in a thread of its own.

A thread cannot be stopped from outside. Its next call on the job raises. A thread that makes none
keeps its slot until it returns, also when its job has timed out: so a worker never has more threads
than slots. When the worker stops it is left to die with the process; hence daemon threads instead
of an executor, which Python would wait for.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextvars import ContextVar
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, Unpack

from jobledger.core.conversion import JsonObject
from jobledger.core.models import Asset, Job
from jobledger.core.new_job import JobOptions
from jobledger.worker.job import (
    BlockingJobLog,
    ClaimedJob,
    Counted,
    ItemT,
    JobFacts,
    Stop,
    output_of,
    run_state,
)
from jobledger.worker.output import (
    BlockingJobOutput,
    checked_content_type,
    checked_stream,
    encoded,
)

_Result = TypeVar("_Result")


class Threads(Protocol):
    """Runs plain functions beside an event loop."""

    def start(self, function: Callable[[], object], name: str) -> None:
        """Start a function, which raises nothing."""

    def wait(self, call: Coroutine[Any, Any, _Result], loop: asyncio.AbstractEventLoop) -> _Result:
        """In such a function, wait until a coroutine has run in the loop.

        Raises:
            CancelledError: it was cancelled, or the loop is closed.
        """

    def may_wait(self) -> bool:
        """Whether this is such a function, and not the event loop itself."""


class _DaemonThreads:
    """Starts a thread for each function. The process does not wait for it at its end."""

    def start(self, function: Callable[[], object], name: str) -> None:
        threading.Thread(target=function, name=name, daemon=True).start()

    def wait(self, call: Coroutine[Any, Any, _Result], loop: asyncio.AbstractEventLoop) -> _Result:
        try:
            return asyncio.run_coroutine_threadsafe(call, loop).result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError from None
        except RuntimeError:
            call.close()
            if loop.is_closed():
                raise asyncio.CancelledError from None
            raise

    def may_wait(self) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return True
        return False


THREADS: Final[ContextVar[Threads]] = ContextVar("jobledger_threads", default=_DaemonThreads())  # noqa: B039  # it has no state
"""What runs the plain handlers of a worker: real threads, except where time is simulated."""


class BlockingJob(JobFacts):
    """A job in the hands of a plain function.

    Each call raises asyncio.CancelledError if the handler has to stop: once after a cancellation,
    a timeout or the worker's shutdown, and every time if the job is no longer this worker's. A
    handler that has nothing to report calls `progress()` now and then, to be stopped in time.
    """

    def __init__(self, job: ClaimedJob, loop: asyncio.AbstractEventLoop, threads: Threads) -> None:
        super().__init__(job.snapshot, job.state, run_state(job))
        self._calls = job
        self._loop = loop
        self._threads = threads
        self._raised = Stop.NOT

    def progress(
        self,
        progress: float | None = None,
        message: str | None = None,
        *,
        checkpoint: JsonObject | None = None,
        wait: bool = False,
    ) -> None:
        """Report how far the job is, or ask whether to go on; see ClaimedJob.progress."""
        self._check()
        self._await(self._calls.progress(progress, message, checkpoint=checkpoint, wait=wait))
        self._check()

    def create_child(
        self,
        job_type: str,
        parameters: JsonObject | None = None,
        *,
        key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Create a job of the same owner and group, once; see ClaimedJob.create_child."""
        self._check()
        return self._await(self._calls.create_child(job_type, parameters, key=key, **options))

    def add_asset(
        self,
        asset_type: str,
        *,
        url: str = "",
        storage_path: str = "",
        file_size: int = 0,
        name: str = "",
        sha256: str = "",
        etag: str = "",
    ) -> Asset:
        """Link an asset; see ClaimedJob.add_asset."""
        self._check()
        return self._await(
            self._calls.add_asset(
                asset_type,
                url=url,
                storage_path=storage_path,
                file_size=file_size,
                name=name,
                sha256=sha256,
                etag=etag,
            )
        )

    @cached_property
    def log(self) -> BlockingJobLog:
        """Logs as `jobledger.job`; `job.log(line)` writes output. See ClaimedJob.log."""
        return BlockingJobLog(self._job, self.write)

    def write(self, data: str | bytes, *, stream: str = "", wait: bool = False) -> None:
        """Write to a stream of the job's output; see ClaimedJob.write."""
        self._write(checked_stream(stream), "", data, wait)

    def output(self, stream: str = "", *, content_type: str = "") -> BlockingJobOutput:
        """Return a stream of the job's output, as a file; see ClaimedJob.output."""
        write = partial(self._write, checked_stream(stream), checked_content_type(content_type))
        return BlockingJobOutput(write, stream)

    def run_program(
        self,
        command: Sequence[str],
        *,
        stream: str = "",
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a program with its output as the job's; see ClaimedJob.run_program."""
        self._check()
        return self._await(self._calls.run_program(command, stream=stream, cwd=cwd, env=env))

    def put(self, data: bytes, stream: str) -> None:
        self._calls.put(data, stream)

    def _write(self, stream: str, content_type: str, data: str | bytes, wait: bool) -> None:  # noqa: FBT001
        self._check()
        output, rest = output_of(self._calls), encoded(data)
        while rest := rest[output.add(stream, rest, content_type) :]:
            self._await(output.room())
            self._check()
        while wait and not self._await(output.deliver(stream)):
            self._check()
        self._check()

    def track(self, items: Iterable[ItemT], *, total: int | None = None) -> Iterator[ItemT]:
        """Iterate over items, and report how many of them are done; see ClaimedJob.track."""
        counted = Counted(items, total, self._loop.time)
        return tracked(iter(items), counted, self.progress, self._check)

    def _check(self) -> None:
        stop = self._run.raised
        if stop > self._raised or stop >= Stop.EXPIRED:
            self._raised = stop
            raise asyncio.CancelledError

    def _await(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            return self._threads.wait(call, self._loop)
        except asyncio.CancelledError:
            self._raised = self._run.raised
            raise


def tracked(
    items: Iterator[ItemT],
    counted: Counted,
    progress: Callable[[float | None, str | None], None],
    check: Callable[[], None],
) -> Iterator[ItemT]:
    """Yield items, and report how many are done.

    Args:
        items: the items.
        counted: says when to report.
        progress: reports, and raises what stops the handler.
        check: raises what stops the handler.
    """
    for item in items:
        yield item
        if counted.passed():
            progress(*counted.report())
        else:
            check()
    progress(*counted.report())


def in_thread(
    function: Callable[[BlockingJob], object], kill: Callable[[ClaimedJob], None] | None = None
) -> Callable[[ClaimedJob], Awaitable[object]]:
    """Make an async handler of a plain function.

    Args:
        function: the handler.
        kill: called with the job if it does not stop; then the thread returns soon.
            Without it, a thread that does not stop is left behind, and keeps its slot.
    """

    async def handle(job: ClaimedJob) -> object:
        run, loop = run_state(job), asyncio.get_running_loop()
        if run.left_thread is not None:  # middleware calls the handler again
            raise asyncio.CancelledError
        ended: asyncio.Future[Callable[[], object]] = loop.create_future()
        threads = THREADS.get()
        work = partial(_work, function, BlockingJob(job, loop, threads), loop, ended)
        threads.start(partial(contextvars.copy_context().run, work), f"jobledger-{job.id}")
        try:
            while not ended.done():
                try:
                    await asyncio.wait({ended})
                except asyncio.CancelledError:
                    # The thread's own next call raises.
                    if kill is not None and run.overdue:
                        kill(job)
                    elif kill is None and run.abandoned:
                        raise
        finally:
            if not ended.done():
                run.left_thread = ended
        return ended.result()()

    return handle


def _work(
    function: Callable[[BlockingJob], object],
    job: BlockingJob,
    loop: asyncio.AbstractEventLoop,
    ended: "asyncio.Future[Callable[[], object]]",
) -> None:
    # An outcome or an exception is passed as a function that returns or raises it: a
    # future does not accept every exception.
    try:
        outcome = function(job)
        end = lambda: outcome  # noqa: E731
    except BaseException as raised:  # noqa: BLE001
        error: BaseException = raised
        is_signal = threading.current_thread() is threading.main_thread()  # in a simulated world
        if isinstance(raised, KeyboardInterrupt) and not is_signal:
            # The handler raised it by itself. Raised in the event loop, it would end the worker.
            error = RuntimeError("the handler raised KeyboardInterrupt")

        def end() -> object:
            raise error

    def settle() -> None:
        if not ended.done():
            ended.set_result(end)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(settle)
