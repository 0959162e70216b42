"""The load generator of lifecycle.py, a program: as load.py, and jobs live their whole lives here.

One process is the owners, who create jobs and watch them; another one is the worker.
"""

import asyncio
import itertools
import time
from typing import Any

import grpc
import uvloop
from load import Load, Reply, Wrong, connect, main
from messages import USER, create_requests

from jobledger.v1 import job_pb2, job_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_client import AsyncClient
from jobledger_client.worker import ClaimedJob, Completed, Worker

IN_FLIGHT = 64
"""Jobs that live at once."""

PERCENTS = (20, 40, 60, 80)
JOB_TYPE = "render"


class LifecycleLoad(Load):
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        super().__init__()
        self._owners: dict[str, Any] = {}
        self._clients: dict[str, TimedClient] = {}

    async def live(self, *, target: str, jobs: int, every_update: bool) -> Reply:
        """Create jobs, each by a call of its own, and watch each from its creation to its end.

        Return when that began, and of each job its id, when its watcher knew of its end, and its
        last version.
        """
        stub = self._owners.setdefault(target, JobServiceStub(connect(target)))
        requests = itertools.islice(create_requests(), jobs)
        told: list[tuple[str, float, int]] = []

        async def owner() -> None:
            for request in requests:
                request.job_type = JOB_TYPE
                created = await stub.CreateJob(request)
                told.append(await _watch(stub, created.job.id, every_update=every_update))

        begin = time.monotonic()
        async with asyncio.TaskGroup() as owners:
            for _ in range(IN_FLIGHT):
                owners.create_task(owner())
        return {"begin": begin, "told": told}

    async def work(self, *, target: str, jobs: int, every_update: bool) -> Reply:
        """Do so many jobs with the worker library; return when each one's end was acknowledged.

        every_update: the handler sends each report itself, over a stream like the library's, and
            waits for its acknowledgement. Otherwise it leaves its reports to the library.
        """
        if target not in self._clients:
            self._clients[target] = TimedClient(target)
        client = self._clients[target]
        worker = Worker(client, concurrency=IN_FLIGHT, worker_id="worker-1")
        async with client.report_progress() as reports, asyncio.TaskGroup() as group:

            @worker.handler(JOB_TYPE)
            async def handler(job: ClaimedJob) -> Completed:
                for percent in PERCENTS:
                    words = f"step {percent}"
                    if every_update:
                        await reports.send(
                            job.id, percent, progress_message=words, attempt=job.attempt
                        )
                    else:
                        await job.progress(percent, words)
                url = f"https://assets.example/{job.id}.png"
                await job.add_asset("image/png", url=url, file_size=1_234_567)
                return Completed({"images": 1})

            group.create_task(worker.run(signals=False))
            ended = [await client.ends.get() for _ in range(jobs)]
            worker.stop()
        return {"ended": ended}


class TimedClient(AsyncClient):
    """A worker's client that takes down when the end of each job was acknowledged."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.ends: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async def transition_job(self, job_id: str, *arguments: Any, **named: Any) -> job_pb2.Job:
        job = await super().transition_job(job_id, *arguments, **named)
        self.ends.put_nowait((job_id, time.monotonic()))
        return job


async def _watch(stub: Any, job_id: str, *, every_update: bool) -> tuple[str, float, int]:
    watch = stub.WatchJob(job_service_pb2.WatchJobRequest(job_id=job_id, user_id=USER))
    seen: set[int] = set()
    while (message := await watch.read()) is not grpc.aio.EOF:
        told = time.monotonic()
        job = message.job
        seen.add(job.progress)
    if job.status != job_pb2.JOB_STATUS_COMPLETED:
        raise Wrong(f"a watch ended with {job}")
    if every_update and not seen.issuperset(PERCENTS):
        raise Wrong(f"the watcher of {job_id} was told only of {sorted(seen)} percent")
    return job_id, told, job.version


if __name__ == "__main__":
    uvloop.run(main(LifecycleLoad()))
