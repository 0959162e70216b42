"""AsyncReports: progress of many jobs over one stream, for asyncio.

What is sent when, and which report an acknowledgement belongs to, is decided in
report_pipeline.py; the blocking one is in reports.py. A stream is open only while
there is something to report, and after that until the service or the network ends it:
nobody waits for a stream on which nothing is said.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias, cast

import grpc

from jobledger.core.channels import AsyncChannels
from jobledger.core.models import ProgressResult
from jobledger.core.options import Headers
from jobledger.core.report_pipeline import (
    LAST_CAP,
    MAX_WAITING,
    Pipeline,
    ended_early,
    fell_silent,
    not_acknowledged,
    reports_closed,
)
from jobledger.core.requests import Requests
from jobledger.core.retry import Backoff
from jobledger.errors import (
    ClientClosed,
    InternalError,
    JobledgerError,
    Unavailable,
    from_report_error,
    from_rpc_error,
)
from jobledger.v1.worker_service_pb2 import ReportProgressRequest, ReportProgressResponse

Call: TypeAlias = "grpc.aio.StreamStreamCall[ReportProgressRequest, ReportProgressResponse]"

_logger = logging.getLogger("jobledger")


class AsyncReports:
    """Reports how far jobs are, over one stream; made by `AsyncClient.report_progress()`.

    A context manager, which ends the stream and every `send` under way. A stream that breaks, or
    has reached its maximum age, is opened again; reports without an acknowledgement are sent
    again, which is safe.
    """

    def __init__(
        self,
        channels: AsyncChannels,
        headers: Callable[[], Awaitable[Headers]],
        timeout: float | None,
        closed: asyncio.Event,
    ) -> None:
        self._channels = channels
        self._headers = headers
        self._timeout = math.inf if timeout is None else timeout
        self._client_closed = closed
        self._closed = False
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._pipeline = Pipeline(self._room.release)
        self._unsent = asyncio.Event()
        self._call: Call | None = None
        self._streaming: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the stream. May be repeated."""
        self._closed = True
        if self._streaming is not None:
            self._streaming.cancel()
            await asyncio.wait({self._streaming})
        self._pipeline.fail(reports_closed())

    async def send(
        self,
        job_id: str,
        progress: int | None = None,
        *,
        progress_message: str | None = None,
        attempt: int | None = None,
    ) -> ProgressResult:
        """Report how far a job is; returns the acknowledgement, after the commit.

        Many may be under way at once (`asyncio.gather`); they are applied in the order of the
        calls. While 1000 wait for their acknowledgements, the next one waits too.

        Args:
            job_id: the job.
            progress: percent, 0 to 100. Default: unchanged.
            progress_message: at most 512 characters. Default: unchanged.
            attempt: the caller's. Default: not fenced.

        Raises:
            Unavailable: no acknowledgement came within the client's timeout; whether the report
                was applied is unknown.
            JobledgerError: what update_progress raises, for this report alone.
        """
        request = Requests.report_progress(job_id, progress, progress_message, attempt)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout
        backoff = Backoff(LAST_CAP)
        while True:
            answer = await self.exchange(request, max(deadline - clock(), 0.0))
            if not answer.HasField("error"):
                return ProgressResult.from_proto(answer)
            error = from_report_error(answer.error)
            # The database is away, the stream is not. The next try needs time as well.
            pause = backoff.pause(error)
            if not isinstance(error, Unavailable) or clock() + 2 * pause >= deadline:
                raise error
            await asyncio.sleep(pause)

    async def exchange(
        self, request: ReportProgressRequest, seconds: float, *, tries: int | None = None
    ) -> ReportProgressResponse:
        """Send a report once and return what is said of it, be it an error.

        tries: how many streams may break meanwhile, before the last failure is raised.

        Raises JobledgerError where no stream brought an acknowledgement.
        """
        events = self._pipeline.events
        try:
            async with asyncio.timeout(seconds):
                await self._room.acquire()
                if self._closed or self._client_closed.is_set():
                    self._room.release()
                    raise reports_closed()
                answer: asyncio.Future[ReportProgressResponse] = asyncio.Future()
                self._pipeline.put(request, answer, tries)
                self._unsent.set()
                if self._streaming is None or self._streaming.done():
                    self._streaming = asyncio.create_task(
                        self._stream_on(), name="jobledger-reports"
                    )
                try:
                    return await answer
                except asyncio.CancelledError:
                    self._pipeline.give_up(answer)
                    raise
        except TimeoutError:
            if events == self._pipeline.events and self._call is not None:
                # Nothing came for anybody. Others need not wait as long to find out.
                self._call.cancel()
            raise not_acknowledged(seconds, self._pipeline.failure) from None

    async def _stream_on(self) -> None:
        """Keep a stream open for as long as somebody waits."""
        try:
            while not self._pipeline.idle:
                failure = await self._stream()
                if self._client_closed.is_set():
                    self._pipeline.fail(reports_closed())
                    return
                pause = self._pipeline.broken(failure)
                _logger.debug("stream of reports ended: %s", failure)
                if not self._pipeline.idle:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._client_closed.wait()
        except Exception as error:
            _logger.exception("reports: a bug")
            self._pipeline.fail(InternalError(str(error), code=grpc.StatusCode.INTERNAL))

    async def _stream(self) -> JobledgerError:
        """Serve one stream to its end; return why it ended."""
        try:
            worker = self._channels.connection().worker
            call = worker.ReportProgress(metadata=await self._headers())
        except (ClientClosed, grpc.aio.UsageError):
            return reports_closed()
        self._call = call
        writing = asyncio.create_task(self._write(call), name="jobledger-reports-writing")
        try:
            while (read := await call.read()) is not grpc.aio.EOF:
                self._pipeline.acknowledge(cast("ReportProgressResponse", read))
            return ended_early()
        except grpc.RpcError as error:
            return from_rpc_error(error)
        except InternalError as stray:
            return stray
        except asyncio.CancelledError:
            # A call that was cancelled looks like a task that was; see exchange().
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return fell_silent()
        finally:
            self._call = None
            call.cancel()
            writing.cancel()
            await asyncio.wait({writing})

    async def _write(self, call: Call) -> None:
        # The reader gets the error of a stream that cannot be written to.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                while (request := self._pipeline.take()) is not None:
                    await call.write(request)
                self._unsent.clear()
                await self._unsent.wait()
