"""The load generator, a program: makes calls for whoever writes to its standard input.

One JSON object a line: in, `{"do": NAME, ...arguments}`; out, what came of it, or
`{"error": WHY}`. It is a process of its own so that neither the server nor the one
who measures shares its interpreter. Times are in seconds by the monotonic clock,
which is the same for all processes of a machine.
"""

import asyncio
import json
import sys
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop

from benchmarks.load.messages import BATCH, USER, batch_bodies, create_bodies, create_requests
from benchmarks.load.span import Span
from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

STREAMS_PER_CONNECTION = 1_000

Reply = dict[str, Any]


class Wrong(Exception):
    """An answer was not what it must be."""


def connect(target: str) -> grpc.aio.Channel:
    # Its own connection, not one shared with another channel to the same address.
    return grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


@dataclass(slots=True)
class RunningJob:
    """A job that this process reports on, and what it must look like."""

    id: str
    version: int


class Target:
    """One server, and the jobs that were made on it."""

    def __init__(self, channel: Any) -> None:
        self._jobs: Any = JobServiceStub(channel)
        self._workers: Any = WorkerServiceStub(channel)
        # Of the answers of these two no more is read than is looked at.
        self._create_job = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        self._create_jobs = channel.unary_unary("/jobledger.v1.JobService/BatchCreateJobs")
        self._requests = create_requests()
        self._bodies = create_bodies()
        self._batches = batch_bodies()
        self._running: deque[RunningJob] = deque()

    def operation(self, name: str) -> Callable[[], Awaitable[None]]:
        """Return what makes one call."""
        return {
            "create": self._create,
            "batch": self._create_batch,
            "progress": self._progress,
            "get": self.get,
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
        self._running.append(job)
        return job

    def running(self) -> list[RunningJob]:
        """Return the jobs that were made and started."""
        return list(self._running)

    async def _create(self) -> None:
        await self._create_job(next(self._bodies))

    async def _create_batch(self) -> None:
        answer = await self._create_jobs(next(self._batches))
        made = len(job_service_pb2.BatchCreateJobsResponse.FromString(answer).jobs)
        if made != BATCH:
            raise Wrong(f"{made} jobs were made of {BATCH}")

    async def report(self, job: RunningJob) -> None:
        """Report progress that is news, and see that it was taken as such."""
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

    async def _progress(self) -> None:
        """Report on the job that waited longest: never two reports on one job at once."""
        job = self._running.popleft()
        await self.report(job)
        self._running.append(job)

    async def get(self) -> None:
        """Read the next job, and see that it is as the last answer said."""
        job = self._running[0]
        self._running.rotate(-1)
        answer = await self._jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job.id, user_id=USER))
        if answer.job.version != job.version:
            raise Wrong(f"{job.id} has version {answer.job.version}, reported {job.version}")


class Load:
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}

    def _connect(self, target: str) -> Any:
        """Return a channel for the stubs of a target."""
        return connect(target)

    def _target(self, address: str) -> Target:
        if address not in self._targets:
            self._targets[address] = Target(self._connect(address))
        return self._targets[address]

    async def prepare(self, target: str, jobs: int) -> Reply:
        """Create and start jobs until there are so many."""
        missing = jobs - len(self._target(target).running())
        async with asyncio.TaskGroup() as making:
            for _ in range(missing):
                making.create_task(self._target(target).make_job())
        return {}

    async def check(self, target: str) -> Reply:
        """Read every job back and compare it with what was acknowledged."""
        async with asyncio.TaskGroup() as checking:
            for _ in self._target(target).running():
                checking.create_task(self._target(target).get())
        return {}

    async def rate(
        self, target: str, operation: str, in_flight: int, warm_up: float, seconds: float
    ) -> Reply:
        """Keep `in_flight` calls going; return the rate after the warm-up and all that were made.

        Every call that was begun is waited for, so that `calls` is exactly what
        the server has acknowledged.
        """
        call = self._target(target).operation(operation)
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
        call = self._target(target).operation(operation)
        seconds = []
        for _ in range(calls):
            begin = time.monotonic()
            await call()
            seconds.append(time.monotonic() - begin)
        return {"seconds": seconds}

    async def make_job(self, target: str) -> Reply:
        """Create and start the job that will be watched."""
        job = await self._target(target).make_job()
        return {"job_id": job.id, "version": job.version}

    async def change(self, target: str, job_id: str, version: int) -> Reply:
        """Make one change to a job; return when it was asked for and when acknowledged."""
        job = RunningJob(job_id, version)
        asked = time.monotonic()
        await self._target(target).report(job)
        return {"asked": asked, "acknowledged": time.monotonic()}


async def main(load: Load) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)
        try:
            reply = await getattr(load, command.pop("do"))(**command)
        except Exception:  # noqa: BLE001
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Load()))
