"""Reports: progress of many jobs over one stream, for blocking code.

As async_reports.py, with a thread that reads instead of a task; the requests are drawn by a
thread of grpc's. `_changed` guards the pipeline, whose futures may be given up by their
senders at any moment.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self

import grpc

from jobledger.core.channels import Channels
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

_logger = logging.getLogger("jobledger")


class Call(Protocol):
    """What a blocking stream can do; grpc keeps its own name for it private."""

    def __iter__(self) -> Iterator[ReportProgressResponse]: ...

    def cancel(self) -> object: ...


class Reports:
    """Reports how far jobs are, over one stream; made by `Client.report_progress()`.

    Safe to share between threads. A context manager, which ends the stream and every `send` under
    way. A stream that breaks, or has reached its maximum age, is opened again; reports without an
    acknowledgement are sent again, which is safe.
    """

    def __init__(
        self,
        channels: Channels,
        headers: Callable[[], Headers],
        timeout: float | None,
        closed: threading.Event,
    ) -> None:
        self._channels = channels
        self._headers = headers
        # threading has a limit for the time to wait.
        self._timeout = threading.TIMEOUT_MAX if timeout is None else timeout
        self._client_closed = closed
        self._closed = threading.Event()
        self._room = threading.Semaphore(MAX_WAITING)
        self._pipeline = Pipeline(self._room.release)
        self._changed = threading.Condition()
        self._call: Call | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream. May be repeated."""
        self._closed.set()
        with self._changed:
            thread, call = self._thread, self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        if thread is not None:
            thread.join()
        with self._changed:
            self._pipeline.fail(reports_closed())

    def send(
        self,
        job_id: str,
        progress: int | None = None,
        *,
        progress_message: str | None = None,
        attempt: int | None = None,
    ) -> ProgressResult:
        """Report how far a job is; returns the acknowledgement, after the commit.

        To have many under way at once, call it in many threads. While 1000 wait for their
        acknowledgements, the next one waits too.

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
        clock = time.monotonic
        deadline = clock() + self._timeout
        backoff = Backoff(LAST_CAP)
        while True:
            answer = self._exchange(request, max(deadline - clock(), 0.0))
            if not answer.HasField("error"):
                return ProgressResult.from_proto(answer)
            error = from_report_error(answer.error)
            # The database is away, the stream is not. The next try needs time as well.
            pause = backoff.pause(error)
            if not isinstance(error, Unavailable) or clock() + 2 * pause >= deadline:
                raise error
            time.sleep(pause)

    def _exchange(self, request: ReportProgressRequest, seconds: float) -> ReportProgressResponse:
        """Send a report once and return what is said of it, be it an error.

        Raises JobledgerError where no stream brought an acknowledgement.
        """
        events = self._pipeline.events
        deadline = time.monotonic() + seconds
        answer: Future[ReportProgressResponse] = Future()
        if self._room.acquire(timeout=seconds):
            with self._changed:
                if self._closed.is_set() or self._client_closed.is_set():
                    self._room.release()
                    raise reports_closed()
                self._pipeline.put(request, answer)
                self._start()
                self._changed.notify_all()
            try:
                return answer.result(max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                pass
            finally:
                with self._changed:
                    if answer.cancel():
                        self._pipeline.give_up(answer)
        if answer.done() and not answer.cancelled():
            return answer.result()
        with self._changed:
            silent = self._call if events == self._pipeline.events else None
            error = not_acknowledged(seconds, self._pipeline.failure)
        if silent is not None:
            # Nothing came for anybody. Others need not wait as long to find out.
            silent.cancel()
        raise error

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._stream_on, name="jobledger-reports", daemon=True
            )
            self._thread.start()

    def _stream_on(self) -> None:
        """Keep a stream open for as long as somebody waits."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._over or not self._pipeline.idle)
                failure = None if self._over else self._stream()
                with self._changed:
                    if failure is None or self._over:
                        self._pipeline.fail(reports_closed())
                        return
                    pause = self._pipeline.broken(failure)
                    idle = self._pipeline.idle
                _logger.debug("stream of reports ended: %s", failure)
                if not idle:
                    self._closed.wait(pause)
        except Exception as error:
            _logger.exception("reports: a bug")
            with self._changed:
                self._pipeline.fail(InternalError(str(error), code=grpc.StatusCode.INTERNAL))
                self._thread = None

    def _stream(self) -> JobledgerError:
        """Serve one stream to its end; return why it ended."""
        ended = threading.Event()
        try:
            worker = self._channels.connection().worker
            call = worker.ReportProgress(self._requests(ended), metadata=self._headers())
        except (ClientClosed, ValueError):
            # ValueError is what a closed channel raises.
            return reports_closed()
        with self._changed:
            self._call = call
        try:
            if self._over:
                return reports_closed()
            for answer in call:
                with self._changed:
                    self._pipeline.acknowledge(answer)
            return ended_early()
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
            # Nobody else cancels it; see _exchange().
            cancelled = failure.code is grpc.StatusCode.CANCELLED
            return fell_silent() if cancelled else failure
        except InternalError as stray:
            return stray
        finally:
            with self._changed:
                self._call = None
                ended.set()
                self._changed.notify_all()
            call.cancel()

    def _requests(self, ended: threading.Event) -> Iterator[ReportProgressRequest]:
        while True:
            with self._changed:
                request = None
                while not ended.is_set() and (request := self._pipeline.take()) is None:
                    self._changed.wait()
            if request is None:
                return
            yield request

    @property
    def _over(self) -> bool:
        return self._closed.is_set() or self._client_closed.is_set()
