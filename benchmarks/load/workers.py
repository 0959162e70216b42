"""Workers: claims at full speed, one that waits for jobs, and one whose lease expires.

python -m benchmarks.load.workers
"""

import asyncio
import random
import time
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.load.calls import Calls
from benchmarks.load.channel import Channel
from benchmarks.load.messages import USER, create_requests
from benchmarks.load.program import Reply, Wrong, serve
from benchmarks.load.span import Span
from jobledger.v1 import job_pb2, job_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import ClaimJobsRequest
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_client import AsyncClient
from jobledger_client.worker import ClaimedJob, Worker

WAIT = Duration(seconds=60)
LONG_LEASE = Duration(seconds=3600)


class Workers(Calls):
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        super().__init__()
        self._claimed: list[str] = []

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
        workers = _workers(target)
        request = ClaimJobsRequest(
            worker_id="claimer",
            job_types=[job_type],
            max_jobs=max_jobs,
            lease_duration=LONG_LEASE,
        )
        claimed: list[str] = []
        measured = 0.0
        begin = time.monotonic() + warm_up
        span = Span(begin, begin + seconds)

        async def claimer() -> None:
            nonlocal measured
            while (sent := time.monotonic()) < span.end:
                answer = await workers.ClaimJobs(request)
                if not answer.jobs:
                    raise Wrong("no job is left: give it a larger --backlog")
                claimed.extend(job.id for job in answer.jobs)
                measured += len(answer.jobs) * span.share(sent, time.monotonic())

        async with asyncio.TaskGroup() as claiming:
            for _ in range(claimers):
                claiming.create_task(claimer())
        self._claimed += claimed
        return {"rate": measured / seconds, "calls": len(claimed)}

    async def claimed(self) -> Reply:
        """Return the ids of all jobs that were claimed since this was asked last."""
        ids, self._claimed = self._claimed, []
        return {"ids": ids}

    async def create_spaced(self, target: str, job_type: str, jobs: int, gap: float) -> Reply:
        """Create one job after the other; return when each was sent and acknowledged.

        A pause is `gap` seconds and up to as much again.
        """
        stub = _jobs(target)
        created = []
        for request, _ in zip(create_requests(), range(jobs), strict=False):
            request.job_type = job_type
            await asyncio.sleep(gap + random.random() * gap)
            sent = time.monotonic()
            answer = await stub.CreateJob(request)
            created.append((answer.job.id, sent, time.monotonic()))
        return {"created": created}

    async def wait_for_jobs(self, target: str, job_type: str, jobs: int) -> Reply:
        """Wait for jobs, one call after the other; return when each was there."""
        workers = _workers(target)
        request = ClaimJobsRequest(
            worker_id="waiting", job_types=[job_type], lease_duration=LONG_LEASE, wait=WAIT
        )
        received: list[tuple[str, float]] = []
        while len(received) < jobs:
            answer = await workers.ClaimJobs(request)
            received.append((answer.jobs[0].id, time.monotonic()))
        return {"received": received}

    async def handle_jobs(self, target: str, job_type: str, jobs: int) -> Reply:
        """Wait for jobs with the worker library; return when each one's handler started."""
        received: list[tuple[str, float]] = []
        async with AsyncClient(target) as client:
            worker = Worker(client, worker_id="waiting")

            @worker.handler(job_type)
            async def handler(job: ClaimedJob) -> None:
                received.append((job.id, time.monotonic()))
                if len(received) == jobs:
                    worker.stop()

            await worker.run(signals=False)
        return {"received": received}

    async def expire(self, target: str, job_type: str, jobs: int, lease: int) -> Reply:
        """Claim jobs and let their leases expire; return each one's seconds from that to its end.

        By `complete_time`, which the database's clock has, as the lease has.
        """
        stub, workers = _jobs(target), _workers(target)
        request = ClaimJobsRequest(
            worker_id="silent", job_types=[job_type], lease_duration=Duration(seconds=lease)
        )
        expiries = {}
        for creation, _ in zip(create_requests(), range(jobs), strict=False):
            creation.job_type = job_type
            await stub.CreateJob(creation)
            (job,) = (await workers.ClaimJobs(request)).jobs
            expiries[job.id] = _seconds(job.lease_expire_time)
        await asyncio.sleep(lease)
        late = []
        for job_id, expiry in expiries.items():
            query = job_service_pb2.GetJobRequest(job_id=job_id, user_id=USER)
            while (job := (await stub.GetJob(query)).job).status != job_pb2.JOB_STATUS_FAILED:
                if time.time() - expiry > lease:
                    raise Wrong(f"a job outlives its lease: {job}")
                await asyncio.sleep(0.05)
            if job.error.reason != "LEASE_EXPIRED":
                raise Wrong(f"a job whose lease expired ended with {job.error}")
            late.append(_seconds(job.complete_time) - expiry)
        return {"late": late}


def _jobs(target: str) -> Any:
    channel: Any = Channel(target)
    return JobServiceStub(channel)


def _workers(target: str) -> Any:
    channel: Any = Channel(target)
    return WorkerServiceStub(channel)


def _seconds(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9


if __name__ == "__main__":
    serve(Workers)
