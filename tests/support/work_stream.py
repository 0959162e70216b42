"""A worker on one stream of Work: raw messages, and what came so far by kind."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub


class WorkStream:
    """Keeps what it has read until a test takes it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.messages: list[pb.WorkResponse] = []
        self._read: dict[str, list[Any]] = {"jobs": [], "results": [], "signals": []}

    async def send(self, **fields: Any) -> None:
        await self.call.write(pb.WorkRequest(**fields))

    async def read(self) -> pb.WorkResponse:
        """Read one message. Raises EOFError at the end of the stream."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            raise EOFError
        self.messages.append(message)
        for kind, found in self._read.items():
            found.extend(getattr(message, kind))
        return message

    async def jobs(self, count: int = 1) -> list[Any]:
        return await self._take("jobs", count)

    async def results(self, count: int = 1) -> list[Any]:
        return await self._take("results", count)

    async def signals(self, count: int = 1) -> list[Any]:
        return await self._take("signals", count)

    async def finish(self, *jobs: Any) -> list[Any]:
        """Complete jobs; return the results."""
        await self.send(updates=[completed(job) for job in jobs])
        return await self.results(len(jobs))

    async def end(self) -> grpc.StatusCode:
        """Close the worker's side, and read to the end."""
        await self.call.done_writing()
        while True:
            try:
                await self.read()
            except EOFError:
                return await self.call.code()

    @property
    def unread(self) -> dict[str, list[Any]]:
        """What was read and not taken."""
        return {kind: found for kind, found in self._read.items() if found}

    async def _take(self, kind: str, count: int) -> list[Any]:
        found = self._read[kind]
        while len(found) < count:
            await self.read()
        taken, self._read[kind] = found[:count], found[count:]
        return taken


@asynccontextmanager
async def working(
    channel: grpc.aio.Channel,
    *,
    slots: int = 0,
    worker_id: str = "w1",
    job_types: Sequence[str] = ("render",),
    holding: Sequence[Any] = (),
    updates: Sequence[pb.JobUpdate] = (),
    token: str | None = None,
    **hello: Any,
) -> AsyncIterator[WorkStream]:
    """Open a stream, and cancel it at the end of the block. The answer to `hello` is read.

    If it is an error, reading raises it again.
    """
    metadata = None if token is None else [("authorization", f"Bearer {token}")]
    stream = WorkStream(WorkerServiceStub(channel).Work(metadata=metadata, timeout=60))
    held = [pb.HeldJob(job_id=job.id, attempt=job.attempt) for job in holding]
    greeting = pb.WorkHello(worker_id=worker_id, job_types=job_types, holding=held, **hello)
    try:
        with suppress(grpc.RpcError):
            await stream.send(hello=greeting, slots=slots, updates=updates)
            await stream.read()
        yield stream
    finally:
        stream.call.cancel()


def progressed(job: Any, progress: int, **fields: Any) -> pb.JobUpdate:
    update = pb.ProgressUpdate(progress=progress, **fields)
    return pb.JobUpdate(job_id=job.id, attempt=job.attempt, progress=update)


def completed(job: Any, **fields: Any) -> pb.JobUpdate:
    finish = pb.FinishUpdate(status="JOB_STATUS_COMPLETED", **fields)
    return pb.JobUpdate(job_id=job.id, attempt=job.attempt, finish=finish)


def released(job: Any) -> pb.JobUpdate:
    return pb.JobUpdate(job_id=job.id, attempt=job.attempt, release=pb.ReleaseUpdate())


def reason(result: pb.UpdateResult) -> str:
    """Return why an update was refused, or "" if it was not."""
    if not result.HasField("error"):
        return ""
    return ErrorReason.Name(result.error.reason).removeprefix("ERROR_REASON_")
