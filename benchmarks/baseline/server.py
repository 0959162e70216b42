"""The ceiling, a program: a server that does nothing, on the same stack as the real one.

The same grpc.aio on the same event loop with the same options, the same generated
code and messages of the same size, each read and written; no interceptor, no
check, no database, and no garbage collection.

It prints its address and serves until it is killed.
"""

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from benchmarks.load.messages import acknowledgement, full_job
from jobledger.v1 import job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from jobledger.v1.worker_service_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from jobledger_server.rpc.server import OPTIONS

Context = grpc.aio.ServicerContext[Any, Any]


WOKEN_AT_ONCE = 50
"""Streams that write before the event loop looks at its sockets again. All at once is slower."""


class Event:
    """What every open stream waits for: the number of the newest message."""

    def __init__(self) -> None:
        self.number = 1
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def happened(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def happen(self) -> None:
        self.number += 1
        self._wake(len(self._waiting))

    def _wake(self, count: int) -> None:
        for _ in range(min(count, WOKEN_AT_ONCE)):
            self._waiting.popleft().set_result(None)
        if count > WOKEN_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._wake, count - WOKEN_AT_ONCE)


class BareJobService(JobServiceServicer):
    """Answers CreateJob with the same job always; sends WatchJob's streams every event.

    Each CreateJob is an event too: what ClaimJobs waits for.
    """

    def __init__(self, event: Event, created: Event) -> None:
        self._event = event
        self._created = created
        self._job = full_job()

    async def CreateJob(  # noqa: N802
        self, _request: job_service_pb2.CreateJobRequest, _context: Context
    ) -> job_service_pb2.CreateJobResponse:
        self._created.happen()
        return job_service_pb2.CreateJobResponse(job=self._job)

    async def WatchJob(  # type: ignore[override]  # noqa: N802
        self, _request: job_service_pb2.WatchJobRequest, context: Context
    ) -> None:
        message = job_service_pb2.WatchJobResponse(job=self._job)
        while True:
            message.job.version = self._event.number
            await context.write(message)
            await self._event.happened()


class BareWorkerService(WorkerServiceServicer):
    """UpdateProgress is the event; ClaimJobs hands the job to all who wait at a CreateJob.

    ReportProgress acknowledges whatever it reads.
    """

    def __init__(self, event: Event, created: Event) -> None:
        self._event = event
        self._created = created
        self._job = full_job()
        self._acknowledgement = acknowledgement()

    async def ClaimJobs(  # noqa: N802
        self, _request: worker_service_pb2.ClaimJobsRequest, _context: Context
    ) -> worker_service_pb2.ClaimJobsResponse:
        await self._created.happened()
        return worker_service_pb2.ClaimJobsResponse(jobs=[self._job])

    async def UpdateProgress(  # noqa: N802
        self, _request: worker_service_pb2.UpdateProgressRequest, _context: Context
    ) -> worker_service_pb2.UpdateProgressResponse:
        self._event.happen()
        self._job.version = self._event.number
        return worker_service_pb2.UpdateProgressResponse(job=self._job, applied=True)

    # The plainest loop there is: one read, one write.
    async def ReportProgress(  # type: ignore[override]  # noqa: N802
        self,
        reports: AsyncIterator[worker_service_pb2.ReportProgressRequest],
        context: Context,
    ) -> None:
        async for _ in reports:
            await context.write(self._acknowledgement)


async def serve() -> None:
    event, created = Event(), Event()
    server = grpc.aio.server(options=OPTIONS)
    jobs, workers = BareJobService(event, created), BareWorkerService(event, created)  # type: ignore[abstract]
    add_JobServiceServicer_to_server(jobs, server)
    add_WorkerServiceServicer_to_server(workers, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    gc.disable()  # it keeps nothing that a collection would find
    uvloop.run(serve())
