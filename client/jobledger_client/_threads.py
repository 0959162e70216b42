"""Blocking handlers: each job in a thread of its own, of which there are as many as slots.

A thread cannot be stopped from outside. It learns that it should with its next
word on the job, and when the worker ends it is left to die with the process;
hence daemon threads instead of an executor, which Python would wait for.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

from jobledger.v1.asset_pb2 import Asset
from jobledger_client._claimed import ClaimedJob, JobFacts
from jobledger_client._outcome import Outcome
from jobledger_client._run import Function, JobRun, Stop

_Result = TypeVar("_Result")

BlockingFunction: TypeAlias = "Callable[[BlockingJob], Outcome | None]"


class BlockingJob(JobFacts):
    """A job in the hands of a blocking handler.

    Each call raises asyncio.CancelledError where the handler should stop: the first
    time after a cancellation or the worker's own end, every time where the job is no
    longer this worker's. A handler that has nothing to report calls `progress()` now
    and then, to hear of it.
    """

    def __init__(self, run: JobRun, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(run)
        self._run = run
        self._job = ClaimedJob(run)
        self._loop = loop
        self._heard = Stop.NOT

    def progress(self, progress: float | None = None, message: str | None = None) -> None:
        """Say how far the job is; see ClaimedJob.progress."""
        self._check()
        self._await(self._job.progress(progress, message))
        self._check()

    def add_asset(
        self, asset_type: str, *, url: str = "", storage_path: str = "", file_size: int = 0
    ) -> Asset:
        """Link something that the job has made; see ClaimedJob.add_asset."""
        self._check()
        return self._await(
            self._job.add_asset(asset_type, url=url, storage_path=storage_path, file_size=file_size)
        )

    def _check(self) -> None:
        thrown = self._run.thrown
        if thrown > self._heard or thrown is Stop.LOST:
            self._heard = thrown
            raise asyncio.CancelledError

    def _await(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            return asyncio.run_coroutine_threadsafe(call, self._loop).result()
        except concurrent.futures.CancelledError:
            self._heard = self._run.thrown
            raise asyncio.CancelledError from None
        except RuntimeError:
            call.close()
            if self._loop.is_closed():
                raise asyncio.CancelledError from None
            raise


def in_thread(function: BlockingFunction) -> Function:
    """Make an async handler of a blocking one."""

    async def handle(job: ClaimedJob) -> Outcome | None:
        run = job._holder  # noqa: SLF001
        assert isinstance(run, JobRun)  # noqa: S101
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Callable[[], Outcome | None]] = loop.create_future()
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(_work, function, BlockingJob(run, loop), loop, ended),
            name=f"jobledger-{job.id}",
            daemon=True,
        )
        thread.start()
        while not ended.done():
            try:
                await asyncio.wait({ended})
            except asyncio.CancelledError:
                # The thread hears of it by itself. Its slot stays taken until it ends.
                if run.abandoned:
                    raise
        return ended.result()()

    return handle


def _work(
    function: BlockingFunction,
    job: BlockingJob,
    loop: asyncio.AbstractEventLoop,
    ended: "asyncio.Future[Callable[[], Outcome | None]]",
) -> None:
    # An outcome or an exception travels as what has to be called to get it: a
    # future does not take every exception.
    try:
        outcome = function(job)
        end = lambda: outcome  # noqa: E731
    except BaseException as raised:  # noqa: BLE001
        error = raised

        def end() -> Outcome | None:
            raise error

    def settle() -> None:
        if not ended.done():
            ended.set_result(end)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(settle)
