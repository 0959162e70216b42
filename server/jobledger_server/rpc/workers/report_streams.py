"""ReportProgress: reports in, acknowledgements out, in the same order and after their commits."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from jobledger.v1 import job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.state_machine import Decision
from jobledger_server.rpc.failures import report_error
from jobledger_server.rpc.messages import report_message
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.rpc.workers.worker_ledger import WorkerLedger
from jobledger_server.rpc.workers.worker_requests import WorkerRequests
from jobledger_server.watch.job_watch import Draining

MAX_WAITING = 1000
"""Reports of one stream that wait for their acknowledgements; then no more are read."""

Read = Callable[[], Awaitable[Any]]
"""The next report, or grpc.aio.EOF. An unreadable one comes as what is wrong with it."""

Write = Callable[[bytes], Awaitable[None]]
"""Sends a serialized ReportProgressResponse."""

Outcome = asyncio.Future[Sequence[Decision]] | Exception


class ReportStreams:
    """Serves streams of reports. Where `draining` is set, no more is read of any."""

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
        """Take reports until their sender has no more. Raises Draining.

        Whatever was read is acknowledged first.
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
        """Let no more be read when the server drains or the stream is old."""
        try:
            async with asyncio.timeout(StreamAge(self._max_age).remaining()):
                await self._draining.wait()
        except TimeoutError:
            pass
        reading.cancel()


class _Stream:
    """One stream: what was read and not yet acknowledged, oldest first."""

    def __init__(self, ledger: WorkerLedger, requests: WorkerRequests) -> None:
        self._ledger = ledger
        self._requests = requests
        self._waiting: deque[tuple[str, Outcome]] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False

    async def read(self, read: Read) -> None:
        try:
            while (report := await read()) is not grpc.aio.EOF:
                self._waiting.append(self._taken(report))
                self._arrived.set()
                while len(self._waiting) >= MAX_WAITING:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._arrived.set()

    def _taken(self, report: pb.ReportProgressRequest | Exception) -> tuple[str, Outcome]:
        """Put a report into the ledger's next batch; return its job's id and what comes of it."""
        if isinstance(report, Exception):
            return "", report
        try:
            return report.job_id, self._ledger.put(self._requests.report(report))
        except (InvalidRequest, LimitExceeded) as refusal:
            return report.job_id, refusal

    async def acknowledge(self, write: Write) -> None:
        """Acknowledge each report after its commit, until all are and no more come."""
        while True:
            while self._waiting:
                acknowledgement = await _acknowledgement(*self._waiting[0])
                await write(acknowledgement.SerializeToString())
                self._waiting.popleft()
                self._room.set()
            if self._ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def abandon(self) -> None:
        """Let go of what nobody will be told: it is done all the same."""
        for _, outcome in self._waiting:
            if isinstance(outcome, asyncio.Future) and not outcome.cancel():
                outcome.cancelled() or outcome.exception()


async def _acknowledgement(job_id: str, outcome: Outcome) -> pb.ReportProgressResponse:
    if isinstance(outcome, Exception):
        return _refusal(job_id, outcome)
    try:
        (decision,) = await outcome
    except Exception as error:  # noqa: BLE001
        # Whatever is wrong with one report is its own answer, and no other's.
        return _refusal(job_id, error)
    return report_message(decision)


def _refusal(job_id: str, error: Exception) -> pb.ReportProgressResponse:
    return pb.ReportProgressResponse(job=job_pb2.Job(id=job_id), error=report_error(error))
