"""Streams of progress reports: each keeps so many under way for a while, on its jobs in turn."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence

from benchmarks.load.http2 import Call, Connection
from benchmarks.load.program import Wrong
from benchmarks.load.span import RunningJob, Span
from jobledger.v1.worker_service_pb2 import ReportProgressRequest, ReportProgressResponse

PATH = "/jobledger.v1.WorkerService/ReportProgress"


class ReportStream(Call):
    """One stream. Every report is news, and its acknowledgement must say that it was made.

    `known` says whether the server knows the jobs: the bare one does not. `done` is done when
    every report has been acknowledged, `acknowledged` how many there were, and `measured` how
    many of them in the span.
    """

    def __init__(
        self, connection: Connection, jobs: Sequence[RunningJob], span: Span, *, known: bool
    ) -> None:
        super().__init__()
        self._connection = connection
        self._turn = itertools.cycle(jobs)
        self._span = span
        self._known = known
        self._sent: deque[tuple[RunningJob, int]] = deque()
        self.acknowledged = 0
        self.measured = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, window: int) -> None:
        """Send the first reports: so many will be under way until the span ends."""
        self._connection.begin(self)
        for _ in range(window):
            self._report()

    def message(self, body: bytes) -> None:
        now = time.monotonic()
        job, version = self._sent.popleft()
        answer = ReportProgressResponse.FromString(body)
        told = answer.job
        if not answer.applied or (self._known and (told.id, told.version) != (job.id, version)):
            raise Wrong(f"report {version} on {job.id} was answered {answer}")
        self.acknowledged += 1
        self.measured += self._span.has(now)
        if now < self._span.end:
            self._report()
        elif not self._sent:
            self._connection.finish(self)

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        if why is None and self._sent:
            why = Wrong(f"a stream ended before its reports: {trailers!r}")
        if why is None:
            self.done.set_result(None)
        elif not self.done.done():
            self.done.set_exception(why)

    def _report(self) -> None:
        job = next(self._turn)
        report = ReportProgressRequest(
            job_id=job.id,
            attempt=1,
            progress=min(99, job.version // 10),
            progress_message=f"step {job.version:06}",
        )
        job.version += 1
        self._sent.append((job, job.version))
        self._connection.send(self, report.SerializeToString())
