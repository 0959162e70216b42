"""Calls at full speed: many unary calls at once, one after the other, and streams of reports.

python -m benchmarks.load.calls
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from benchmarks.load.channel import Channel
from benchmarks.load.http2 import CallRefused, connect
from benchmarks.load.messages import BATCH, USER, batch_bodies, create_bodies, create_requests
from benchmarks.load.program import Reply, Wrong, serve
from benchmarks.load.reports import PATH, ReportStream
from benchmarks.load.span import RunningJob, Span
from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub


class Target:
    """One server, and the jobs that were made on it."""

    def __init__(self, address: str) -> None:
        channel: Any = Channel(address)
        self._jobs: Any = JobServiceStub(channel)
        self._workers: Any = WorkerServiceStub(channel)
        # Of the answers of these two no more is read than is checked.
        self._create_job = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        self._create_jobs = channel.unary_unary("/jobledger.v1.JobService/BatchCreateJobs")
        self._requests = create_requests()
        self._bodies = create_bodies()
        self._batches = batch_bodies()
        self.running: deque[RunningJob] = deque()
        """The jobs that were made and started, the one reported on longest ago first."""

    def operation(self, name: str) -> Callable[[], Awaitable[None]]:
        """Return what makes one call."""
        return {
            "create": self._create,
            "batch": self._create_batch,
            "progress": self._progress,
            "get": self.get,
            "claim": self._claim,
            "refused": self._refused,
        }[name]

    async def make_job(self) -> RunningJob:
        """Create and start a job."""
        created = await self._jobs.CreateJob(next(self._requests))
        started = await self._workers.TransitionJob(
            worker_service_pb2.TransitionJobRequest(
                job_id=created.job.id,
                target_status=job_pb2.JOB_STATUS_PROCESSING,
                worker_id="worker-1",
            )
        )
        job = RunningJob(started.job.id, started.job.version)
        self.running.append(job)
        return job

    async def report(self, job: RunningJob) -> None:
        """Report progress that is news, and see that it was accepted as such."""
        answer = await self._workers.UpdateProgress(
            worker_service_pb2.UpdateProgressRequest(
                job_id=job.id,
                attempt=1,
                progress=min(99, job.version // 10),
                progress_message=f"step {job.version:06}",
            )
        )
        if not answer.applied or answer.job.version != job.version + 1:
            raise Wrong(f"a report on version {job.version} of {job.id} was answered {answer}")
        job.version += 1

    async def report_any(self) -> None:
        await self._workers.UpdateProgress(worker_service_pb2.UpdateProgressRequest(job_id="any"))

    async def get(self) -> None:
        """Read the next job, and see that it is as the last answer said."""
        job = self.running[0]
        self.running.rotate(-1)
        answer = await self._jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job.id, user_id=USER))
        if (answer.job.id, answer.job.version) != (job.id, job.version):
            raise Wrong(f"{job.id} has version {answer.job.version}, not {job.version}")

    async def _create(self) -> None:
        await self._create_job(next(self._bodies))

    async def _create_batch(self) -> None:
        answer = await self._create_jobs(next(self._batches))
        made = len(job_service_pb2.BatchCreateJobsResponse.FromString(answer).jobs)
        if made != BATCH:
            raise Wrong(f"{made} jobs were made of {BATCH}")

    async def _progress(self) -> None:
        """Report on the job that waited longest: never two reports on one job at once."""
        job = self.running.popleft()
        await self.report(job)
        self.running.append(job)

    async def _claim(self) -> None:
        answer = await self._workers.ClaimJobs(
            worker_service_pb2.ClaimJobsRequest(
                worker_id="worker-1", job_types=["render"], lease_duration=Duration(seconds=3600)
            )
        )
        if len(answer.jobs) != 1:
            raise Wrong("there is no job to claim")

    async def _refused(self) -> None:
        """Create a job without an owner, which is refused."""
        try:
            await self._create_job(job_service_pb2.CreateJobRequest().SerializeToString())
        except CallRefused:
            return
        raise Wrong("a job without an owner was created")


class Calls:
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}

    def target(self, address: str) -> Target:
        if address not in self._targets:
            self._targets[address] = Target(address)
        return self._targets[address]

    async def prepare(self, target: str, jobs: int) -> Reply:
        """Create and start jobs until there are so many; return their ids."""
        missing = jobs - len(self.target(target).running)
        async with asyncio.TaskGroup() as making:
            for _ in range(missing):
                making.create_task(self.target(target).make_job())
        return {"jobs": [job.id for job in self.target(target).running]}

    async def check(self, target: str) -> Reply:
        """Read every job back and compare it with what was acknowledged."""
        async with asyncio.TaskGroup() as checking:
            for _ in self.target(target).running:
                checking.create_task(self.target(target).get())
        return {}

    async def rate(
        self, target: str, operation: str, in_flight: int, warm_up: float, seconds: float
    ) -> Reply:
        """Keep `in_flight` calls going; return the rate after the warm-up and all that were made.

        Every call that was begun is waited for, so that `calls` is exactly what the server has
        acknowledged.
        """
        call = self.target(target).operation(operation)
        begin = time.monotonic() + warm_up
        span = Span(begin, begin + seconds)
        calls = 0
        measured = 0.0

        async def caller() -> None:
            nonlocal calls, measured
            while (sent := time.monotonic()) < span.end:
                await call()
                calls += 1
                measured += span.share(sent, time.monotonic())

        async with asyncio.TaskGroup() as callers:
            for _ in range(in_flight):
                callers.create_task(caller())
        return {"rate": measured / seconds, "calls": calls}

    async def latencies(self, target: str, operation: str, calls: int) -> Reply:
        """Make one call after the other; return each one's seconds."""
        call = self.target(target).operation(operation)
        seconds = []
        for _ in range(calls):
            begin = time.monotonic()
            await call()
            seconds.append(time.monotonic() - begin)
        return {"seconds": seconds}

    async def report_any(self, target: str) -> Reply:
        """Report on a job that only the bare server knows; return when that was sent."""
        sent = time.monotonic()
        await self.target(target).report_any()
        return {"sent": sent}

    async def write(self, target: str, rate: float, seconds: float) -> Reply:
        """Report on one job after the other at even intervals, never twice at once on one.

        Whether earlier calls were answered or not: a server that is slow does not get fewer.
        Return each change: job, version, and when it was sent and answered.
        """
        made = self.target(target)
        written: list[tuple[str, int, float, float]] = []

        async def report(job: RunningJob) -> None:
            sent = time.monotonic()
            await made.report(job)
            written.append((job.id, job.version, sent, time.monotonic()))
            made.running.append(job)

        begin = time.monotonic()
        async with asyncio.TaskGroup() as reports:
            for number in range(round(rate * seconds)):
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
                while not made.running:  # noqa: ASYNC110 - the rate that was reached is reported
                    await asyncio.sleep(0.001)
                reports.create_task(report(made.running.popleft()))
        return {"written": written, "seconds": time.monotonic() - begin}

    async def report(
        self,
        *,
        target: str,
        streams: int,
        jobs: int,
        window: int,
        known: bool,
        warm_up: float,
        seconds: float,
    ) -> Reply:
        """Report over so many streams, each on `jobs` jobs and on a connection of its own.

        `window` is how many reports of a stream are under way at once; `known` says whether the
        jobs are those that `prepare` made, or invented for a server that knows none. Return the
        rate after the warm-up, and how many were acknowledged: all that were made.
        """
        running = list(self.target(target).running)
        if not known:
            running = [RunningJob("any", 1) for _ in range(streams * jobs)]
        shares = [running[jobs * number : jobs * (number + 1)] for number in range(streams)]
        connections = [await connect(target, PATH) for _ in shares]
        begin = time.monotonic() + warm_up
        span = Span(begin, begin + seconds)
        reporting = [
            ReportStream(connection, share, span, known=known)
            for connection, share in zip(connections, shares, strict=True)
        ]
        for stream in reporting:
            stream.begin(window)
        await asyncio.gather(*(stream.done for stream in reporting))
        for connection in connections:
            connection.close()
        return {
            "rate": sum(stream.measured for stream in reporting) / seconds,
            "calls": sum(stream.acknowledged for stream in reporting),
        }


if __name__ == "__main__":
    serve(Calls)
