"""Watches by the Python client that outlive their server: the client opens them again."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from itertools import cycle
from typing import Any

import grpc

from benchmarks.load import Reply, Wrong
from benchmarks.load.messages import create_requests, progress_request
from jobledger.v1 import job_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_client import CHANNEL_OPTIONS, AsyncClient

STREAMS_PER_CONNECTION = 90

JOBS_EACH = 2
"""Running jobs of an owner, each watched by a WatchJob; as many WatchJobs watch both of them."""

AT_ONCE = 100
"""Jobs that are made or changed at once."""


class Restart:
    """Commands."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        """The version that each job has, and that every watch of it must receive."""
        self._watched: set[tuple[int, str]] = set()
        """Each watch, by number, with each of its jobs."""
        self._missing: set[tuple[int, str]] = set()
        """Those of them that have not received the job's version."""
        self._received_all = asyncio.Event()
        self._received_at = 0.0
        self._reading: list[asyncio.Task[None]] = []

    async def hold(self, target: str, owners: list[str]) -> Reply:
        """Make each owner's jobs, open every watch, and wait until it has received them."""
        jobs: dict[str, list[str]] = {owner: [] for owner in owners}
        async with _connect(target) as channel:
            stubs = JobServiceStub(channel), WorkerServiceStub(channel)
            await _at_once(
                self._make_job(*stubs, owner, made)
                for owner, made in jobs.items()
                for _ in range(JOBS_EACH)
            )
        connections = range(-(-2 * len(self._versions) // STREAMS_PER_CONNECTION))
        clients = cycle([AsyncClient(channel=_connect(target)) for _ in connections])
        for owner, made in jobs.items():
            for job_id in made:
                client = next(clients)
                self._begin(client.watch(job_id, user_id=owner), [job_id])
                self._begin(client.watch_jobs(user_id=owner), made)
        await self.received()
        gc.freeze()  # or a collection would walk through all of it during a restart
        return {"watches": len(self._reading)}

    async def change(self, target: str) -> Reply:
        """Change every job through another server than the one that is watched."""
        async with _connect(target) as channel:
            stub: Any = WorkerServiceStub(channel)
            await _at_once(self._report(stub, job_id) for job_id in self._versions)
        self._missing |= self._watched
        self._received_all.clear()
        return {}

    async def received(self) -> Reply:
        """Wait until every watch has received its jobs as they are; return when that was."""
        waiting = asyncio.create_task(self._received_all.wait())
        ended, _ = await asyncio.wait(
            (waiting, *self._reading), return_when=asyncio.FIRST_COMPLETED
        )
        if waiting not in ended:
            raise Wrong(f"a watch ended: {ended.pop().exception()!r}")
        return {"at": self._received_at}

    def _begin(self, stream: AsyncIterator[Any], job_ids: Iterable[str]) -> None:
        number = len(self._reading)
        watched = {(number, job_id) for job_id in job_ids}
        self._watched |= watched
        self._missing |= watched
        self._reading.append(asyncio.create_task(self._read(number, stream)))

    async def _read(self, number: int, stream: AsyncIterator[Any]) -> None:
        async for message in stream:
            job = message.job  # empty in a message that says that the stream is in sync
            if job.version == self._versions.get(job.id):
                self._missing.discard((number, job.id))
                if not self._missing:
                    self._received_at = time.monotonic()
                    self._received_all.set()

    async def _make_job(self, jobs: Any, workers: Any, owner: str, made: list[str]) -> None:
        created = await jobs.CreateJob(next(create_requests(owner)))
        started = await workers.TransitionJob(
            worker_service_pb2.TransitionJobRequest(
                job_id=created.job.id, target_status=job_pb2.JOB_STATUS_PROCESSING
            )
        )
        self._versions[started.job.id] = started.job.version
        made.append(started.job.id)

    async def _report(self, workers: Any, job_id: str) -> None:
        answer = await workers.UpdateProgress(progress_request(job_id, self._versions[job_id]))
        self._versions[job_id] = answer.job.version


async def _at_once(work: Iterable[Awaitable[None]]) -> None:
    """Do it all, AT_ONCE at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def do(one: Awaitable[None]) -> None:
        async with turn:
            await one

    await asyncio.gather(*map(do, work))


def _connect(target: str) -> grpc.aio.Channel:
    # Its own connection, not one shared with another channel to the same address.
    return grpc.aio.insecure_channel(
        target, [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    )
