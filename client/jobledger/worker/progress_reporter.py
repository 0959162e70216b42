"""How the reports of a worker travel: all over one stream, or each as a call of its own.

The stream is the rule. A service that does not know it, or a proxy that does not let
it through, is found out by what the same report meets as a call; for a while all
reports then travel so, until one of them tries the stream again.
"""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import grpc

from jobledger.core.aio.client import AsyncClient
from jobledger.core.models import Job, ProgressResult
from jobledger.core.requests import Requests
from jobledger.core.retry import is_transient
from jobledger.errors import JobledgerError, from_report_error
from jobledger.worker.lease import Lease
from jobledger.worker.lease_calls import attempt
from jobledger.worker.throttle import Report

STREAMS: Final = 3
"""How many streams may break under a report before it is tried as a call."""

FIRST_DETOUR: Final = 1.0
LAST_DETOUR: Final = 300.0
"""Seconds without a stream: more each time that the stream still does not work."""

_logger = logging.getLogger("jobledger.worker")


class Reporter:
    """Carries the reports of all jobs of one worker."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._stream = client.report_progress()
        self._detour = Detour()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stream.close()

    async def report(self, job: Job, report: Report, lease: Lease) -> ProgressResult:
        """Report once, by one way or, where that does not work, by the other.

        Each takes as long as a call may under this lease. Raises JobledgerError.
        """
        if not self._detour.stream_is_due():
            return await self._call(job, report, lease)
        request = Requests.report_progress(job.id, report.progress, report.message, job.attempt)
        try:
            answer = await self._stream.exchange(request, lease.renewal_timeout, tries=STREAMS)
        except JobledgerError as failure:
            return await self._call_instead(job, report, lease, failure)
        finally:
            self._detour.tried()
        self._detour.ends()
        if answer.HasField("error"):
            raise from_report_error(answer.error)
        return ProgressResult.from_proto(answer)

    async def _call_instead(
        self, job: Job, report: Report, lease: Lease, failure: JobledgerError
    ) -> ProgressResult:
        if failure.code is grpc.StatusCode.UNIMPLEMENTED:
            self._detour.begins(failure, unknown=True)
            return await self._call(job, report, lease)
        try:
            answer = await self._call(job, report, lease)
        except JobledgerError as error:
            # Where a call is not answered either, the stream is not to blame.
            if not is_transient(error):
                self._detour.begins(failure)
            raise
        self._detour.begins(failure)
        return answer

    async def _call(self, job: Job, report: Report, lease: Lease) -> ProgressResult:
        return await attempt(
            lambda: self._client.update_progress(
                job.id,
                report.progress,
                progress_message=report.message,
                attempt=job.attempt,
            ),
            lease.renewal_timeout,
        )


class Detour:
    """Whether reports go without the stream at the moment, and how long still.

    Pure: the clock is a parameter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._next = FIRST_DETOUR
        self._on = self._trying = False

    def stream_is_due(self) -> bool:
        """Whether this report is to try the stream: on a detour, one at a time when it is over."""
        if not self._on:
            return True
        if self._trying or self._clock() < self._until:
            return False
        self._trying = True
        return True

    def tried(self) -> None:
        """Take note that a report that was to try the stream has been answered or given up."""
        self._trying = False

    def begins(self, failure: JobledgerError, *, unknown: bool = False) -> None:
        """Go without the stream for a while; long, where the service does not know it."""
        if self._on and self._clock() < self._until:
            # One of many that had been under way.
            return
        if not self._on:
            _logger.info("no stream for reports (%s); calls do as well", failure)
        seconds = LAST_DETOUR if unknown else self._next
        self._on, self._until = True, self._clock() + seconds
        self._next = min(2 * seconds, LAST_DETOUR)

    def ends(self) -> None:
        """Take note that the stream works."""
        if self._on:
            _logger.info("reports go over a stream again")
        self._on, self._next = False, FIRST_DETOUR
