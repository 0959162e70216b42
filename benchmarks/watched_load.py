"""The load generator of watched.py, a program: as http2_load.py, with a watch for each job.

One process of it writes, at even intervals; another one watches, so that neither waits for the
other's interpreter.
"""

import asyncio
import time

import uvloop

from benchmarks.http2 import Call, Connection, connect
from benchmarks.http2_load import Http2Load
from benchmarks.load import STREAMS_PER_CONNECTION, Reply, RunningJob, Wrong, main
from benchmarks.messages import USER
from benchmarks.watching import OPENING, PATH
from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse

Told = tuple[str, int, float, float]
"""A job, its version, when its watcher was told by the monotonic clock, and how many
seconds after the service had decided on it."""


class WatchedLoad(Http2Load):
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[Told] = []

    async def make(self, target: str, jobs: int) -> Reply:
        """Make and start so many jobs; return their ids and versions."""
        await self.prepare(target, jobs)
        return {"jobs": [(job.id, job.version) for job in self._target(target).running()]}

    async def write(self, target: str, rate: float, seconds: float) -> Reply:
        """Report progress on one job after the other, at even intervals.

        Whether earlier calls were answered or not: a server that is slow does not get fewer.
        Return each change: job, version, and when it was sent and answered.
        """
        running = self._target(target).running()
        written: list[tuple[str, int, float, float]] = []

        async def report(job: RunningJob) -> None:
            sent = time.monotonic()
            await self._target(target).report(job)
            written.append((job.id, job.version, sent, time.monotonic()))

        begin = time.monotonic()
        async with asyncio.TaskGroup() as reports:
            for number in range(round(rate * seconds)):
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
                reports.create_task(report(running[number % len(running)]))
        return {"written": written, "seconds": time.monotonic() - begin}

    async def watch_each(self, target: str, job_ids: list[str]) -> Reply:
        """Open a watch for each job, and wait until each has told how the job stands."""
        turn = asyncio.Semaphore(OPENING)

        async def open_one(connection: Connection, job_id: str) -> None:
            async with turn:
                watch = _Watch(self._told)
                request = WatchJobRequest(job_id=job_id, user_id=USER)
                connection.begin(watch)
                connection.send(watch, request.SerializeToString(), last=True)
                await watch.opened

        async with asyncio.TaskGroup() as opening:
            for number, job_id in enumerate(job_ids):
                if number % STREAMS_PER_CONNECTION == 0:
                    connection = await connect(target, PATH)
                opening.create_task(open_one(connection, job_id))
        self._told.clear()
        return {}

    async def told(self, changes: int, patience: float) -> Reply:
        """Return what all watches were told, once it is so much or nothing more comes in time."""
        deadline = time.monotonic() + patience
        while len(self._told) < changes and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        told, self._told[:] = list(self._told), []
        return {"told": told}


class _Watch(Call):
    """One stream. `opened` is done when the job as it stands has come."""

    __slots__ = ("_told", "opened")

    def __init__(self, told: list[Told]) -> None:
        super().__init__()
        self._told = told
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def message(self, body: bytes) -> None:
        now, today = time.monotonic(), time.time()
        if not self.opened.done():
            self.opened.set_result(None)
            return
        job = WatchJobResponse.FromString(body).job
        decided = job.update_time.seconds + job.update_time.nanos / 1e9
        self._told.append((job.id, job.version, now, today - decided))

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        if not self.opened.done():
            self.opened.set_exception(why or Wrong(f"a watch ended with {trailers!r}"))


if __name__ == "__main__":
    uvloop.run(main(WatchedLoad()))
