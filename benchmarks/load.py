"""The load generator, a program: makes calls for whoever writes to its standard input.

One JSON object a line: in, `{"do": NAME, ...arguments}`; out, what came of it, or
`{"error": WHY}`. It is a process of its own so that neither the server nor the one
who measures shares its interpreter. Times are in seconds by the monotonic clock,
which is the same for all processes of a machine.
"""

import asyncio
import gc
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
from messages import USER, create_requests

from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

OPENING = 250
"""Streams that are being opened at once."""

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

    def __init__(self, address: str) -> None:
        channel = connect(address)
        self._jobs: Any = JobServiceStub(channel)
        self._workers: Any = WorkerServiceStub(channel)
        self._requests = create_requests()
        self._running: deque[RunningJob] = deque()

    def operation(self, name: str) -> Callable[[], Awaitable[None]]:
        """Return what makes one call."""
        return {"create": self._create, "progress": self._progress, "get": self.get}[name]

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

    async def _create(self) -> None:
        await self._jobs.CreateJob(next(self._requests))

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
        self._watches: dict[str, Watches] = {}

    def _target(self, address: str) -> Target:
        if address not in self._targets:
            self._targets[address] = Target(address)
        return self._targets[address]

    async def prepare(self, target: str, jobs: int) -> Reply:
        """Create and start so many jobs."""
        async with asyncio.TaskGroup() as making:
            for _ in range(jobs):
                making.create_task(self._target(target).make_job())
        return {}

    async def check(self, target: str, jobs: int) -> Reply:
        """Read every job back and compare it with what was acknowledged."""
        async with asyncio.TaskGroup() as checking:
            for _ in range(jobs):
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
        ends: list[float] = []
        begin = time.monotonic() + warm_up
        end = begin + seconds

        async def caller() -> None:
            while (now := time.monotonic()) < end:
                await call()
                ends.append(now)

        async with asyncio.TaskGroup() as callers:
            for _ in range(in_flight):
                callers.create_task(caller())
        # A call counts where it began: as many that begin before the window end in it as begin
        # in it and end after it.
        measured = sum(1 for started in ends if started >= begin)
        return {"rate": measured / seconds, "calls": len(ends)}

    async def latencies(self, target: str, operation: str, calls: int) -> Reply:
        """Make one call after the other; return each one's seconds."""
        call = self._target(target).operation(operation)
        seconds = []
        for _ in range(calls):
            begin = time.monotonic()
            await call()
            seconds.append(time.monotonic() - begin)
        return {"seconds": seconds}

    async def open(self, target: str, job_id: str, streams: int) -> Reply:
        begin = time.monotonic()
        self._watches[target] = watches = Watches(target)
        await watches.open(job_id, streams)
        gc.freeze()  # or a collection would walk through all of it during a delivery
        return {"seconds": time.monotonic() - begin}

    async def expect(self, target: str, version: int) -> Reply:
        """Be ready for one message on every stream."""
        self._watches[target].expect(version)
        return {}

    async def delivered(self, target: str) -> Reply:
        """Wait until every stream has had it; return when the first, the middle, the last did."""
        times = await self._watches[target].delivered()
        return {"first": times[0], "middle": times[len(times) // 2], "last": times[-1]}

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


class Watches:
    """Many open streams of one job."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._readers: list[asyncio.Task[None]] = []
        self._version = 0
        self._times: list[float] = []
        self._failure: Wrong | None = None
        self._complete = asyncio.Event()

    async def open(self, job_id: str, streams: int) -> None:
        request = job_service_pb2.WatchJobRequest(job_id=job_id, user_id=USER)
        turn = asyncio.Semaphore(OPENING)

        async def open_one(stub: Any) -> None:
            async with turn:
                call = stub.WatchJob(request)
                await call.read()  # the snapshot
            self._readers.append(asyncio.create_task(self._read(call)))

        async with asyncio.TaskGroup() as opening:
            for number in range(streams):
                if number % STREAMS_PER_CONNECTION == 0:
                    stub = JobServiceStub(connect(self._target))
                opening.create_task(open_one(stub))

    def expect(self, version: int) -> None:
        self._version = version
        self._times = []
        self._complete.clear()

    async def delivered(self) -> list[float]:
        await self._complete.wait()
        if self._failure is not None:
            raise self._failure
        return self._times

    async def _read(self, call: Any) -> None:
        try:
            while True:
                message = await call.read()
                now = time.monotonic()
                if message is grpc.aio.EOF or message.job.version != self._version:
                    self._fail(f"a watcher expects version {self._version} and gets {message}")
                    return
                self._times.append(now)
                if len(self._times) == len(self._readers):
                    self._complete.set()
        except grpc.RpcError as error:
            self._fail(f"a watch ended with {error}")

    def _fail(self, why: str) -> None:
        self._failure = Wrong(why)
        self._complete.set()


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
