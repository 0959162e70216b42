"""AsyncReports: progress of many jobs over one stream, for asyncio.

What is sent when, and which report an acknowledgement belongs to, is decided in
_pipeline.py; the blocking one is in _reports_sync.py. A stream is open only while
there is something to report, and after that until the service or the network ends it:
nobody waits for a stream on which nothing is said.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias, cast

import grpc

from jobledger.v1.worker_service_pb2 import ReportProgressRequest, ReportProgressResponse
from jobledger_client._persist import Backoff
from jobledger_client._pipeline import (
    LAST_CAP,
    MAX_WAITING,
    Pipeline,
    ended_early,
    fell_silent,
    not_acknowledged,
    reports_closed,
)
from jobledger_client._requests import Requests
from jobledger_client.errors import (
    InternalError,
    JobledgerError,
    Unavailable,
    from_report_error,
    from_rpc_error,
)

Call: TypeAlias = "grpc.aio.StreamStreamCall[ReportProgressRequest, ReportProgressResponse]"

_logger = logging.getLogger("jobledger_client")


class AsyncReports:
    """Reports how far jobs are, over one stream; made by `AsyncClient.report_progress()`.

    A context manager: with it the stream ends, and so does every `send` under way.
    A stream that breaks, or that the service ends because it is old, is opened again;
    reports without an acknowledgement are sent again, which is safe, and nobody is told.
    """

    def __init__(
        self, open_call: Callable[[], Call], timeout: float, closed: asyncio.Event
    ) -> None:
        self._open_call = open_call
        self._timeout = timeout
        self._client_closed = closed
        self._closed = False
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._pipeline = Pipeline(self._room.release)
        self._news = asyncio.Event()
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
    ) -> ReportProgressResponse:
        """Report how far a job is; returns the acknowledgement, after the commit.

        Many may be under way at once (`asyncio.gather`); they are made in the order of
        the calls. Where 1000 wait for their acknowledgements, the next waits for one of
        them first.

        progress: percent, 0 to 100. Default: as it is.
        progress_message: at most 512 characters. Default: as it is.
        attempt: refuses the report unless it is the job's attempt.

        `applied` of what is returned is False where the report was late,
        `cancel_requested` True where somebody asked to cancel the job. Its `job` has
        only what a worker does not know already: no parameters, no labels.

        Raises what update_progress raises for this report, and what concerns no
        other: InvalidField (the message tells which), JobNotFound, IllegalTransition
        for a job that was not started, LeaseLost. Unavailable where no acknowledgement
        came within the client's `timeout`: the report may have been made or not.
        """
        request = Requests.report_progress(job_id, progress, progress_message, attempt)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout
        backoff = Backoff(LAST_CAP)
        while True:
            answer = await self._exchange(request, max(deadline - clock(), 0.0))
            if not answer.HasField("error"):
                return answer
            error = from_report_error(answer.error)
            # The database is away, the stream is not. The next try needs time as well.
            pause = backoff.pause(error)
            if not isinstance(error, Unavailable) or clock() + 2 * pause >= deadline:
                raise error
            await asyncio.sleep(pause)

    async def _exchange(
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
                self._news.set()
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
            self._call = call = self._open_call()
        except grpc.aio.UsageError:
            return reports_closed()
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
            # A call that was cancelled looks like a task that was; see _exchange().
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
        # Why a stream cannot be written to is told to its reader.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                while (request := self._pipeline.take()) is not None:
                    await call.write(request)
                self._news.clear()
                await self._news.wait()
