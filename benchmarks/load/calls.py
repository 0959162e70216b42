"""Calls at full speed: many unary calls at once, one after the other, and streams of updates."""

import asyncio
import itertools
import math
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from benchmarks.load import BATCH, COMMITS_USER, JOB_TYPE, USER, Reply, Wrong
from benchmarks.load.http2 import Call, Connection, connect
from benchmarks.load.messages import append, create_requests, report, update
from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import JobUpdate, WorkHello, WorkRequest, WorkResponse
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

WORK = "/jobledger.v1.WorkerService/Work"
LONG_LEASE = Duration(seconds=3600)


@dataclass(slots=True)
class RunningJob:
    """A job that is updated: its version, and what was appended to its output."""

    id: str
    version: int
    appends: int = 0
    end: int = 0
    checksum: int = 0


class Target:
    """One server, and the jobs that were made on it.

    Operations are the methods that return a number: each makes one call, checks its answer, and
    returns how many jobs or reports it was of.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        channel: Any = connection
        self.jobs: Any = JobServiceStub(channel)
        self.workers: Any = WorkerServiceStub(channel)
        self._requests = create_requests()
        self.running: deque[RunningJob] = deque()
        """The jobs that were made and started, the one reported on longest ago first."""
        self.claimed: list[str] = []

    async def make_job(self) -> None:
        """Create and start a job."""
        self.running.append(await self._start())

    async def live(self) -> int:
        """Create, start and complete a job."""
        job = await self._start()
        request = worker_service_pb2.MarkCompletedRequest(job_id=job.id, attempt=1)
        await self.workers.MarkCompleted(request)
        return 1

    async def _start(self) -> RunningJob:
        created = await self.jobs.CreateJob(next(self._requests))
        started = await self.workers.TransitionJob(
            worker_service_pb2.TransitionJobRequest(
                job_id=created.job.id,
                target_status=job_pb2.JOB_STATUS_PROCESSING,
                worker_id="worker-1",
            )
        )
        return RunningJob(started.job.id, started.job.version)

    async def report(self, job: RunningJob) -> None:
        """Report progress that is news, and see that it was accepted as such."""
        answer = await self.workers.UpdateProgress(report(job.id, job.version))
        if not answer.applied or answer.job.version != job.version + 1:
            raise Wrong(f"a report on version {job.version} of {job.id} was answered {answer}")
        job.version += 1

    async def get(self) -> int:
        """Read the next job, and see that it is as the last answer said."""
        job = self.running[0]
        self.running.rotate(-1)
        answer = await self.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job.id, user_id=USER))
        if (answer.job.id, answer.job.version) != (job.id, job.version):
            raise Wrong(f"{job.id} has version {answer.job.version}, not {job.version}")
        return 1

    async def create(self) -> int:
        await self.jobs.CreateJob(next(self._requests))
        return 1

    async def create_batch(self) -> int:
        requests = itertools.islice(self._requests, BATCH)
        answer = await self.jobs.BatchCreateJobs(
            job_service_pb2.BatchCreateJobsRequest(user_id=USER, requests=requests)
        )
        if len(answer.jobs) != BATCH:
            raise Wrong(f"{len(answer.jobs)} jobs were made of {BATCH}")
        return BATCH

    async def progress(self) -> int:
        """Report on the job that waited longest: never two reports on one job at once."""
        job = self.running.popleft()
        await self.report(job)
        self.running.append(job)
        return 1

    async def claim(self, max_jobs: int = 1) -> int:
        answer = await self.workers.ClaimJobs(
            worker_service_pb2.ClaimJobsRequest(
                worker_id="worker-1",
                job_types=[JOB_TYPE],
                max_jobs=max_jobs,
                lease_duration=LONG_LEASE,
            )
        )
        if not answer.jobs:
            raise Wrong("no job is left to claim: give it a larger --backlog")
        self.claimed += (job.id for job in answer.jobs)
        return len(answer.jobs)

    async def claim_many(self) -> int:
        return await self.claim(20)

    async def claim_32(self) -> int:
        return await self.claim(32)

    async def claim_100(self) -> int:
        return await self.claim(100)


class Calls:
    """Commands. Every call that is begun is waited for: `done` is what the server acknowledged."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}

    async def prepare(self, target: str, jobs: int) -> Reply:
        """Create and start jobs until there are that many; return their ids.

        None are kept from an earlier server that ended: another one may have its port.
        """
        if target in self._targets and self._targets[target].connection.closed:
            del self._targets[target]
        made = await self._target(target)
        async with asyncio.TaskGroup() as making:
            for _ in range(jobs - len(made.running)):
                making.create_task(made.make_job())
        return {"jobs": [job.id for job in made.running]}

    async def check(self, target: str) -> Reply:
        """Read every job back and compare it with what was acknowledged."""
        made = await self._target(target)
        async with asyncio.TaskGroup() as checking:
            for _ in made.running:
                checking.create_task(made.get())
        return {}

    async def claimed(self, target: str) -> Reply:
        """Return the ids of all jobs that were claimed since this was asked last."""
        made = await self._target(target)
        ids, made.claimed = made.claimed, []
        return {"ids": ids}

    async def rate(self, target: str, operation: str, in_flight: int, seconds: float) -> Reply:
        """Keep `in_flight` calls going for a while."""
        call = getattr(await self._target(target), operation)
        begin = time.monotonic()
        done = 0

        async def caller() -> None:
            nonlocal done
            while time.monotonic() < begin + seconds:
                units = await call()
                done += units  # not in one: others have added to it since

        async with asyncio.TaskGroup() as callers:
            for _ in range(in_flight):
                callers.create_task(caller())
        return {"done": done, "seconds": time.monotonic() - begin}

    async def alone(self, target: str, operation: str, calls: int) -> Reply:
        """Make one call after the other; return the seconds of each in `each`."""
        call = getattr(await self._target(target), operation)
        done, each = 0, []
        for _ in range(calls):
            begin = time.monotonic()
            done += await call()
            each.append(time.monotonic() - begin)
        return {"done": done, "seconds": sum(each), "each": each}

    async def commit(self, target: str, jobs: int) -> Reply:
        """Create jobs in one commit; return when that was asked for."""
        stub = (await self._target(target)).jobs
        request = job_service_pb2.BatchCreateJobsRequest(user_id=COMMITS_USER)
        for each in itertools.islice(create_requests(), jobs):
            request.requests.append(each)
            request.requests[-1].user_id = COMMITS_USER
        begin = time.monotonic()
        await stub.BatchCreateJobs(request)
        return {"begin": begin}

    async def update(
        self,
        target: str,
        streams: int,
        seconds: float,
        *,
        window: int = 0,
        size: int = 0,
        rate: float = 0.0,
    ) -> Reply:
        """Report over streams of Work, each on its share of the jobs and its own connection.

        With a `size`, append so many bytes of output instead. At most `window` updates of a stream
        are unanswered. A message with N results is followed by a message with N updates. Without a
        window messages of one update are sent at even intervals, and have the time in them.

        Return the end of each job's output with its checksum, which then begins anew.
        """
        running = list((await self._target(target)).running)
        connections = [await connect(target) for _ in range(streams)]
        begin = time.monotonic()
        end = begin + seconds if window else math.inf
        reporting = [
            _UpdateStream(connection, running[number::streams], window, end, size)
            for number, connection in enumerate(connections)
        ]
        for number, stream in zip(range(round(rate * seconds)), itertools.cycle(reporting)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            stream.update(1)
        if not window:
            for stream in reporting:
                stream.end()
        await asyncio.gather(*(stream.done for stream in reporting))
        took = time.monotonic() - begin
        for connection in connections:
            connection.close()
        outputs = [(job.end, job.checksum) for job in running]
        if not window:
            for job in running:
                job.checksum = 0
        done = sum(stream.acknowledged for stream in reporting)
        return {"done": done, "seconds": took, "outputs": outputs}

    async def write(self, target: str, rate: float, seconds: float) -> Reply:
        """Report on one job after the other at even intervals, never twice at once on one.

        Whether earlier calls were answered or not: a server that is slow does not get fewer.
        Return each change: job, version, and when it was due and answered.
        """
        made = await self._target(target)
        written: list[tuple[str, int, float, float]] = []

        async def report(job: RunningJob, due: float) -> None:
            await made.report(job)
            written.append((job.id, job.version, due, time.monotonic()))
            made.running.append(job)

        begin = time.monotonic()
        async with asyncio.TaskGroup() as reports:
            for number in range(round(rate * seconds)):
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                while not made.running:  # noqa: ASYNC110 - it counts as the call's time
                    await asyncio.sleep(0.001)
                reports.create_task(report(made.running.popleft(), due))
        return {"written": written}

    async def _target(self, address: str) -> Target:
        """Return a target; connect to it anew where its server has been started again."""
        known = self._targets.get(address)
        if known is None or known.connection.closed:
            target = self._targets[address] = Target(await connect(address))
            if known is not None:
                target.running = known.running
        return self._targets[address]


class _UpdateStream(Call):
    """A stream of Work. Every update is news, and its result must say that it was made.

    Without a window nothing but `update` makes one. `done` is done when every update has its
    result.
    """

    def __init__(
        self,
        connection: Connection,
        jobs: Sequence[RunningJob],
        window: int,
        end: float,
        size: int,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._turn = itertools.cycle(jobs)
        self._end = end
        self._window = window
        self._size = size
        self._sent: deque[tuple[RunningJob, int]] = deque()
        self.acknowledged = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.begin(self, WORK)
        self.update(window, WorkHello(worker_id="worker-1", job_types=[JOB_TYPE]))

    def end(self) -> None:
        """Make no more updates."""
        self._end = 0.0
        if not self._sent:
            self._connection.finish(self)

    def message(self, body: bytes) -> None:
        results = WorkResponse.FromString(body).results
        for result in results:
            job, after = self._sent.popleft()
            position = result.next_offset if self._size else result.version
            if result.HasField("error") or (result.job_id, position) != (job.id, after):
                raise Wrong(f"an update of {job.id} to {after} had the result {result}")
        self.acknowledged += len(results)
        if time.monotonic() < self._end:
            if self._window:
                self.update(len(results))
        elif not self._sent:
            self._connection.finish(self)

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        if why is None and self._sent:
            why = Wrong(f"a stream ended before its updates had results: {trailers!r}")
        if why is None:
            self.done.set_result(None)
        elif not self.done.done():
            self.done.set_exception(why)

    def update(self, count: int, hello: WorkHello | None = None) -> None:
        """Update the next jobs in one message."""
        jobs = itertools.islice(self._turn, count)
        message = WorkRequest(hello=hello, updates=[self._next(job) for job in jobs])
        self._connection.send(self, message.SerializeToString())

    def _next(self, job: RunningJob) -> JobUpdate:
        if self._size:
            job.appends += 1
            made = append(job.id, job.appends, self._size)
            job.checksum = zlib.crc32(made.output.data, job.checksum)
            job.end += self._size
        else:
            made = update(job.id, job.version, timed=not self._window)
            job.version += 1
        self._sent.append((job, job.end if self._size else job.version))
        return made
