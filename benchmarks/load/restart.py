"""Watches that outlive their server, and calls at a steady rate meanwhile.

Every watch is read until its stream breaks, and opened again as the Python client does: after a
random time of up to 100 ms, twice as long after each failure.
"""

import asyncio
import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from benchmarks.load.calls import Target
from benchmarks.load.http2 import CallFailed, CallRefused
from benchmarks.load.messages import USER, create_requests
from benchmarks.load.program import Reply, Wrong, serve
from benchmarks.load.span import RunningJob
from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

STREAMS_PER_CONNECTION = 1_000

FIRST_CAP = 0.1
LAST_CAP = 5.0

JOBS_EACH = 10
"""Jobs of one owner, each watched by a WatchJob; as many WatchJobs watch all of them."""

OWNERS_AT_ONCE = 100
"""Owners whose jobs are made or changed at once."""


class Owner:
    """An owner of jobs. The first of them runs, and is the one that changes."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.job_ids: list[str] = []
        self.running = RunningJob("", 0)

    async def make_jobs(self, jobs: Any, workers: Any) -> None:
        for request, _ in zip(create_requests(), range(JOBS_EACH), strict=False):
            request.user_id = self.user_id
            self.job_ids.append((await jobs.CreateJob(request)).job.id)
        started = await workers.TransitionJob(
            worker_service_pb2.TransitionJobRequest(
                job_id=self.job_ids[0],
                target_status=job_pb2.JOB_STATUS_PROCESSING,
                worker_id="worker-1",
            )
        )
        self.running = RunningJob(started.job.id, started.job.version)


class Watch:
    """One watch, over as many streams as it takes; and which versions of its jobs it received."""

    def __init__(self, stub: Any, owner: Owner, job_id: str | None) -> None:
        self._stub = stub
        self._owner = owner
        self._job_id = job_id
        self._versions: dict[str, int] = {}
        self._token = ""

    def open(self) -> Any:
        user_id = self._owner.user_id
        if self._job_id is None:
            every = job_service_pb2.WatchJobsRequest(user_id=user_id, resume_token=self._token)
            return self._stub.WatchJobs(every)
        seen = self._versions.get(self._job_id, 0)
        return self._stub.WatchJob(
            job_service_pb2.WatchJobRequest(
                job_id=self._job_id, user_id=user_id, after_version=seen
            )
        )

    def take(self, message: Any) -> bool:
        """Keep the version; return whether it is all there was when the stream began."""
        one = self._job_id is not None
        if not one:
            self._token = message.resume_token
        if message.HasField("job") and not message.heartbeat:
            job, seen = message.job, self._versions.get(message.job.id, 0)
            # A stream of one job begins with the job as it stands, known or not.
            if job.version < seen or (job.version == seen and not one):
                raise Wrong(f"version {job.version} of {job.id} was received after {seen}")
            self._versions[job.id] = job.version
        return one or message.synced

    def check(self) -> None:
        """Raise Wrong unless it received the change that its owner's running job has had."""
        job = self._owner.running
        if self._job_id in (None, job.id) and self._versions.get(job.id) != job.version:
            seen = self._versions.get(job.id)
            raise Wrong(f"a watch received version {seen} of {job.id}, which has {job.version}")


class Watchers:
    """All the watches of this process."""

    def __init__(self, target: str, owners: list[Owner]) -> None:
        streams = 2 * JOBS_EACH * len(owners)
        connections = -(-streams // STREAMS_PER_CONNECTION)
        stubs = itertools.cycle([JobServiceStub(_connect(target)) for _ in range(connections)])
        self._watches = [
            Watch(next(stubs), owner, watched)
            for owner in owners
            for job_id in owner.job_ids
            for watched in (job_id, None)
        ]
        self._back = asyncio.Event()
        self._reset()
        self._tasks = [asyncio.create_task(self._keep(watch)) for watch in self._watches]

    def _reset(self) -> None:
        self._first: list[tuple[float, float]] = []
        self._synced: list[float] = []
        self._codes: Counter[str] = Counter()
        self._broken = 0

    async def come_back(self) -> Reply:
        """Open every watch, and wait until each has had all that there was."""
        self._reset()
        self._back.set()
        await self._until(lambda: len(self._synced) == len(self._watches))
        for watch in self._watches:
            watch.check()
        return {
            "last": max(first for _, first in self._first),
            "synced": max(self._synced),
            "seconds": [round(first - begin, 6) for begin, first in self._first],
            "codes": dict(self._codes),
        }

    def expect_break(self) -> None:
        """From now on streams may break; none is opened again before `come_back`."""
        self._back.clear()

    async def broken(self) -> Reply:
        """Wait until every stream has broken."""
        await self._until(lambda: self._broken == len(self._watches))
        return {}

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)

    async def _keep(self, watch: Watch) -> None:
        while True:
            await self._back.wait()
            cap = FIRST_CAP
            await asyncio.sleep(random.uniform(0, cap))
            begin = time.monotonic()
            call = watch.open()
            while (first := await self._read(call)) is None:
                cap = min(2 * cap, LAST_CAP)
                await asyncio.sleep(random.uniform(0, cap))
                call = watch.open()
            self._first.append((begin, time.monotonic()))
            synced = watch.take(first)
            while not synced and (message := await self._read(call)) is not None:
                synced = watch.take(message)
            if synced:
                self._synced.append(time.monotonic())
                await self._read_on(watch, call)
            if self._back.is_set():
                raise Wrong("a watch broke while its server ran")
            self._broken += 1

    async def _read(self, call: Any) -> Any:
        """Return the next message; None where the stream broke, which is counted."""
        try:
            message = await call.read()
        except grpc.RpcError as error:
            self._codes[error.code().name] += 1
            return None
        if message is grpc.aio.EOF:
            raise Wrong("a watch ended before its job")
        return message

    async def _read_on(self, watch: Watch, call: Any) -> None:
        while (message := await self._read(call)) is not None:
            watch.take(message)


class Steady:
    """Makes calls at a steady pace, whether or not those before them were answered."""

    def __init__(self, calls: dict[str, Callable[[], Awaitable[None]]], rate: float) -> None:
        self._calls = calls
        self._pause = 1 / rate
        self._stopped = asyncio.Event()
        self.seconds: dict[str, list[float]] = {name: [] for name in calls}
        self.failed: Counter[str] = Counter()
        self._run = asyncio.create_task(self._make())

    async def stop(self) -> None:
        """Begin no more; wait for those that were begun."""
        self._stopped.set()
        await self._run

    async def _make(self) -> None:
        due = time.monotonic()
        async with asyncio.TaskGroup() as calling:
            while not self._stopped.is_set():
                for name, call in self._calls.items():
                    calling.create_task(self._time(name, call, due))
                due += self._pause
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _time(self, name: str, call: Callable[[], Awaitable[None]], due: float) -> None:
        """Time a call from when it was due: one that is made late is a slow one."""
        try:
            await call()
        except (CallFailed, CallRefused) as error:
            self.failed[str(error)] += 1
        else:
            self.seconds[name].append(time.monotonic() - due)


class Restart:
    """All that this process can do; each method is a command."""

    async def hold(self, target: str, name: str, owners: int) -> Reply:
        """Make owners and their jobs, and open every watch."""
        channel = _connect(target)
        stubs = JobServiceStub(channel), WorkerServiceStub(channel)
        self._owners = [Owner(f"{USER}-{name}-{number}") for number in range(owners)]
        await _at_once(owner.make_jobs(*stubs) for owner in self._owners)
        await channel.close()
        self._watchers = Watchers(target, self._owners)
        reply = await self._watchers.come_back()
        gc.freeze()  # or a collection would walk through all of it during a restart
        return {"codes": reply["codes"]}

    async def expect_break(self) -> Reply:
        self._watchers.expect_break()
        return {}

    async def broken(self) -> Reply:
        return await self._watchers.broken()

    async def change_away(self, target: str) -> Reply:
        """Change one job of each owner, through another server than the one that is watched."""
        other = Target(target)
        await _at_once(other.report(owner.running) for owner in self._owners)
        return {}

    async def come_back(self) -> Reply:
        return await self._watchers.come_back()

    async def begin_calls(self, target: str, rate: float) -> Reply:
        """Make so many calls of each kind a second, until `end_calls`."""
        caller = Target(target)  # with connections to the server that runs now
        await caller.make_job()
        calls = {"GetJob": caller.get, "CreateJob": caller.operation("create")}
        self._steady = Steady(calls, rate)
        return {}

    async def end_calls(self) -> Reply:
        """Return each call's seconds from when it was due, and which failed."""
        await self._steady.stop()
        return {"seconds": self._steady.seconds, "failed": dict(self._steady.failed)}


async def _at_once(work: Iterable[Awaitable[None]]) -> None:
    """Do it all, for so many owners at once."""
    turn = asyncio.Semaphore(OWNERS_AT_ONCE)

    async def do(one: Awaitable[None]) -> None:
        async with turn:
            await one

    await asyncio.gather(*map(do, work))


def _connect(target: str) -> grpc.aio.Channel:
    # Its own connection, not one shared with another channel to the same address.
    return grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


if __name__ == "__main__":
    serve(Restart)
