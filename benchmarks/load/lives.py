"""Whole lives of jobs by the Python client, the owners in one process and the worker in another.

The worker is one of the worker library, or its calls are made by hand, one after the other.
"""

import asyncio
import time
from collections import defaultdict
from contextlib import nullcontext
from typing import Self, cast

from benchmarks.load import (
    IN_FLIGHT,
    PARAMETERS,
    PERCENTS,
    USER,
    Life,
    Reply,
    Wrong,
    asset_url,
    live_many,
    result,
)
from jobledger import AsyncClient, Job, JobStatus, JobView
from jobledger.worker import ClaimedJob, Completed, Worker

JOB_TYPE = "upscale"
"""Not the type of the jobs that other loads create: those stay queued."""

ASSET_BYTES = 1_234_567


class Lives:
    """Commands for Jobledger."""

    def __init__(self) -> None:
        self._clients: dict[str, AsyncClient] = {}
        self._worker: Worker | _UnaryWorker | None = None
        self._working: asyncio.Task[None] | None = None

    async def work(
        self,
        target: str,
        every_update: bool = True,  # noqa: FBT001, FBT002
        unary: bool = False,  # noqa: FBT001, FBT002
        asset: bool = True,  # noqa: FBT001, FBT002
        slots: int = IN_FLIGHT,
    ) -> Reply:
        """Begin to do jobs with the worker library, or `unary` with the client's calls.

        Each job has an asset, unless the worker library is to link none. With `every_update`
        handlers wait until each report is committed; else they leave the reports to the library,
        which sends ten a second of a job at most.
        """
        client = self._client(target)
        if unary:
            self._worker = _UnaryWorker(client)
            self._working = asyncio.create_task(self._worker.run())
            return {}
        self._worker = worker = Worker(client, concurrency=slots, worker_id="worker-1")

        @worker.handler(JOB_TYPE)
        async def handle(job: ClaimedJob) -> Completed:
            for percent in PERCENTS:
                await job.progress(percent, f"step {percent}", wait=every_update)
            if asset:
                await job.add_asset("image/png", url=asset_url(job.id), file_size=ASSET_BYTES)
            return Completed(result())

        self._working = asyncio.create_task(worker.run(signals=False))
        return {}

    async def rest(self) -> Reply:
        """Stop working. Of unary calls return when each job's last one was answered."""
        assert self._worker is not None
        assert self._working is not None
        self._worker.stop()
        await self._working
        return {"answered": self._worker.answered} if isinstance(self._worker, _UnaryWorker) else {}

    async def live(
        self,
        target: str,
        jobs: int,
        in_flight: int = IN_FLIGHT,
        one_watch: bool = False,  # noqa: FBT001, FBT002
    ) -> Reply:
        """Create jobs, each by a call of its own, and observe each from its creation to its end.

        Each has a watch of its own, or all have one watch of their owner's jobs, which has the
        results. Return each one's
        life, when each was observed to be COMPLETED and how long after the decision on it, how long
        all took, and how many changes they had.
        """
        client = self._client(target)
        changes = 0
        observed: dict[str, float] = {}
        delays: list[float] = []
        async with _OneWatch(client) if one_watch else nullcontext() as shared:

            async def live() -> Life:
                nonlocal changes
                job_id = (await client.create_job(JOB_TYPE, PARAMETERS)).id
                seen = await (
                    _observe(client, job_id) if shared is None else shared.observe(job_id)
                )
                changes += seen.versions
                observed[job_id] = seen.life[1]
                delays.append(seen.delay)
                return seen.life

            begin = time.monotonic()
            lives = await live_many(jobs, live, in_flight)
            seconds = time.monotonic() - begin
        return {
            "lives": lives,
            "observed": observed,
            "delays": delays,
            "done": jobs,
            "seconds": seconds,
            "changes": changes,
        }

    def _client(self, target: str) -> AsyncClient:
        if target not in self._clients:
            self._clients[target] = AsyncClient(target, user_id=USER)
        return self._clients[target]


class _UnaryWorker:
    """A worker without the worker library: it makes each call by itself and awaits its answer."""

    def __init__(self, client: AsyncClient) -> None:
        self.answered: dict[str, float] = {}
        """When the answer to each job's MarkCompleted came."""
        self._client = client
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Claim jobs for the free slots and do them, until `stop`."""
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(self._claim(group))
            await self._stopping.wait()
            claiming.cancel()

    def stop(self) -> None:
        self._stopping.set()

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        running: set[asyncio.Task[None]] = set()
        while True:
            if len(running) == IN_FLIGHT:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            free = IN_FLIGHT - len(running)
            for job in await self._client.claim_jobs([JOB_TYPE], max_jobs=free, wait=20):
                task = group.create_task(self._do(job))
                running.add(task)
                task.add_done_callback(running.discard)

    async def _do(self, job: Job) -> None:
        fence = job.attempt
        for percent in PERCENTS:
            text = f"step {percent}"
            await self._client.update_progress(
                job.id, percent, progress_message=text, attempt=fence
            )
        url = asset_url(job.id)
        await self._client.create_asset(
            job.id, "image/png", url=url, file_size=ASSET_BYTES, attempt=fence
        )
        await self._client.mark_completed(job.id, result(), attempt=fence)
        self.answered[job.id] = time.monotonic()


class _Observed:
    """What an observer has seen of one job."""

    def __init__(self) -> None:
        self._percents: set[int] = set()
        self.versions = 0
        self.ended = asyncio.Event()
        self.life: Life = (0.0, 0.0, 0)
        self.delay = 0.0

    def see(self, job: Job) -> None:
        now, wall_clock = time.monotonic(), time.time()
        self._percents.add(job.progress)
        self.versions = job.version
        if job.status is JobStatus.COMPLETED and job.result is not None:
            completed = cast("float", job.result["completed"])
            self.life = (completed, now, len(self._percents.intersection(PERCENTS)))
            if job.complete_time is None:
                raise Wrong(f"{job.id} is COMPLETED without a time")
            # Of the database's clock, which on one machine is the observer's.
            self.delay = wall_clock - job.complete_time.timestamp()
            self.ended.set()


async def _observe(client: AsyncClient, job_id: str) -> _Observed:
    """Watch a job until its end."""
    observed = _Observed()
    async for change in client.watch(job_id):
        observed.see(change.job)
    if not observed.ended.is_set():
        raise Wrong(f"the watch of {job_id} ended before the job was COMPLETED")
    return observed


class _OneWatch:
    """One watch of all jobs, which all observers share."""

    def __init__(self, client: AsyncClient) -> None:
        self._watch = client.watch_jobs(job_types=[JOB_TYPE], view=JobView.FULL)
        self._jobs: defaultdict[str, _Observed] = defaultdict(_Observed)
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        while not (await anext(self._watch)).synced:
            pass
        self._reading = asyncio.create_task(self._read())
        return self

    async def observe(self, job_id: str) -> _Observed:
        """Wait for a job's end. Changes may have come before its creator knew its id."""
        await self._jobs[job_id].ended.wait()
        return self._jobs.pop(job_id)

    async def __aexit__(self, *_: object) -> None:
        assert self._reading is not None
        self._reading.cancel()
        await self._watch.aclose()

    async def _read(self) -> None:
        async for event in self._watch:
            if event.job is not None:
                self._jobs[event.job.id].see(event.job)
