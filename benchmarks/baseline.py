"""The ceiling, a program: the service's calls on the same stack, with nothing behind them.

The same grpc.aio on the same event loop with the same options, the same generated code, the same
messages. Jobs live in a dictionary; nothing is checked, decided by rules or kept, no interceptor
runs, and garbage is not collected.

`python -m benchmarks.baseline PORT` serves until it is killed.
"""

import asyncio
import gc
import sys
import time
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import suppress
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

KEPT = 20_000
"""Jobs of a type that wait for a worker, and jobs that have ended; the oldest are forgotten."""

WOKEN_AT_ONCE = 50
"""Streams that write before the event loop looks at its sockets again. All at once is slower."""

WEEK_SECONDS = 604_800
HOUR_SECONDS = 3_600


class Event:
    """What streams and claims wait for."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def happened(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def happen(self) -> None:
        self._wake(len(self._waiting))

    def _wake(self, count: int) -> None:
        for _ in range(min(count, WOKEN_AT_ONCE)):
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
        if count > WOKEN_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._wake, count - WOKEN_AT_ONCE)


class Jobs:
    """The jobs, what happens to each while it is watched, and which wait for a worker."""

    def __init__(self) -> None:
        self.all: dict[str, job_pb2.Job] = {}
        self._waiting: defaultdict[str, OrderedDict[str, job_pb2.Job]] = defaultdict(OrderedDict)
        self._ended: OrderedDict[str, job_pb2.Job] = OrderedDict()
        self.watched: dict[str, Event] = {}
        self.created = Event()

    def create(self, request: jobs_pb.CreateJobRequest) -> job_pb2.Job:
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
        self.all[job.id] = job
        self._keep(self._waiting[job.job_type], job)
        self.created.happen()
        return job

    def claim(self, request: workers_pb.ClaimJobsRequest) -> list[job_pb2.Job]:
        claimed: list[job_pb2.Job] = []
        for job_type in request.job_types:
            waiting = self._waiting[job_type]
            while waiting and len(claimed) < max(1, request.max_jobs):
                claimed.append(next(iter(waiting.values())))
                self.start(claimed[-1], request.worker_id)
        return claimed

    def start(self, job: job_pb2.Job, worker_id: str) -> None:
        self._waiting[job.job_type].pop(job.id, None)
        job.status = job_pb2.JOB_STATUS_PROCESSING
        job.attempt = 1
        job.worker_id = worker_id
        job.ClearField("queue_expire_time")
        job.start_time.seconds = int(time.time())
        job.lease_expire_time.seconds = job.start_time.seconds + HOUR_SECONDS
        self.changed(job)

    def report(self, report: Any) -> job_pb2.Job:
        job = self.all[report.job_id]
        job.progress = report.progress
        job.progress_message = report.progress_message
        self.changed(job)
        return job

    def end(self, request: workers_pb.TransitionJobRequest) -> job_pb2.Job:
        job = self.all[request.job_id]
        job.status = request.target_status
        job.progress = 100
        job.ClearField("lease_expire_time")
        job.complete_time.seconds = int(time.time())
        job.result.CopyFrom(request.result)
        self.changed(job)
        self._keep(self._ended, job)
        return job

    def _keep(self, kept: OrderedDict[str, job_pb2.Job], job: job_pb2.Job) -> None:
        kept[job.id] = job
        if len(kept) > KEPT:
            oldest, _ = kept.popitem(last=False)
            del self.all[oldest]

    def changed(self, job: job_pb2.Job) -> None:
        job.version += 1
        job.update_time.seconds, job.update_time.nanos = divmod(time.time_ns(), 10**9)
        if event := self.watched.get(job.id):
            event.happen()


class BareJobService(JobServiceServicer):
    """The owners' calls that are measured."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def CreateJob(  # noqa: N802
        self, request: jobs_pb.CreateJobRequest, _context: Context
    ) -> jobs_pb.CreateJobResponse:
        return jobs_pb.CreateJobResponse(job=self._jobs.create(request))

    async def BatchCreateJobs(  # noqa: N802
        self, request: jobs_pb.BatchCreateJobsRequest, _context: Context
    ) -> jobs_pb.BatchCreateJobsResponse:
        jobs = []
        for one in request.requests:
            one.user_id = request.user_id
            jobs.append(self._jobs.create(one))
        return jobs_pb.BatchCreateJobsResponse(jobs=jobs)

    async def GetJob(  # noqa: N802
        self, request: jobs_pb.GetJobRequest, _context: Context
    ) -> jobs_pb.GetJobResponse:
        return jobs_pb.GetJobResponse(job=self._jobs.all[request.job_id])

    async def WatchJob(  # type: ignore[override]  # noqa: N802
        self, request: jobs_pb.WatchJobRequest, context: Context
    ) -> None:
        """Send every change that no newer one overtakes."""
        job = self._jobs.all[request.job_id]
        event = self._jobs.watched.setdefault(job.id, Event())
        sent = 0
        while True:
            if job.version == sent:
                await event.happened()
            sent, status = job.version, job.status
            await context.write(jobs_pb.WatchJobResponse(job=job))
            if status == job_pb2.JOB_STATUS_COMPLETED:
                break
        self._jobs.watched.pop(job.id, None)


class BareWorkerService(WorkerServiceServicer):
    """The workers' calls that are measured."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def ClaimJobs(  # noqa: N802
        self, request: workers_pb.ClaimJobsRequest, _context: Context
    ) -> workers_pb.ClaimJobsResponse:
        with suppress(TimeoutError):
            async with asyncio.timeout(request.wait.seconds):
                while not (claimed := self._jobs.claim(request)):
                    await self._jobs.created.happened()
        return workers_pb.ClaimJobsResponse(jobs=claimed)

    async def TransitionJob(  # noqa: N802
        self, request: workers_pb.TransitionJobRequest, _context: Context
    ) -> workers_pb.TransitionJobResponse:
        if request.target_status == job_pb2.JOB_STATUS_PROCESSING:
            job = self._jobs.all[request.job_id]
            self._jobs.start(job, request.worker_id)
        else:
            job = self._jobs.end(request)
        return workers_pb.TransitionJobResponse(job=job)

    async def UpdateProgress(  # noqa: N802
        self, request: workers_pb.UpdateProgressRequest, _context: Context
    ) -> workers_pb.UpdateProgressResponse:
        return workers_pb.UpdateProgressResponse(job=self._jobs.report(request), applied=True)

    async def ReportProgress(  # type: ignore[override]  # noqa: N802
        self, reports: AsyncIterator[workers_pb.ReportProgressRequest], context: Context
    ) -> None:
        async for report in reports:
            job = self._jobs.report(report)
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
        job = self._jobs.all[request.job_id]
        self._jobs.changed(job)
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


async def serve(port: str) -> None:
    jobs = Jobs()
    server = grpc.aio.server(options=OPTIONS)
    add_JobServiceServicer_to_server(BareJobService(jobs), server)  # type: ignore[abstract]
    add_WorkerServiceServicer_to_server(BareWorkerService(jobs), server)  # type: ignore[abstract]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    gc.disable()  # nothing here needs a collection
    uvloop.run(serve(sys.argv[1]))
