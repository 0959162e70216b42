"""The ceiling of lifecycles, a program: the same calls and streams, and nothing behind them.

Jobs live in a dictionary. Each is created, claimed, reported on and ended by the same
messages on the same stack, and its watch receives every change that
no newer one overtakes; but nothing is checked, decided by rules, kept or waited for, and garbage
is not collected.

It prints its address and serves until it is killed.
"""

import asyncio
import gc
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from jobledger.v1 import asset_pb2, job_pb2
from jobledger.v1 import job_service_pb2 as jobs_pb
from jobledger.v1 import worker_service_pb2 as workers_pb
from jobledger.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from jobledger.v1.worker_service_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from jobledger_server.rpc.server import OPTIONS

Context = grpc.aio.ServicerContext[Any, Any]

LEASE_SECONDS = 60
WEEK_SECONDS = 604_800


class Lives:
    """The jobs, what their watches have not received yet, and those that wait for a worker."""

    def __init__(self) -> None:
        self.waiting: deque[job_pb2.Job] = deque()
        self.created = asyncio.Event()
        self.jobs: dict[str, job_pb2.Job] = {}
        self.unsent: defaultdict[str, asyncio.Queue[jobs_pb.WatchJobResponse]]
        self.unsent = defaultdict(asyncio.Queue)

    def create(self, job: job_pb2.Job) -> None:
        self.jobs[job.id] = job
        self._send(job)
        self.waiting.append(job)
        self.created.set()

    def change(self, job: job_pb2.Job) -> None:
        job.version += 1
        job.update_time.seconds, job.update_time.nanos = divmod(time.time_ns(), 10**9)
        self._send(job)

    def end(self, job: job_pb2.Job) -> None:
        self.change(job)
        del self.jobs[job.id]

    def _send(self, job: job_pb2.Job) -> None:
        self.unsent[job.id].put_nowait(jobs_pb.WatchJobResponse(job=job))


class BareJobService(JobServiceServicer):
    """Creates jobs, and sends the changes of each to its watch."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives

    async def CreateJob(  # noqa: N802
        self, request: jobs_pb.CreateJobRequest, _context: Context
    ) -> jobs_pb.CreateJobResponse:
        job = job_pb2.Job(
            id=str(uuid.uuid4()),
            user_id=request.user_id,
            job_type=request.job_type,
            parameters=request.parameters,
            labels=request.labels,
            status=job_pb2.JOB_STATUS_QUEUED,
            max_attempts=1,
            version=1,
        )
        job.create_time.seconds, job.create_time.nanos = divmod(time.time_ns(), 10**9)
        job.update_time.CopyFrom(job.create_time)
        job.queue_expire_time.seconds = job.create_time.seconds + WEEK_SECONDS
        answer = jobs_pb.CreateJobResponse(job=job)
        self._lives.create(job)
        return answer

    async def WatchJob(  # type: ignore[override]  # noqa: N802
        self, request: jobs_pb.WatchJobRequest, context: Context
    ) -> None:
        unsent = self._lives.unsent[request.job_id]
        status = job_pb2.JOB_STATUS_QUEUED
        while status != job_pb2.JOB_STATUS_COMPLETED:
            message = await unsent.get()
            while not unsent.empty():
                message = unsent.get_nowait()
            status = message.job.status
            await context.write(message)
        del self._lives.unsent[request.job_id]


class BareWorkerService(WorkerServiceServicer):
    """Hands jobs out, and applies what their worker reports."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives

    async def ClaimJobs(  # noqa: N802
        self, request: workers_pb.ClaimJobsRequest, _context: Context
    ) -> workers_pb.ClaimJobsResponse:
        lives = self._lives
        try:
            async with asyncio.timeout(request.wait.seconds):
                while not lives.waiting:
                    lives.created.clear()
                    await lives.created.wait()
        except TimeoutError:
            pass
        claimed: list[job_pb2.Job] = []
        while lives.waiting and len(claimed) < request.max_jobs:
            job = lives.waiting.popleft()
            job.status = job_pb2.JOB_STATUS_PROCESSING
            job.attempt = 1
            job.start_time.seconds = int(time.time())
            job.ClearField("queue_expire_time")
            job.worker_id = request.worker_id
            job.lease_expire_time.seconds = int(time.time()) + LEASE_SECONDS
            lives.change(job)
            claimed.append(job)
        return workers_pb.ClaimJobsResponse(jobs=claimed)

    async def ReportProgress(  # type: ignore[override]  # noqa: N802
        self, reports: AsyncIterator[workers_pb.ReportProgressRequest], context: Context
    ) -> None:
        async for report in reports:
            job = self._lives.jobs[report.job_id]
            job.progress = report.progress
            job.progress_message = report.progress_message
            self._lives.change(job)
            brief = job_pb2.Job(
                id=job.id,
                status=job.status,
                version=job.version,
                progress=job.progress,
                attempt=job.attempt,
                update_time=job.update_time,
                lease_expire_time=job.lease_expire_time,
            )
            await context.write(workers_pb.ReportProgressResponse(job=brief, applied=True))

    async def CreateAsset(  # noqa: N802
        self, request: workers_pb.CreateAssetRequest, _context: Context
    ) -> workers_pb.CreateAssetResponse:
        job = self._lives.jobs[request.job_id]
        self._lives.change(job)
        asset = asset_pb2.Asset(
            id=str(uuid.uuid4()),
            job_id=job.id,
            user_id=job.user_id,
            asset_type=request.asset_type,
            url=request.url,
            file_size=request.file_size,
            create_time=job.update_time,
        )
        return workers_pb.CreateAssetResponse(asset=asset)

    async def TransitionJob(  # noqa: N802
        self, request: workers_pb.TransitionJobRequest, _context: Context
    ) -> workers_pb.TransitionJobResponse:
        job = self._lives.jobs[request.job_id]
        job.status = request.target_status
        job.progress = 100
        job.complete_time.seconds = int(time.time())
        job.ClearField("lease_expire_time")
        job.result.CopyFrom(request.result)
        self._lives.end(job)
        return workers_pb.TransitionJobResponse(job=job)


async def serve() -> None:
    lives = Lives()
    server = grpc.aio.server(options=OPTIONS)
    add_JobServiceServicer_to_server(BareJobService(lives), server)  # type: ignore[abstract]
    add_WorkerServiceServicer_to_server(BareWorkerService(lives), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    gc.disable()  # nothing here needs a collection
    uvloop.run(serve())
