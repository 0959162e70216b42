"""Whole lives of jobs by the Python client, the owners in one process and the worker in another.

And lives of etcd's keys, which are put as often as a job is changed.
"""

import asyncio
import re
import time
import uuid
from typing import Any, cast

import grpc
from google.protobuf.any_pb2 import Any as Pair
from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.load import (
    CHANGES,
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
from jobledger import AsyncClient, JobStatus
from jobledger.worker import ClaimedJob, Completed, Worker

JOB_TYPE = "upscale"
"""Not the type of the jobs that other loads create: those stay queued."""

VALUE_BYTES = 250
"""About as many as a job's message has."""

_PUT = re.compile(rb"put (\d) ")


class Lives:
    """Commands for Jobledger."""

    def __init__(self) -> None:
        self._clients: dict[str, AsyncClient] = {}
        self._worker: Worker | None = None
        self._working: asyncio.Task[None] | None = None

    async def work(self, target: str, every_update: bool = True) -> Reply:  # noqa: FBT001, FBT002
        """Begin to do jobs with the worker library.

        With `every_update` handlers wait until each report is acknowledged; else they leave the
        reports to the library, which sends ten a second of a job at most.
        """
        self._worker = Worker(self._client(target), concurrency=IN_FLIGHT, worker_id="worker-1")
        self._working = asyncio.create_task(
            _work(self._worker, self._client(target), every_update=every_update)
        )
        return {}

    async def rest(self) -> Reply:
        """Stop working."""
        assert self._worker is not None
        assert self._working is not None
        self._worker.stop()
        await self._working
        return {}

    async def live(self, target: str, jobs: int, in_flight: int = IN_FLIGHT) -> Reply:
        """Create jobs, each by a call of its own, and watch each from its creation to its end.

        Return each one's life, how long all took, and how many changes they had.
        """
        client = self._client(target)
        changes = 0

        async def live() -> Life:
            nonlocal changes
            life, version = await _live(client)
            changes += version
            return life

        begin = time.monotonic()
        lives = await live_many(jobs, live, in_flight)
        seconds = time.monotonic() - begin
        return {"lives": lives, "done": jobs, "seconds": seconds, "changes": changes}

    def _client(self, target: str) -> AsyncClient:
        if target not in self._clients:
            self._clients[target] = AsyncClient(target, user_id=USER)
        return self._clients[target]


async def _work(worker: Worker, client: AsyncClient, *, every_update: bool) -> None:
    async with client.report_progress() as reports:

        @worker.handler(JOB_TYPE)
        async def handle(job: ClaimedJob) -> Completed:
            for percent in PERCENTS:
                message = f"step {percent}"
                if every_update:
                    await reports.send(
                        job.id, percent, progress_message=message, attempt=job.attempt
                    )
                else:
                    await job.progress(percent, message)
            await job.add_asset("image/png", url=asset_url(job.id), file_size=1_234_567)
            return Completed(result())

        await worker.run(signals=False)


async def _live(client: AsyncClient) -> tuple[Life, int]:
    """Return a job's life and its last version."""
    created = await client.create_job(JOB_TYPE, PARAMETERS)
    seen: set[int] = set()
    async for change in client.watch(created.id):
        observed = time.monotonic()
        seen.add(change.job.progress)
    job = change.job
    if job.status is not JobStatus.COMPLETED or job.result is None:
        raise Wrong(f"a watch ended with {job}")
    completed = cast("float", job.result["completed"])
    life = (completed, observed, len(seen.intersection(PERCENTS)))
    return life, job.version


class Keys:
    """Commands for etcd: keys that are put as often as a job is changed, and watched meanwhile."""

    async def live(self, target: str, jobs: int, in_flight: int) -> Reply:
        """Put each key CHANGES times, one put after the other, and watch it from before the first.

        Return of each key when its last put was acknowledged, when its watch received it, and how
        many puts that watch has received.
        """
        async with grpc.aio.insecure_channel(target) as channel:
            begin = time.monotonic()
            lives = await live_many(jobs, lambda: _live_key(channel, uuid.uuid4().hex), in_flight)
            seconds = time.monotonic() - begin
        return {"lives": lives, "done": jobs, "seconds": seconds}


async def _live_key(channel: grpc.aio.Channel, key: str) -> Life:
    # Bytes in, bytes out. On the wire etcd's PutRequest, a key and a value, is an Any, and its
    # WatchRequest, of a WatchCreateRequest, of a key, are two BytesValues.
    put: Any = channel.unary_unary("/etcdserverpb.KV/Put")
    watch: Any = channel.stream_stream("/etcdserverpb.Watch/Watch")()
    try:
        create = BytesValue(value=key.encode()).SerializeToString()
        await watch.write(BytesValue(value=create).SerializeToString())
        await watch.read()  # confirms it; a watch that began in the past would be slower
        watching = asyncio.create_task(_receive(watch))
        for number in range(CHANGES):
            value = f"put {number} ".encode().ljust(VALUE_BYTES)
            await put(Pair(type_url=key, value=value).SerializeToString())
        acknowledged = time.monotonic()
        return acknowledged, await watching, CHANGES
    finally:
        watch.cancel()


async def _receive(watch: Any) -> float:
    """Read every put; return when the last one was received."""
    puts: list[int] = []
    while len(puts) < CHANGES:
        message = await watch.read()
        received = time.monotonic()
        if message is grpc.aio.EOF:
            raise Wrong("a watch ended before its key was complete")
        puts += map(int, _PUT.findall(message))
    if puts != list(range(CHANGES)):
        raise Wrong(f"a watch received puts {puts}")
    return received
