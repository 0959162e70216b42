"""Many open streams of one job: all are told of each change, and the times are noted."""

import asyncio
import time

from benchmarks.http2 import Call, Connection, connect
from benchmarks.load import STREAMS_PER_CONNECTION, Wrong
from benchmarks.messages import USER
from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse

PATH = "/jobledger.v1.JobService/WatchJob"

OPENING = 250
"""Streams that are being opened at once."""


class Watches:
    """Opens the streams of a job on a server, then expects one message after the other."""

    def __init__(self, target: str, job_id: str) -> None:
        self._target = target
        request = WatchJobRequest(job_id=job_id, user_id=USER)
        self._request = request.SerializeToString()
        self._opened = 0
        self._version = 0
        self._times: list[float] = []
        self._complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, streams: int) -> None:
        turn = asyncio.Semaphore(OPENING)

        async def open_one(connection: Connection) -> None:
            async with turn:
                watch = _Watch(self)
                connection.begin(watch)
                connection.send(watch, self._request, last=True)
                await watch.opened

        async with asyncio.TaskGroup() as opening:
            for number in range(streams):
                if number % STREAMS_PER_CONNECTION == 0:
                    connection = await connect(self._target, PATH)
                opening.create_task(open_one(connection))
        self._opened = streams

    def expect(self, version: int) -> None:
        """Be ready for one message on every stream."""
        self._version = version
        self._times = []
        if self._complete.done():
            self._complete = asyncio.get_running_loop().create_future()

    async def delivered(self) -> list[float]:
        """Wait until every stream has had it; return when each had."""
        await self._complete
        return self._times

    def take(self, message: WatchJobResponse) -> None:
        now = time.monotonic()
        if message.job.version != self._version:
            self.fail(Wrong(f"a watcher expects version {self._version} and gets {message}"))
        self._times.append(now)
        if len(self._times) == self._opened and not self._complete.done():
            self._complete.set_result(None)

    def fail(self, why: Exception) -> None:
        if not self._complete.done():
            self._complete.set_exception(why)


class _Watch(Call):
    """One stream. `opened` is done when the job as it stands has come."""

    __slots__ = ("_watches", "opened")

    def __init__(self, watches: Watches) -> None:
        super().__init__()
        self._watches = watches
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def message(self, body: bytes) -> None:
        if self.opened.done():
            self._watches.take(WatchJobResponse.FromString(body))
        else:
            self.opened.set_result(None)

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        failure = why or Wrong(f"a watch ended with {trailers!r}")
        if self.opened.done():
            self._watches.fail(failure)
        else:
            self.opened.set_exception(failure)
