"""The load generator of slow.py, a program: as load.py, and it changes, watches, or stalls.

Each change carries the time at which it was sent, so that whoever is told of it
knows how long that took: the clock is the same for all processes of a machine.
"""

import asyncio
import gc
import itertools
import time
from typing import Any

import grpc
import uvloop

from benchmarks.grpc_load import Load, Reply, Wrong, connect, main
from benchmarks.load.messages import USER, create_requests
from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

PARAMETERS_BYTES = 2048

STALLED_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    # Little fits on the way to one who does not read: the server is held up soon.
    ("grpc.http2.lookahead_bytes", 4096),
    ("grpc.http2.bdp_probe", 0),
]

Jobs = list[tuple[str, str]]
"""The ids of jobs and of their owners."""


class SlowLoad(Load):
    """All that this process can do; each method is a command."""

    async def make_busy(self, target: str, jobs: int) -> Reply:
        """Create and start jobs, each of another owner."""
        channel = connect(target)
        creator: Any = JobServiceStub(channel)
        self._workers: Any = WorkerServiceStub(channel)
        self._busy: Jobs = []
        for request, number in zip(create_requests(), range(jobs), strict=False):
            request.user_id = f"{USER}-{number}"
            request.parameters.update({"filling": "x" * PARAMETERS_BYTES})
            job = (await creator.CreateJob(request)).job
            await self._workers.TransitionJob(
                worker_service_pb2.TransitionJobRequest(
                    job_id=job.id,
                    target_status=job_pb2.JOB_STATUS_PROCESSING,
                    worker_id="worker-1",
                )
            )
            self._busy.append((job.id, job.user_id))
        return {"jobs": self._busy}

    async def begin_changes(self, rate: float) -> Reply:
        """Report on one job after the other, so often a second, until `end_changes`."""
        self._changes = 0
        self._stopped = asyncio.Event()
        self._changing = asyncio.create_task(self._change_all(1 / rate))
        return {}

    async def end_changes(self) -> Reply:
        """Return how many were made."""
        self._stopped.set()
        await self._changing
        return {"changes": self._changes}

    async def _change_all(self, pause: float) -> None:
        due = time.monotonic()
        async with asyncio.TaskGroup() as changing:
            for job_id, _ in itertools.cycle(self._busy):
                if self._stopped.is_set():
                    return
                changing.create_task(self._change(job_id))
                due += pause
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _change(self, job_id: str) -> None:
        request = worker_service_pb2.UpdateProgressRequest(
            job_id=job_id, attempt=1, progress_message=f"{time.monotonic():.6f}"
        )
        answer = await self._workers.UpdateProgress(request)
        if not answer.applied:
            raise Wrong(f"a report on {job_id} was not taken")
        self._changes += 1

    async def watch(self, target: str, jobs: Jobs, streams: int) -> Reply:
        """Watch, and go on reading: half of the streams one job, half all jobs of one owner."""
        stub: Any = JobServiceStub(connect(target))
        self._seconds: list[float] | None = None
        calls = [
            _open(stub, job, every=number % 2 == 1)
            for number, job in zip(range(streams), _twice(jobs), strict=False)
        ]
        await asyncio.gather(*(call.read() for call in calls))
        self._reading = [asyncio.create_task(self._read(call)) for call in calls]
        gc.freeze()
        return {}

    async def time(self, seconds: float) -> Reply:
        """Return the seconds that each delivery took, of those that come in so many seconds."""
        taken: list[float] = []
        self._seconds = taken
        await asyncio.wait(self._reading, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        self._seconds = None
        for reading in self._reading:
            if reading.done():
                reading.result()
        return {"seconds": taken}

    async def _read(self, call: Any) -> None:
        while (message := await call.read()) is not grpc.aio.EOF:
            if self._seconds is not None and message.job.progress_message:
                took = time.monotonic() - float(message.job.progress_message)
                self._seconds.append(round(took, 6))
        raise Wrong("a watch ended before its job")

    async def stall(self, target: str, jobs: Jobs, streams: int) -> Reply:
        """Watch, half of the streams one job and half everything, and read one message of each."""
        self._channels = []
        self._stalled = []
        for number, job in zip(range(streams), _twice(jobs), strict=False):
            channel = grpc.aio.insecure_channel(target, STALLED_OPTIONS)
            self._channels.append(channel)
            owned = job if number % 2 == 0 else ("", "")
            self._stalled.append(_open(JobServiceStub(channel), owned, every=number % 2 == 1))
        await asyncio.gather(*(call.read() for call in self._stalled))
        return {}

    async def release(self) -> Reply:
        """Give the stalled streams up."""
        for call in self._stalled:
            if call.done():
                raise Wrong(f"a stalled watch was ended: {await call.code()}")
            call.cancel()
        for channel in self._channels:
            await channel.close()
        return {}


def _open(stub: Any, job: tuple[str, str], *, every: bool) -> Any:
    job_id, user_id = job
    if every:
        return stub.WatchJobs(job_service_pb2.WatchJobsRequest(user_id=user_id))
    return stub.WatchJob(job_service_pb2.WatchJobRequest(job_id=job_id, user_id=user_id))


def _twice(jobs: Jobs) -> "itertools.chain[tuple[str, str]]":
    """Go round through the jobs without end, naming each twice before the next."""
    return itertools.chain.from_iterable((job, job) for job in itertools.cycle(jobs))


if __name__ == "__main__":
    uvloop.run(main(SlowLoad()))
