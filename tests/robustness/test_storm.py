"""A restart while thousands watch: all reconnect at once, and each gets every change once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1 import job_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.rpc_caller import COMPLETED, PROCESSING, QUEUED, Caller
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.timeout(240)

OWNERS = 1000
"""Each has one job, and watches it twice: by a WatchJob and by a WatchJobs of all it has."""

CONNECTIONS = 25
"""A connection has 100 streams by default."""


OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]

WHOLE = [(QUEUED, PROCESSING), (PROCESSING, COMPLETED)]


class Watch:
    """A watch over as many streams as it takes: all that it received, and how each broke."""

    def __init__(self, stub: Any, job: Any) -> None:
        self.versions: list[int] = []
        self.steps: list[tuple[int, int]] = []
        self.broken: list[StatusCode] = []
        self._job = job
        self._stub = stub
        self._stream: Any = None
        self._ended = False

    def _open(self) -> Any:
        raise NotImplementedError

    def _serves(self, message: Any) -> bool:
        """Whether the stream has sent by now what existed when it was opened."""
        raise NotImplementedError

    def _changes(self, message: Any) -> Sequence[Any]:
        """Return the changes of the message."""
        raise NotImplementedError

    async def begin(self) -> None:
        """Open a stream, again where that fails, and read what there is."""
        self._stream = self._open()
        while True:
            try:
                while not self._serves(await self._read()):
                    pass
            except grpc.aio.AioRpcError as error:
                self.broken.append(error.code())
                await asyncio.sleep(random.uniform(0, 0.1))
                self._stream = self._open()
            else:
                return

    async def break_off(self) -> None:
        """Read until the stream breaks."""
        try:
            while True:
                await self._read()
        except grpc.aio.AioRpcError as error:
            self.broken.append(error.code())

    async def end(self) -> None:
        """Read until the job has ended."""
        while not self._ended:
            await self._read()
        self._stream.cancel()

    async def _read(self) -> Any:
        message = await self._stream.read()
        assert message is not grpc.aio.EOF
        for change in self._changes(message):
            self.versions.append(change.job.version)
            self.steps += [(step.from_status, step.to_status) for step in change.transitions]
            self._ended = change.job.status == COMPLETED
        return message


class JobWatch(Watch):
    def _open(self) -> Any:
        after = self.versions[-1] if self.versions else 0
        return self._stub.WatchJob(
            job_service_pb2.WatchJobRequest(
                job_id=self._job.id, user_id=self._job.user_id, after_version=after
            )
        )

    def _serves(self, message: Any) -> bool:
        return True

    def _changes(self, message: Any) -> Sequence[Any]:
        return [] if message.heartbeat else [message]


class FeedStreams(Watch):
    token = ""

    def _open(self) -> Any:
        return self._stub.WatchJobs(
            job_service_pb2.WatchJobsRequest(user_id=self._job.user_id, resume_token=self.token)
        )

    def _serves(self, message: Any) -> bool:
        return bool(message.synced)

    def _changes(self, message: Any) -> Sequence[Any]:
        return list(message.changes.changes)

    async def _read(self) -> Any:
        message = await super()._read()
        self.token = message.resume_token
        return message


@asynccontextmanager
async def connections(target: str, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Have connections of their own for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(target, OPTIONS) for _ in range(count)]
        yield [await stack.enter_async_context(channel) for channel in channels]


async def started_elsewhere(server: ServerProcess, job_ids: list[str]) -> None:
    """Start each job through another server on the same database, and kill that one too."""
    async with server, grpc.aio.insecure_channel(server.target, OPTIONS) as channel:
        call = Caller(channel)
        await asyncio.gather(
            *(call.TransitionJob(job_id=job_id, target_status=PROCESSING) for job_id in job_ids)
        )


@pytest.mark.slow
async def test_2000_watches_reconnect_after_kill_9_and_miss_nothing(
    database_url: str, tmp_path: Path
) -> None:
    for name in ("server", "other"):
        (tmp_path / name).mkdir()
    server = ServerProcess(tmp_path / "server", database=database_url)
    other = ServerProcess(tmp_path / "other", database=database_url)
    async with (
        server,
        connections(server.target, CONNECTIONS + 1) as channels,
    ):
        call = Caller(channels[-1])
        stubs: list[Any] = [JobServiceStub(channel) for channel in channels[:-1]]
        jobs = await asyncio.gather(*(call.job(user_id=f"owner-{n}") for n in range(OWNERS)))
        watches: list[Watch] = [
            kind(stubs[number % CONNECTIONS], job)
            for number, job in enumerate(jobs)
            for kind in (JobWatch, FeedStreams)
        ]
        await asyncio.gather(*(watch.begin() for watch in watches))
        breaking = asyncio.gather(*(watch.break_off() for watch in watches))
        await asyncio.to_thread(server.kill)
        await breaking
        assert Counter(c for w in watches for c in w.broken) == {StatusCode.UNAVAILABLE: 2 * OWNERS}
        await started_elsewhere(other, [job.id for job in jobs])

        await asyncio.to_thread(server.start)
        served = asyncio.Event()
        made = []

        async def make_calls() -> None:
            """As clients that do not watch: none of these calls is retried."""
            while not made or not served.is_set():
                job = await call.job(user_id="bystander")
                assert (await call.GetJob(job_id=job.id, user_id="bystander")).job == job
                made.append(job)

        async with asyncio.TaskGroup() as meanwhile:
            for _ in range(4):
                meanwhile.create_task(make_calls())
            await asyncio.gather(*(watch.begin() for watch in watches))
            served.set()
        refused = Counter(code for watch in watches for code in watch.broken[1:])
        assert StatusCode.CANCELLED not in refused
        assert set(refused) <= {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED}
        for watch in watches:
            assert (watch.versions, watch.steps) == ([1, 2], WHOLE[:1])

        ends = asyncio.gather(*(watch.end() for watch in watches))
        await asyncio.gather(*(call.MarkCompleted(job_id=job.id, attempt=1) for job in jobs))
        await ends
    for watch in watches:
        assert (watch.versions, watch.steps) == ([1, 2, 3], WHOLE)
