"""The load generator of feed.py, a program: as load.py, and it can write steadily and follow."""

import asyncio
import time
from collections import deque
from typing import Any

import grpc
import uvloop

from benchmarks.grpc_load import Load, Reply, RunningJob, Wrong, connect, main
from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

AT_ONCE = 50
"""Jobs that are made at the same time."""

QUIET_SECONDS = 5.0
"""A follower has heard everything when it has heard nothing for so long."""


class FeedLoad(Load):
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        super().__init__()
        self._idle: deque[RunningJob] = deque()

    async def start_jobs(self, target: str, jobs: int) -> Reply:
        """Create and start the jobs that `write` reports on."""
        self._idle.clear()
        for _ in range(0, jobs, AT_ONCE):
            making = (self._target(target).make_job() for _ in range(AT_ONCE))
            self._idle += await asyncio.gather(*making)
        return {}

    async def write(self, target: str, rate: float, seconds: float) -> Reply:
        """Report progress `rate` times a second; return each change and its times.

        At even intervals, whether earlier calls were answered or not: a server that is slow
        does not get fewer. Never two at once on one job.
        """
        workers: Any = WorkerServiceStub(connect(target))
        written: list[tuple[str, int, float, float]] = []

        async def report(job: RunningJob) -> None:
            sent = time.monotonic()
            answer = await workers.UpdateProgress(
                worker_service_pb2.UpdateProgressRequest(
                    job_id=job.id, attempt=1, progress_message=f"step {job.version:06}"
                )
            )
            job.version += 1
            if not answer.applied or answer.job.version != job.version:
                raise Wrong(f"a report on {job.id} was answered {answer}")
            written.append((job.id, job.version, sent, time.monotonic()))
            self._idle.append(job)

        begin = time.monotonic()
        async with asyncio.TaskGroup() as reports:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
                while not self._idle:  # noqa: ASYNC110 - the rate that was reached is printed
                    await asyncio.sleep(0.001)
                reports.create_task(report(self._idle.popleft()))
        return {"written": written, "seconds": time.monotonic() - begin}

    async def follow(self, targets: list[str], changes: int) -> Reply:
        """Watch all jobs at each of the servers until so many changes, or all there are, are told.

        Return for each server the messages: job, version, when.
        """
        async with asyncio.TaskGroup() as following:
            tasks = [following.create_task(_follow(target, changes)) for target in targets]
        return {"told": [task.result() for task in tasks]}


async def _follow(target: str, changes: int) -> list[tuple[str, int, float]]:
    stub: Any = JobServiceStub(connect(target))
    watch = stub.WatchJobs(job_service_pb2.WatchJobsRequest())
    told: list[tuple[str, int, float]] = []
    versions: dict[str, int] = {}
    heard = 0
    try:
        while heard < changes:
            # Only then: the first change comes when it comes.
            patience = QUIET_SECONDS if heard else None
            async with asyncio.timeout(patience):
                message = await watch.read()
            now = time.monotonic()
            if message is grpc.aio.EOF:
                raise Wrong(f"a watch ended with {await watch.code()}")
            job = message.job
            if job.status != job_pb2.JOB_STATUS_PROCESSING:
                continue
            # A message stands for the changes that it skips.
            if job.id in versions:
                heard += job.version - versions[job.id]
                told.append((job.id, job.version, now))
            versions[job.id] = job.version
    except TimeoutError:
        pass
    finally:
        watch.cancel()
    return told


if __name__ == "__main__":
    uvloop.run(main(FeedLoad()))
