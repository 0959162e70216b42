"""The load generator of lifecycle.py, a program: as load.py, and jobs live their whole lives here.

One process is the owners, who create jobs and watch them; another one is the worker. Where every
update is to be delivered, both are given a named pipe, by which the worker's handlers learn what
their watchers have been told.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import grpc
import uvloop

from benchmarks.grpc_load import Load, Reply, Wrong, connect, main
from benchmarks.lifecycle_sightings import Sightings, Teller
from benchmarks.load.messages import USER, create_requests
from jobledger.v1 import job_pb2, job_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_client import AsyncClient
from jobledger_client.worker import ClaimedJob, Completed, Worker

IN_FLIGHT = 64
"""Jobs that live at once."""

PERCENTS = (20, 40, 60, 80)
JOB_TYPE = "upscale"
"""Not the type of the jobs that other loads create: those stay queued."""


class LifecycleLoad(Load):
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        super().__init__()
        self._owners: dict[str, Any] = {}
        self._clients: dict[str, TimedClient] = {}
        self._tellers: dict[str, Teller] = {}

    async def live(
        self, *, target: str, jobs: int, pipe: str | None, in_flight: int = IN_FLIGHT
    ) -> Reply:
        """Create jobs, each by a call of its own, and watch each from its creation to its end.

        Return when that began, and of each job its id, when its watcher knew of its end, and its
        last version.
        """
        if target not in self._owners:
            self._owners[target] = JobServiceStub(connect(target))
        if pipe is not None and pipe not in self._tellers:
            self._tellers[pipe] = Teller(pipe)
        stub = self._owners[target]
        teller = None if pipe is None else self._tellers[pipe]
        requests = itertools.islice(create_requests(), jobs)
        told: list[tuple[str, float, int]] = []

        async def owner() -> None:
            for request in requests:
                request.job_type = JOB_TYPE
                created = await stub.CreateJob(request)
                told.append(await _watch(stub, created.job.id, teller))

        begin = time.monotonic()
        async with asyncio.TaskGroup() as owners:
            for _ in range(in_flight):
                owners.create_task(owner())
        return {"begin": begin, "told": told}

    async def work(self, *, target: str, jobs: int, pipe: str | None) -> Reply:
        """Do so many jobs with the worker library; return when each one's end was acknowledged.

        Where there is a pipe, handlers send each report themselves, over one stream like the
        library's, and go on when it is acknowledged and their watcher has been told of it. Where
        there is none, they leave their reports to the library.
        """
        if target not in self._clients:
            self._clients[target] = TimedClient(target)
        client = self._clients[target]
        with nullcontext() if pipe is None else Sightings(pipe) as sightings:
            async with client.report_progress() as reports:

                async def report(job: ClaimedJob) -> None:
                    for percent in PERCENTS:
                        await job.progress(percent, f"step {percent}")

                async def report_each(job: ClaimedJob) -> None:
                    assert sightings is not None
                    await sightings.wait(job.id, 0)
                    for percent in PERCENTS:
                        words = f"step {percent}"
                        await reports.send(
                            job.id, percent, progress_message=words, attempt=job.attempt
                        )
                        await sightings.wait(job.id, percent)

                return await _work(client, jobs, report if sightings is None else report_each)


class TimedClient(AsyncClient):
    """A worker's client that takes down when the end of each job was acknowledged."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.ends: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async def transition_job(self, job_id: str, *arguments: Any, **named: Any) -> job_pb2.Job:
        job = await super().transition_job(job_id, *arguments, **named)
        self.ends.put_nowait((job_id, time.monotonic()))
        return job


async def _work(
    client: TimedClient, jobs: int, report: Callable[[ClaimedJob], Awaitable[None]]
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


async def _watch(stub: Any, job_id: str, teller: Teller | None) -> tuple[str, float, int]:
    watch = stub.WatchJob(job_service_pb2.WatchJobRequest(job_id=job_id, user_id=USER))
    seen: set[int] = set()
    while (message := await watch.read()) is not grpc.aio.EOF:
        told = time.monotonic()
        job = message.job
        if teller is not None and job.progress not in seen:
            teller.tell(job_id, job.progress)
        seen.add(job.progress)
    if job.status != job_pb2.JOB_STATUS_COMPLETED:
        raise Wrong(f"a watch ended with {job}")
    if teller is not None and not seen.issuperset(PERCENTS):
        raise Wrong(f"the watcher of {job_id} was told only of {sorted(seen)} percent")
    return job_id, told, job.version


if __name__ == "__main__":
    uvloop.run(main(LifecycleLoad()))
