"""A worker that fails all jobs of one type, and does those of another one."""

import asyncio
import time

from benchmarks.load import PARAMETERS, USER, Reply, Wrong
from jobledger import AsyncClient, JobStatus, RetryPolicy
from jobledger.worker import ClaimedJob, Completed, Failed, Worker

FAILS, WORKS = "fails", "works"


class Failing:
    """Commands. A process that works does nothing else: what it uses is the worker's."""

    def __init__(self) -> None:
        self._working: asyncio.Task[None] | None = None

    async def work(self, target: str) -> Reply:
        """Work from now on."""
        worker = Worker(target)

        @worker.handler(FAILS)
        async def fail(_: ClaimedJob) -> Failed:
            return Failed("it fails always", reason="UNKNOWN", retryable=True)

        @worker.handler(WORKS)
        async def work(_: ClaimedJob) -> Completed:
            return Completed()

        self._working = asyncio.create_task(worker.run(signals=False))
        return {}

    async def create(self, target: str, jobs: int, attempts: int) -> Reply:
        """Create jobs that will fail, with the usual pauses between so many attempts."""
        policy = RetryPolicy(max_attempts=attempts)
        async with AsyncClient(target, user_id=USER) as client:
            for _ in range(jobs):
                await client.create_job(FAILS, PARAMETERS, retry_policy=policy)
        return {"done": jobs}

    async def serve(self, target: str, jobs: int) -> Reply:
        """Have jobs of the other type done, one by one; return the seconds of each in `each`."""
        each: list[float] = []
        async with AsyncClient(target, user_id=USER) as client:
            for _ in range(jobs):
                begin = time.monotonic()
                job = await client.create_job(WORKS, PARAMETERS)
                if (await client.wait(job.id)).status is not JobStatus.COMPLETED:
                    raise Wrong(f"{job.id} is not COMPLETED")
                each.append(time.monotonic() - begin)
        return {"done": jobs, "each": each}
