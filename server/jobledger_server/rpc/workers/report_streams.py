"""ReportProgress: acknowledges reports in their order, each after its commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from jobledger.v1 import job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.state_machine import Decision
from jobledger_server.rpc.messages import report_message
from jobledger_server.rpc.status import report_error
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.rpc.workers.worker_ledger import WorkerLedger
from jobledger_server.rpc.workers.worker_requests import WorkerRequests
from jobledger_server.watch.job_watch import Draining

MAX_WAITING = 1000
"""Unacknowledged reports of one stream; at this number no more are read."""

Read = Callable[[], Awaitable[Any]]
"""Returns the next report, or its error if it cannot be read, or grpc.aio.EOF."""

Write = Callable[[bytes], Awaitable[None]]
"""Sends a serialized ReportProgressResponse."""

Outcome = asyncio.Future[Sequence[Decision]] | Exception


class ReportStreams:
    """Serves streams of reports. Once `draining` is set, no more reports are read."""

    def __init__(
        self,
        ledger: WorkerLedger,
        requests: WorkerRequests,
        draining: asyncio.Event,
        *,
        max_age: float,
    ) -> None:
        self._ledger = ledger
        self._requests = requests
        self._draining = draining
        self._max_age = max_age

    async def serve(self, read: Read, write: Write) -> None:
        """Serve one stream, until the client ends it.

        Raises:
            Draining: The server is shutting down, or the stream reached its maximum age. Every
                report that was read has been acknowledged.
        """
        stream = _Stream(self._ledger, self._requests)
        reading = asyncio.create_task(stream.read(read))
        stopping = asyncio.create_task(self._stop(reading))
        try:
            await stream.acknowledge(write)
            await asyncio.wait([reading])
        finally:
            stopping.cancel()
            reading.cancel()
            stream.abandon()
        if reading.cancelled():
            raise Draining(too_old=not self._draining.is_set())
        reading.result()

    async def _stop(self, reading: "asyncio.Task[None]") -> None:
        """Stop reading when the server drains or the stream reaches its maximum age."""
        try:
            async with asyncio.timeout(StreamAge(self._max_age).remaining()):
                await self._draining.wait()
        except TimeoutError:
            pass
        reading.cancel()


class _Stream:
    """One stream: its unacknowledged reports, oldest first."""

    def __init__(self, ledger: WorkerLedger, requests: WorkerRequests) -> None:
        self._ledger = ledger
        self._requests = requests
        self._waiting: deque[tuple[str, Outcome]] = deque()
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._ended = False

    async def read(self, read: Read) -> None:
        try:
            while (report := await read()) is not grpc.aio.EOF:
                self._waiting.append(self._put(report))
                self._arrived.set()
                while len(self._waiting) >= MAX_WAITING:
                    self._has_room.clear()
                    await self._has_room.wait()
        finally:
            self._ended = True
            self._arrived.set()

    def _put(self, report: pb.ReportProgressRequest | Exception) -> tuple[str, Outcome]:
        """Put a report into the ledger's next batch; return its job's id and its outcome."""
        if isinstance(report, Exception):
            return "", report
        try:
            return report.job_id, self._ledger.put(self._requests.report(report))
        except (InvalidRequest, LimitExceeded) as refusal:
            return report.job_id, refusal

    async def acknowledge(self, write: Write) -> None:
        """Acknowledge each report after its commit, until the stream has ended."""
        while True:
            while self._waiting:
                acknowledgement = await _acknowledgement(*self._waiting[0])
                await write(acknowledgement.SerializeToString())
                self._waiting.popleft()
                self._has_room.set()
            if self._ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def abandon(self) -> None:
        """Drop the reports that cannot be acknowledged any more. They are committed even so."""
        for _, outcome in self._waiting:
            if isinstance(outcome, asyncio.Future) and not outcome.cancel():
                outcome.cancelled() or outcome.exception()


async def _acknowledgement(job_id: str, outcome: Outcome) -> pb.ReportProgressResponse:
    if isinstance(outcome, Exception):
        return _refusal(job_id, outcome)
    try:
        (decision,) = await outcome
    except Exception as error:  # noqa: BLE001
        # The error of one report answers that report and does not affect others.
        return _refusal(job_id, error)
    return report_message(decision)


def _refusal(job_id: str, error: Exception) -> pb.ReportProgressResponse:
    return pb.ReportProgressResponse(job=job_pb2.Job(id=job_id), error=report_error(error))
