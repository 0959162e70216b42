"""Whole lives of jobs: their owners in one process, their worker in another.

Where every update is to be delivered, both are given a named pipe, through which the process of
the owners says what its watches have received: the worker's handlers wait for that.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, Self

import grpc

from benchmarks.load.messages import USER, create_requests
from benchmarks.load.program import Reply, Wrong, serve
from jobledger.v1 import job_pb2, job_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_client import AsyncClient
from jobledger_client.worker import ClaimedJob, Completed, Worker

IN_FLIGHT = 64
"""Jobs that are alive at once."""

PERCENTS = (20, 40, 60, 80)
JOB_TYPE = "upscale"
"""Not the type of the jobs that other loads create: those stay queued."""


class Lives:
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        self._owners: dict[str, Any] = {}
        self._clients: dict[str, _TimedClient] = {}
        self._pipes: dict[str, int] = {}

    async def live(
        self, *, target: str, jobs: int, pipe: str | None, in_flight: int = IN_FLIGHT
    ) -> Reply:
        """Create jobs, each by a call of its own, and watch each from its creation to its end.

        Return when that began, and of each job its id, when its watch received its end, and its
        last version.
        """
        if target not in self._owners:
            # A connection of its own, not one shared with another channel to the same address.
            options = [("grpc.use_local_subchannel_pool", 1)]
            self._owners[target] = JobServiceStub(grpc.aio.insecure_channel(target, options))
        if pipe is not None and pipe not in self._pipes:
            self._pipes[pipe] = os.open(pipe, os.O_WRONLY)
        stub = self._owners[target]
        file = None if pipe is None else self._pipes[pipe]
        requests = itertools.islice(create_requests(), jobs)
        ended: list[tuple[str, float, int]] = []

        async def owner() -> None:
            for request in requests:
                request.job_type = JOB_TYPE
                created = await stub.CreateJob(request)
                ended.append(await _watch(stub, created.job.id, file))

        begin = time.monotonic()
        async with asyncio.TaskGroup() as owners:
            for _ in range(in_flight):
                owners.create_task(owner())
        return {"begin": begin, "ended": ended}

    async def work(self, *, target: str, jobs: int, pipe: str | None) -> Reply:
        """Do so many jobs with the worker library; return when each one's end was acknowledged.

        Where there is a pipe, handlers send each report themselves, over one stream like the
        library's, and go on when it is acknowledged and its watch has received it. Where there is
        none, they leave their reports to the library.
        """
        if target not in self._clients:
            self._clients[target] = _TimedClient(target)
        client = self._clients[target]
        with nullcontext() if pipe is None else _Deliveries(pipe) as deliveries:
            async with client.report_progress() as reports:

                async def report(job: ClaimedJob) -> None:
                    for percent in PERCENTS:
                        await job.progress(percent, f"step {percent}")

                async def report_each(job: ClaimedJob) -> None:
                    assert deliveries is not None
                    await deliveries.wait(job.id, 0)
                    for percent in PERCENTS:
                        await reports.send(
                            job.id,
                            percent,
                            progress_message=f"step {percent}",
                            attempt=job.attempt,
                        )
                        await deliveries.wait(job.id, percent)

                return await _work(client, jobs, report if deliveries is None else report_each)


class _TimedClient(AsyncClient):
    """A worker's client that keeps when the end of each job was acknowledged."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.ends: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async def transition_job(self, job_id: str, *arguments: Any, **named: Any) -> job_pb2.Job:
        job = await super().transition_job(job_id, *arguments, **named)
        self.ends.put_nowait((job_id, time.monotonic()))
        return job


async def _work(
    client: _TimedClient, jobs: int, report: Callable[[ClaimedJob], Awaitable[None]]
) -> Reply:
    worker = Worker(client, concurrency=IN_FLIGHT, worker_id="worker-1")

    @worker.handler(JOB_TYPE)
    async def handler(job: ClaimedJob) -> Completed:
        await report(job)
        url = f"https://assets.example/{job.id}.png"
        await job.add_asset("image/png", url=url, file_size=1_234_567)
        return Completed({"images": 1})

    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(signals=False))
        ended = [await client.ends.get() for _ in range(jobs)]
        worker.stop()
    return {"ended": ended}


async def _watch(stub: Any, job_id: str, pipe: int | None) -> tuple[str, float, int]:
    """Watch a job to its end; write each new percent to the pipe, if there is one."""
    watch = stub.WatchJob(job_service_pb2.WatchJobRequest(job_id=job_id, user_id=USER))
    seen: set[int] = set()
    while (message := await watch.read()) is not grpc.aio.EOF:
        received = time.monotonic()
        job = message.job
        if pipe is not None and job.progress not in seen:
            # So short a line is written whole or not at all.
            os.write(pipe, f"{job_id} {job.progress}\n".encode())
        seen.add(job.progress)
    if job.status != job_pb2.JOB_STATUS_COMPLETED:
        raise Wrong(f"a watch ended with {job}")
    if pipe is not None and not seen.issuperset(PERCENTS):
        raise Wrong(f"the watch of {job_id} received only {sorted(seen)} percent")
    return job_id, received, job.version


class _Deliveries:
    """What watches have received, read from the pipe. A context manager: in its block it reads."""

    def __init__(self, pipe: str) -> None:
        # For both ways, so that it is not at its end before there is a writer.
        self._file = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        self._begun = b""
        self._seen: dict[str, int] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._file, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)

    async def wait(self, job_id: str, percent: int) -> None:
        """Wait until the job's watch has received so many percent, or more."""
        while self._seen.get(job_id, -1) < percent:
            self._waiting[job_id] = asyncio.get_running_loop().create_future()
            await self._waiting[job_id]

    def _read(self) -> None:
        whole, _, self._begun = (self._begun + os.read(self._file, 65_536)).rpartition(b"\n")
        for line in whole.decode().splitlines():
            job_id, percent = line.split()
            self._seen[job_id] = int(percent)
            waiting = self._waiting.pop(job_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)


if __name__ == "__main__":
    serve(Lives)
