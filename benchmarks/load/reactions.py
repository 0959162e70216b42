"""How soon handlers of the worker library start, and how soon they know of a cancellation."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benchmarks.load import PARAMETERS, USER, Reply, Wrong
from jobledger import AsyncClient, JobStatus
from jobledger.worker import ClaimedJob, Completed, Worker

GAP_SECONDS = 0.02
"""Between two jobs, and up to as much again: so that all is idle before each."""


class Reactions:
    """Commands. The worker and the jobs' owner share this process: the times have no transit."""

    async def starts(self, target: str, jobs: int) -> Reply:
        """Return how long after CreateJob's answer each handler started, in seconds."""

        async def start(client: AsyncClient) -> tuple[str, float]:
            created = await client.create_job("start", PARAMETERS)
            return created.id, time.monotonic()

        return await _reactions(target, jobs, start)

    async def cancellations(self, target: str, cancel_at: str, jobs: int) -> Reply:
        """Return how long after CancelJob's answer each handler knew, in seconds.

        Below 0 it knew before. Jobs are cancelled at `cancel_at`, maybe another replica.
        """
        async with AsyncClient(cancel_at, user_id=USER) as canceller:

            async def cancel(client: AsyncClient) -> tuple[str, float]:
                created = await client.create_job("cancel", PARAMETERS)
                async for change in client.watch(created.id):
                    if change.job.status is JobStatus.PROCESSING:
                        break
                await asyncio.sleep(GAP_SECONDS)
                await canceller.cancel_job(created.id)
                return created.id, time.monotonic()

            return await _reactions(target, jobs, cancel)


async def _reactions(
    target: str, jobs: int, act: Callable[[AsyncClient], Awaitable[tuple[str, float]]]
) -> Reply:
    """Act on one job after the other; return how long after that its handler reacted."""
    seconds: list[float] = []
    async with AsyncClient(target, user_id=USER) as client, _working(client) as reacted:
        for _ in range(jobs):
            await asyncio.sleep(GAP_SECONDS * (1 + random.random()))
            job_id, acted = await act(client)
            if (await client.wait(job_id)).status is not JobStatus.COMPLETED:
                raise Wrong(f"{job_id} is not COMPLETED")
            seconds.append(reacted.pop(job_id) - acted)
    return {"seconds": seconds}


@asynccontextmanager
async def _working(client: AsyncClient) -> AsyncIterator[dict[str, float]]:
    """Run a worker; yield when each job's handler has reacted."""
    reacted: dict[str, float] = {}
    worker = Worker(client)

    @worker.handler("start")
    async def start(job: ClaimedJob) -> Completed:
        reacted[job.id] = time.monotonic()
        return Completed()

    @worker.handler("cancel")
    async def wait_for_cancellation(job: ClaimedJob) -> Completed:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            reacted[job.id] = time.monotonic()
        return Completed()

    running = asyncio.create_task(worker.run(signals=False))
    try:
        yield reacted
    finally:
        worker.stop()
        await running
