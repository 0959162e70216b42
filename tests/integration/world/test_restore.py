"""A backup is restored while clients go on: what was there is there, and nothing else is."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from random import Random

import pytest

from jobledger import (
    AsyncClient,
    ClaimedJob,
    DeadlineExceeded,
    InvalidToken,
    Job,
    RetryPolicy,
    Unavailable,
    Worker,
)
from jobledger.testing import World
from jobledger_world.world import Store

AGAIN = RetryPolicy(max_attempts=100)

PATIENCE = 600.0
"""Seconds after which all jobs have ended, and the watcher has received that."""


@dataclass
class Clients:
    """Clients that create jobs, work on them and watch them, and what they know."""

    world: World
    random: Random
    created: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Jobs, by when each was asked for and acknowledged."""
    ended: dict[str, tuple[float, Job]] = field(default_factory=dict)
    """Jobs that were seen to be terminal, and when first."""
    seen: dict[str, Job] = field(default_factory=dict)
    """What the watcher shows."""
    tokens: dict[str, float] = field(default_factory=dict)
    gaps: list[Exception] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.world.worker(self._make_worker, processes=2)
        async with asyncio.TaskGroup() as tasks:
            creating = [tasks.create_task(self._create()) for _ in range(2)]
            watching = tasks.create_task(self._watch())
            yield
            for each in creating:
                each.cancel()
            client = self.world.client("ada")
            jobs, deadline = await listed(client), self.world.loop.time() + PATIENCE
            while facts(jobs) != facts(self.seen) or not all(map(is_over, jobs.values())):
                assert self.world.loop.time() < deadline, (facts(jobs), facts(self.seen))
                await asyncio.sleep(1)
                jobs = await listed(client)
            watching.cancel()

    def _make_worker(self, client: AsyncClient) -> Worker:
        worker = Worker(client, concurrency=3, lease=10)

        @worker.handler
        async def render(job: ClaimedJob) -> None:
            await asyncio.sleep(self.random.uniform(0, 2))
            await job.progress(50)
            await asyncio.sleep(self.random.uniform(0, 2))

        return worker

    async def _create(self) -> None:
        client, loop = self.world.client("ada"), self.world.loop
        while True:
            await asyncio.sleep(self.random.expovariate(1))
            asked = loop.time()
            with suppress(Unavailable, DeadlineExceeded):
                job = await client.create_job("render", retry_policy=AGAIN)
                self.created[job.id] = asked, loop.time()

    async def _watch(self) -> None:
        def on_gap(error: Exception) -> None:
            self.gaps.append(error)
            self.seen.clear()

        client, loop = self.world.client("ada"), self.world.loop
        async with client.watch_jobs(on_gap=on_gap) as events:
            async for event in events:
                self.tokens[event.resume_token] = loop.time()
                if event.synced:  # the watch has listed the active jobs; here are the others
                    for job in (await listed(client)).values():
                        self._show(job)
                if event.job is not None:
                    self._show(event.job)
                    if event.job.is_terminal:
                        self.ended.setdefault(event.job.id, (loop.time(), event.job))

    def _show(self, job: Job) -> None:
        if job.id not in self.seen or self.seen[job.id].version < job.version:
            self.seen[job.id] = job


async def listed(client: AsyncClient) -> dict[str, Job]:
    while True:
        with suppress(Unavailable, DeadlineExceeded):
            return {job.id: job async for job in client.list_jobs()}


def is_over(job: Job) -> bool:
    return job.is_terminal


def facts(jobs: Mapping[str, Job]) -> dict[str, tuple[int, str]]:
    return {job_id: (job.version, job.status.name) for job_id, job in jobs.items()}


async def is_refused(client: AsyncClient, token: str) -> bool:
    """Whether a watch cannot go on from a token."""
    while True:
        try:
            async with client.watch_jobs(resume_token=token) as events:
                async for _ in events:
                    return False
        except InvalidToken:
            return True
        except (Unavailable, DeadlineExceeded):
            pass


def restored(seed: int, store: Store, servers: int, *, faults: bool) -> Clients:
    """Run clients through a restore, and check what they are told; return them."""
    world = World(seed, store=store, servers=servers)
    random = world.chance.of("restore")
    clients = Clients(world, random)

    async def main(world: World) -> None:
        async with clients.running(), world.chaos(minutes=5) if faults else nullcontext():
            await asyncio.sleep(random.uniform(0, 30))
            backup, backed_up = world.backup(), world.loop.time()
            known = len(clients.created)
            while len(clients.created) == known:  # something is undone
                await asyncio.sleep(0.1)
            await asyncio.sleep(random.choice((0, 30)) * random.random())
            stopped = world.loop.time()
            await world.restore(backup)
            restored, tokens = world.loop.time(), sorted(clients.tokens)
            await asyncio.sleep(random.uniform(5, 30))
        client = world.client("ada")
        jobs = await listed(client)
        for job_id, (asked, acknowledged) in clients.created.items():
            if acknowledged < backed_up or asked > restored:
                assert job_id in jobs, f"{job_id} was in the backup, or is new"
            elif asked > backed_up and acknowledged < stopped:
                assert job_id not in jobs, f"{job_id} is newer than the backup"
        for job_id, (at, job) in clients.ended.items():
            if at < backed_up:
                assert jobs[job_id] == job, f"{job_id} had ended before the backup"
        for token in tokens:
            assert await is_refused(client, token)

    world.run(main)
    return clients


@pytest.mark.parametrize(
    ("store", "servers", "faults"), [("memory", 3, True), ("sqlite", 1, False)]
)
def test_a_restore_undoes_what_came_after_the_backup_and_voids_the_tokens(
    store: Store, servers: int, *, faults: bool
) -> None:
    clients = restored(1, store, servers, faults=faults)
    assert clients.created
    assert [type(gap) for gap in clients.gaps] == [InvalidToken]
