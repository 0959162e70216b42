"""Watches of jobs: opened, read, and the time of each delivery noted."""

import asyncio
import gc
import time
import zlib
from contextlib import suppress
from typing import Any

from benchmarks.load import COMMITS_USER, USER, Reply, Wrong
from benchmarks.load.http2 import STREAMS_PER_CONNECTION, Call, Connection, connect
from benchmarks.load.messages import SENT
from jobledger.v1.job_service_pb2 import (
    WatchJobRequest,
    WatchJobResponse,
    WatchJobsRequest,
    WatchJobsResponse,
    WatchOutputRequest,
    WatchOutputResponse,
)

WATCH_JOB = "/jobledger.v1.JobService/WatchJob"
WATCH_JOBS = "/jobledger.v1.JobService/WatchJobs"
WATCH_OUTPUT = "/jobledger.v1.JobService/WatchOutput"

AT_ONCE = 250
"""Streams that are being opened at once."""

Delivery = tuple[float, float]
"""When the message came by the monotonic clock, and how many seconds after the service had decided
on the change."""


class Watches:
    """Commands. Watches that are opened together are known by a name."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    async def watch_job(self, name: str, target: str, job_ids: list[str], streams: int) -> Reply:
        """Open streams of WatchJob, each of the next job."""
        group = self._groups[name] = _Group()
        await group.open(target, [_watch_job(job_id) for job_id in job_ids], streams)
        gc.freeze()  # or a collection would walk through all of it during a delivery
        return {}

    async def watch_jobs(self, name: str, target: str, streams: int) -> Reply:
        """Open streams of WatchJobs, until all are in sync."""
        group = self._groups[name] = _Group()
        await group.open(target, [_watch_jobs(USER)], streams)
        return {}

    async def watch_commits(self, name: str, target: str, streams: int) -> Reply:
        """Open streams of WatchJobs of the owner of commits; each message is one delivery."""
        group = self._groups[name] = _Group()
        await group.open(target, [_watch_jobs(COMMITS_USER)], streams, _Counted)
        gc.freeze()
        return {}

    async def watch_output(
        self, name: str, target: str, job_ids: list[str], streams: int, size: int
    ) -> Reply:
        """Open streams of WatchOutput, each of the next job, at its end.

        What follows are appends of `size` bytes. Each byte counts as a change.
        """
        group = self._groups[name] = _Group(size)
        await group.open(target, [_watch_output(job_id) for job_id in job_ids], streams, _Reader)
        gc.freeze()
        return {}

    async def collect(self, name: str, changes: int, patience: float) -> Reply:
        """Return the deliveries so far, once they are of that many changes or the time is over.

        A delivery stands for the changes that it skips. At patience 0 all that there are. Of
        readers of output, return the end and the checksum of what each has read, too.
        """
        group = self._groups[name]
        group.check()
        if group.changes < changes:
            group.wanted, group.complete = changes, asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await group.complete.wait()
            group.check()
        outputs = [(reader.end, reader.checksum) for reader in group.readers]
        reply = {"deliveries": group.deliveries, "changes": group.changes, "outputs": outputs}
        group.deliveries, group.changes = [], 0
        return reply

    async def close(self, name: str) -> Reply:
        """Close the connections of these watches, none of which may have ended before."""
        group = self._groups.pop(name)
        group.check()
        group.closing = True
        for connection in group.connections:
            connection.close()
        return {}


Opening = tuple[str, bytes, Any]
"""A method's path, a request, and the type of the messages that it is answered with."""


def _watch_job(job_id: str) -> Opening:
    request = WatchJobRequest(job_id=job_id, user_id=USER)
    return WATCH_JOB, request.SerializeToString(), WatchJobResponse


def _watch_jobs(user_id: str) -> Opening:
    request = WatchJobsRequest(user_id=user_id)
    return WATCH_JOBS, request.SerializeToString(), WatchJobsResponse


def _watch_output(job_id: str) -> Opening:
    request = WatchOutputRequest(job_id=job_id, user_id=USER, last_bytes=0)
    return WATCH_OUTPUT, request.SerializeToString(), WatchOutputResponse


class _Group:
    """Watches that were opened together, and what they have received."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.readers: list[_Reader] = []
        self.connections: list[Connection] = []
        self.deliveries: list[Delivery] = []
        self.changes = 0
        """That the deliveries are of: more than there are deliveries where some were skipped."""
        self.wanted = 0
        self.complete = asyncio.Event()
        self.closing = False
        self._failure: Exception | None = None
        self._counted = b"", 0

    async def open(
        self,
        target: str,
        openings: list[Opening],
        streams: int,
        kind: "type[_Watch] | None" = None,
    ) -> None:
        turn = asyncio.Semaphore(AT_ONCE)

        async def open_in_turn(connection: Connection, opening: Opening) -> None:
            async with turn:
                path, body, response = opening
                watch = (kind or _Watch)(self, response)
                connection.begin(watch, path)
                connection.send(watch, body, last=True)
                await watch.opened

        async with asyncio.TaskGroup() as tasks:
            for number in range(streams):
                if number % STREAMS_PER_CONNECTION == 0:
                    connection = await connect(target)
                    self.connections.append(connection)
                opening = openings[number % len(openings)]
                tasks.create_task(open_in_turn(connection, opening))

    def add(self, changes: int, *deliveries: Delivery) -> None:
        self.deliveries += deliveries
        self.changes += changes
        if self.changes >= self.wanted:
            self.complete.set()

    def changes_in(self, body: bytes) -> int:
        """Count the changes of a message of WatchJobs. All streams may receive the same one."""
        if body != self._counted[0]:
            self._counted = body, len(WatchJobsResponse.FromString(body).changes.changes)
        return self._counted[1]

    def fail(self, why: Exception) -> None:
        self._failure = self._failure or why
        self.complete.set()

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure


class _Watch(Call):
    """One stream. `opened` is done when the jobs as they stand have come."""

    __slots__ = ("_group", "_response", "_versions", "opened")

    def __init__(self, group: _Group, response: Any) -> None:
        super().__init__()
        self._group = group
        self._response = response
        self._versions: dict[str, int] = {}
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def message(self, body: bytes) -> None:
        now, today = time.monotonic(), time.time()
        message = self._response.FromString(body)
        of_one = self._response is WatchJobResponse
        news = [message] if of_one else message.changes.changes
        if not self.opened.done():
            for change in news:
                self._versions[change.job.id] = change.job.version
            if of_one or message.synced:
                self.opened.set_result(None)
        elif not message.heartbeat:
            for change in news:
                job = change.job
                decided = job.update_time.seconds + job.update_time.nanos / 1e9
                changes = job.version - self._versions.get(job.id, 0)
                self._versions[job.id] = job.version
                sent = job.progress_message
                since = now - float(sent) if sent[:1].isdigit() else today - decided
                self._group.add(changes, (now, since))

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        if self._group.closing:
            return
        failure = why or Wrong(f"a watch ended with {trailers!r}")
        if self.opened.done():
            self._group.fail(failure)
        else:
            self.opened.set_exception(failure)


class _Counted(_Watch):
    """A stream of WatchJobs of whose messages the changes are counted and nothing else."""

    __slots__ = ()

    def message(self, body: bytes) -> None:
        if self.opened.done():
            self._group.add(self._group.changes_in(body), (time.monotonic(), 0.0))
        else:
            super().message(body)


class _Reader(_Watch):
    """A stream of WatchOutput, which must have every byte once, in order."""

    __slots__ = ("_begun", "checksum", "end")

    def message(self, body: bytes) -> None:
        now = time.monotonic()
        message = WatchOutputResponse.FromString(body)
        data, size = message.data, self._group.size
        if not self.opened.done():
            self._begun, self.end, self.checksum = message.offset, message.offset, 0
            self._group.readers.append(self)
            self.opened.set_result(None)
        if message.offset != self.end:
            raise Wrong(f"output goes on at {message.offset} in place of {self.end}")
        self.end, self.checksum = message.next_offset, zlib.crc32(data, self.checksum)
        begins = range((self._begun - message.offset) % size, len(data) - SENT.size + 1, size)
        sent = (SENT.unpack_from(data, begin)[0] for begin in begins)
        self._group.add(len(data), *((now, now - at) for at in sent))
