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
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import uvloop
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import asset_pb2, job_pb2
from jobledger.v1 import job_service_pb2 as jobs_pb
from jobledger.v1 import worker_service_pb2 as workers_pb
from jobledger.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from jobledger.v1.worker_service_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from jobledger_server.rpc.serving.server import OPTIONS

Context = grpc.aio.ServicerContext[Any, Any]

KEPT = 20_000
"""Jobs of a type that wait for a worker, and terminal jobs; the oldest are dropped."""

RETRY_POLICY = job_pb2.RetryPolicy(
    max_attempts=1,
    initial_backoff=Duration(seconds=1),
    max_backoff=Duration(seconds=300),
    backoff_multiplier=2,
)
"""The defaults."""

WEEK_SECONDS = 604_800
HOUR_SECONDS = 3_600


class _BareStream:
    """A stream of Work: how many jobs it may hold, and holds."""

    def __init__(self) -> None:
        self.slots = self.held = 0
        self.changed = asyncio.Event()
        self.writing = asyncio.Lock()


class Bare(JobServiceServicer, WorkerServiceServicer):
    """Both services, as far as they are measured."""

    def __init__(self) -> None:
        self._jobs: dict[str, job_pb2.Job] = {}
        """Jobs without their parameters and results."""
        self._parameters: dict[str, Any] = {}
        self._results: dict[str, Any] = {}
        self._waiting: defaultdict[str, OrderedDict[str, job_pb2.Job]] = defaultdict(OrderedDict)
        self._ended: OrderedDict[str, job_pb2.Job] = OrderedDict()
        self._created = asyncio.Event()
        self._changed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._watched: list[dict[str, job_pb2.Job]] = []
        self._any_changed = asyncio.Event()

    async def CreateJob(  # noqa: N802
        self, request: jobs_pb.CreateJobRequest, _context: Context
    ) -> jobs_pb.CreateJobResponse:
        return jobs_pb.CreateJobResponse(job=self._create(request, request.user_id))

    async def BatchCreateJobs(  # noqa: N802
        self, request: jobs_pb.BatchCreateJobsRequest, _context: Context
    ) -> jobs_pb.BatchCreateJobsResponse:
        jobs = [self._create(one, request.user_id) for one in request.requests]
        return jobs_pb.BatchCreateJobsResponse(jobs=jobs)

    async def GetJob(  # noqa: N802
        self, request: jobs_pb.GetJobRequest, _context: Context
    ) -> jobs_pb.GetJobResponse:
        job = self._jobs[request.job_id]
        return jobs_pb.GetJobResponse(job=self._full(job, result=self._results.get(job.id)))

    async def WatchJob(  # type: ignore[override]  # noqa: N802
        self, request: jobs_pb.WatchJobRequest, context: Context
    ) -> None:
        """Send every change that no newer one overtakes.

        The parameters come with the first message, and the result with the last.
        """
        job = self._jobs[request.job_id]
        changed = self._changed[job.id]
        sent, status = 0, job_pb2.JOB_STATUS_QUEUED  # a job that has ended is sent too
        while status != job_pb2.JOB_STATUS_COMPLETED:
            if job.version == sent:
                await changed.wait()
            message = jobs_pb.WatchJobResponse(job=job)
            if not sent:
                message.job.parameters.CopyFrom(self._parameters[job.id])
            sent, status = job.version, job.status
            if status == job_pb2.JOB_STATUS_COMPLETED:
                message.job.result.CopyFrom(self._results[job.id])
            await context.write(message)
        self._changed.pop(job.id, None)

    async def WatchJobs(  # type: ignore[override]  # noqa: N802
        self, request: jobs_pb.WatchJobsRequest, context: Context
    ) -> None:
        """Send what has changed since the message before, of all owners, in one message."""
        full = request.view == job_pb2.JOB_VIEW_FULL
        await context.write(jobs_pb.WatchJobsResponse(synced=True))
        changes: dict[str, job_pb2.Job] = {}
        self._watched.append(changes)
        try:
            while True:
                while not changes:
                    await self._any_changed.wait()
                ready = [jobs_pb.JobChange(job=job) for job in changes.values()]
                changes.clear()
                for change in ready if full else ():
                    if result := self._results.get(change.job.id):
                        change.job.result.CopyFrom(result)
                await context.write(
                    jobs_pb.WatchJobsResponse(changes=jobs_pb.JobChanges(changes=ready))
                )
        finally:
            self._watched.remove(changes)

    async def ClaimJobs(  # noqa: N802
        self, request: workers_pb.ClaimJobsRequest, _context: Context
    ) -> workers_pb.ClaimJobsResponse:
        claimed: list[job_pb2.Job] = []
        (job_type,) = request.job_types
        waiting = self._waiting[job_type]
        with suppress(TimeoutError):
            async with asyncio.timeout(request.wait.seconds):
                while not waiting:
                    await self._created.wait()
        while waiting and len(claimed) < max(1, request.max_jobs):
            _, job = waiting.popitem(last=False)
            claimed.append(self._full(self._start(job, request.worker_id)))
        return workers_pb.ClaimJobsResponse(jobs=claimed)

    async def TransitionJob(  # noqa: N802
        self, request: workers_pb.TransitionJobRequest, _context: Context
    ) -> workers_pb.TransitionJobResponse:
        job = self._jobs[request.job_id]
        if request.target_status == job_pb2.JOB_STATUS_PROCESSING:
            del self._waiting[job.job_type][job.id]
            return workers_pb.TransitionJobResponse(job=self._start(job, request.worker_id))
        self._finish(job, request.target_status, request.finish.result)
        return workers_pb.TransitionJobResponse(job=job)

    async def MarkCompleted(  # noqa: N802
        self, request: workers_pb.MarkCompletedRequest, _context: Context
    ) -> workers_pb.MarkCompletedResponse:
        job = self._jobs[request.job_id]
        self._finish(job, job_pb2.JOB_STATUS_COMPLETED, request.finish.result)
        return workers_pb.MarkCompletedResponse(job=job)

    async def UpdateProgress(  # noqa: N802
        self, request: workers_pb.UpdateProgressRequest, _context: Context
    ) -> workers_pb.UpdateProgressResponse:
        job = self._report(self._jobs[request.job_id], request.progress)
        return workers_pb.UpdateProgressResponse(job=job, applied=True)

    async def Work(  # type: ignore[override]  # noqa: N802
        self, messages: AsyncIterator[workers_pb.WorkRequest], context: Context
    ) -> None:
        """Answer each message in one, and push jobs while there are free slots."""
        stream = _BareStream()
        pushing: asyncio.Task[None] | None = None
        try:
            async for message in messages:
                if pushing is None:
                    pushing = asyncio.create_task(self._push(message.hello, stream, context))
                if message.HasField("slots"):
                    stream.slots = message.slots
                answer = workers_pb.WorkResponse(
                    results=[self._update(update, stream) for update in message.updates]
                )
                answer.heartbeat = not message.updates
                stream.changed.set()
                async with stream.writing:
                    await context.write(answer)
        finally:
            if pushing is not None:
                pushing.cancel()

    async def _push(
        self, hello: workers_pb.WorkHello, stream: "_BareStream", context: Context
    ) -> None:
        (job_type,) = hello.job_types
        waiting = self._waiting[job_type]
        while True:
            while not (waiting and stream.held < stream.slots):
                # Of a job or of a slot, whichever is missing.
                await (self._created if not waiting else stream.changed).wait()
                stream.changed.clear()
            jobs = []
            while waiting and stream.held < stream.slots:
                _, job = waiting.popitem(last=False)
                jobs.append(self._full(self._start(job, hello.worker_id)))
                stream.held += 1
            async with stream.writing:
                await context.write(workers_pb.WorkResponse(jobs=jobs))

    def _update(
        self, update: workers_pb.JobUpdate, stream: "_BareStream"
    ) -> workers_pb.UpdateResult:
        job, asset = self._jobs[update.job_id], None
        match update.WhichOneof("update"):
            case "progress":
                self._report(job, update.progress)
            case "asset":
                asset = self._link(job, update.asset.asset)
            case "finish":
                self._finish(job, update.finish.status, update.finish.result)
                stream.held -= 1
        return workers_pb.UpdateResult(
            job_id=job.id, version=job.version, applied=True, asset=asset
        )

    def _finish(self, job: job_pb2.Job, status: Any, result: Any) -> None:
        job.status = status
        job.progress = 100
        job.ClearField("lease_expire_time")
        job.held = False
        self._results[job.id] = result
        self._keep(self._ended, job)
        self._change(job)
        job.complete_time.CopyFrom(job.update_time)

    async def CreateAsset(  # noqa: N802
        self, request: workers_pb.CreateAssetRequest, _context: Context
    ) -> workers_pb.CreateAssetResponse:
        return workers_pb.CreateAssetResponse(
            asset=self._link(self._jobs[request.job_id], request.asset.asset)
        )

    def _link(self, job: job_pb2.Job, asset: asset_pb2.NewAsset) -> asset_pb2.Asset:
        self._change(job)
        return asset_pb2.Asset(
            id=str(uuid.uuid4()),
            job_id=job.id,
            user_id=job.user_id,
            asset_type=asset.asset_type,
            url=asset.url,
            file_size=asset.file_size,
            create_time=job.update_time,
        )

    def _create(self, request: jobs_pb.CreateJobRequest, user_id: str) -> job_pb2.Job:
        job = job_pb2.Job(
            id=str(uuid.uuid4()),
            user_id=user_id,
            job_type=request.job_type,
            labels=request.labels,
            status=job_pb2.JOB_STATUS_QUEUED,
            retry_policy=RETRY_POLICY,
        )
        self._change(job)
        job.create_time.CopyFrom(job.update_time)
        job.queue_expire_time.seconds = job.create_time.seconds + WEEK_SECONDS
        self._jobs[job.id] = job
        self._parameters[job.id] = request.parameters
        self._keep(self._waiting[job.job_type], job)
        _happen(self._created)
        return job

    def _start(self, job: job_pb2.Job, worker_id: str) -> job_pb2.Job:
        job.status = job_pb2.JOB_STATUS_PROCESSING
        job.attempt = 1
        job.worker_id = worker_id
        job.held = True
        job.ClearField("queue_expire_time")
        job.start_time.seconds = int(time.time())
        job.lease_expire_time.seconds = job.start_time.seconds + HOUR_SECONDS
        return self._change(job)

    def _full(self, job: job_pb2.Job, result: Any = None) -> job_pb2.Job:
        full = job_pb2.Job()
        full.CopyFrom(job)
        full.parameters.CopyFrom(self._parameters[job.id])
        if result is not None:
            full.result.CopyFrom(result)
        return full

    def _report(self, job: job_pb2.Job, report: workers_pb.ProgressUpdate) -> job_pb2.Job:
        job.progress = report.progress
        job.progress_message = report.progress_message
        return self._change(job)

    def _change(self, job: job_pb2.Job) -> job_pb2.Job:
        job.version += 1
        job.update_time.seconds, job.update_time.nanos = divmod(time.time_ns(), 10**9)
        if changed := self._changed.get(job.id):
            _happen(changed)
        for changes in self._watched:
            changes[job.id] = job
        if self._watched:
            _happen(self._any_changed)
        return job

    def _keep(self, jobs: OrderedDict[str, job_pb2.Job], job: job_pb2.Job) -> None:
        jobs[job.id] = job
        if len(jobs) > KEPT:
            oldest, _ = jobs.popitem(last=False)
            for part in (self._jobs, self._parameters, self._results):
                part.pop(oldest, None)


def _happen(event: asyncio.Event) -> None:
    """Wake those who wait for it now."""
    event.set()
    event.clear()


async def serve(port: str) -> None:
    bare = Bare()  # type: ignore[abstract]
    server = grpc.aio.server(options=OPTIONS)
    add_JobServiceServicer_to_server(bare, server)
    add_WorkerServiceServicer_to_server(bare, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    gc.disable()  # nothing here needs a collection
    uvloop.run(serve(sys.argv[1]))
