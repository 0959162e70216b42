"""The load generator of work.py, a program: as load.py, and it can be a worker too."""

import asyncio
import random
import time
from typing import Any

import uvloop
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.grpc_load import Load, Reply, Wrong, connect, main
from benchmarks.load.messages import USER, create_requests
from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_client import AsyncClient
from jobledger_client.worker import ClaimedJob, Worker

WAIT_SECONDS = 60
STAGGER_SECONDS = 0.025


class WorkLoad(Load):
    """All that this process can do; each method is a command."""

    async def claim(
        self,
        *,
        target: str,
        job_type: str,
        claimers: int,
        max_jobs: int,
        warm_up: float,
        seconds: float,
    ) -> Reply:
        """Keep `claimers` calls going; return the jobs a second after the warm-up, and all jobs.

        There must be more jobs than are claimed.
        """
        workers: Any = WorkerServiceStub(connect(target))
        request = worker_service_pb2.ClaimJobsRequest(
            worker_id="claimer",
            job_types=[job_type],
            max_jobs=max_jobs,
            lease_duration=Duration(seconds=3600),
        )
        claimed: list[str] = []
        measured = 0
        begin = time.monotonic() + warm_up
        end = begin + seconds

        async def claimer() -> None:
            nonlocal measured
            while (now := time.monotonic()) < end:
                answer = await workers.ClaimJobs(request)
                if not answer.jobs:
                    raise Wrong("no job is left: the backlog is too small")
                claimed.extend(job.id for job in answer.jobs)
                if now >= begin:
                    measured += len(answer.jobs)

        async with asyncio.TaskGroup() as claiming:
            for _ in range(claimers):
                claiming.create_task(claimer())
        return {"rate": measured / seconds, "claimed": claimed}

    async def make_spaced(
        self, target: str, job_type: str, jobs: int, gap: float, jitter: float
    ) -> Reply:
        """Create one job after the other with pauses; return when each was sent and acknowledged.

        A pause is `gap` seconds and up to `jitter` more.
        """
        stub: Any = JobServiceStub(connect(target))
        made = []
        for request, _ in zip(create_requests(), range(jobs), strict=False):
            request.job_type = job_type
            await asyncio.sleep(gap + random.random() * jitter)
            sent = time.monotonic()
            answer = await stub.CreateJob(request)
            made.append((answer.job.id, sent, time.monotonic()))
        return {"made": made}

    async def take(self, target: str, job_type: str, jobs: int) -> Reply:
        """Wait for jobs, one call after the other; return when each was there."""
        workers: Any = WorkerServiceStub(connect(target))
        request = worker_service_pb2.ClaimJobsRequest(
            worker_id="waiting",
            job_types=[job_type],
            lease_duration=Duration(seconds=3600),
            wait=Duration(seconds=WAIT_SECONDS),
        )
        taken: list[tuple[str, float]] = []
        while len(taken) < jobs:
            answer = await workers.ClaimJobs(request, timeout=WAIT_SECONDS + 10)
            taken.append((answer.jobs[0].id, time.monotonic()))
        return {"taken": taken}

    async def handle(self, target: str, job_type: str, jobs: int) -> Reply:
        """Wait for jobs with the worker library; return when each one's handler started."""
        taken: list[tuple[str, float]] = []
        async with AsyncClient(target) as client:
            worker = Worker(client, worker_id="waiting")

            @worker.handler(job_type)
            async def handler(job: ClaimedJob) -> None:
                taken.append((job.id, time.monotonic()))
                if len(taken) == jobs:
                    worker.stop()

            await worker.run(signals=False)
        return {"taken": taken}

    async def expire(self, target: str, job_type: str, jobs: int, lease: int) -> Reply:
        """Claim jobs, fall silent, and watch; return each one's seconds from expiry to end.

        Twice: as the watcher sees the end, and as the database dates it. The clocks are the
        same, for all run on one machine.
        """
        channel = connect(target)
        stub, workers = JobServiceStub(channel), WorkerServiceStub(channel)
        async with asyncio.TaskGroup() as expiring:
            tasks = []
            for request, number in zip(create_requests(), range(jobs), strict=False):
                request.job_type = f"{job_type}-{number}"
                tasks.append(expiring.create_task(_expire_one(stub, workers, request, lease)))
                await asyncio.sleep(STAGGER_SECONDS)
        return {
            "seen": [task.result()[0] for task in tasks],
            "dated": [t.result()[1] for t in tasks],
        }


async def _expire_one(
    jobs: Any, workers: Any, request: job_service_pb2.CreateJobRequest, lease: int
) -> tuple[float, float]:
    await jobs.CreateJob(request)
    answer = await workers.ClaimJobs(
        worker_service_pb2.ClaimJobsRequest(
            worker_id="silent",
            job_types=[request.job_type],
            lease_duration=Duration(seconds=lease),
        )
    )
    (claimed,) = answer.jobs
    watch = jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=claimed.id, user_id=USER))
    async for message in watch:
        now = time.time()
        if message.job.status == job_pb2.JOB_STATUS_FAILED:
            if message.job.error.reason != "LEASE_EXPIRED":
                raise Wrong(f"a job that was left alone ended with {message.job.error}")
            expiry = _seconds(claimed.lease_expire_time)
            return now - expiry, _seconds(message.job.complete_time) - expiry
    raise Wrong("a watch ended before its job")


def _seconds(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9


if __name__ == "__main__":
    uvloop.run(main(WorkLoad()))
