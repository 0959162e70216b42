"""A service that misbehaves on demand, the real one, and workers in this process and in others."""

import asyncio
import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from jobledger import AsyncClient
from jobledger.v1 import error_reason_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Job, JobStatus
from jobledger.v1.worker_service_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from jobledger.worker import Worker
from tests.support.server_process import ServerProcess

PROGRAM = Path(__file__).with_name("worker_program.py")
PATIENCE = 30.0

Context = grpc.aio.ServicerContext[Any, Any]
Rule = Callable[[Any, Context], Awaitable[Any]]


class Refused(Exception):
    """What a rule's abort means for a report of a stream."""

    def __init__(self, error: pb.ReportError) -> None:
        super().__init__(error)
        self.error = error


class ReportContext:
    """Stands in for the context of a call where a rule is applied to a report of a stream."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Refused(pb.ReportError(code=code.value[0], message=details))

    async def abort_with_status(self, status: grpc.Status) -> None:
        ((_, packed),) = status.trailing_metadata
        info = error_details_pb2.ErrorInfo()
        status_pb2.Status.FromString(packed).details[0].Unpack(info)
        reason = error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{info.reason}")
        code = status.code.value[0]
        raise Refused(
            pb.ReportError(code=code, reason=reason, message=status.details, metadata=info.metadata)
        )


class FakeService(WorkerServiceServicer):
    """Hands out the jobs that it is given and remembers every call.

    A rule for an RPC may refuse, delay or change its answer; None is the usual one. A
    report of a stream counts as a call of UpdateProgress, and so do the rules for it.
    """

    def __init__(self, *, streams: bool = True) -> None:
        self.rules: dict[str, Rule] = {}
        if not streams:
            self.rules["ReportProgress"] = refuse(grpc.StatusCode.UNIMPLEMENTED)
        self.streams = 0
        self.streamed = 0
        self.calls: list[tuple[str, Any, float]] = []
        self.port = 0
        self.refuse = refuse
        self._jobs: list[Job] = []
        self._offered = asyncio.Event()
        self._called = asyncio.Condition()

    def offer(self, job_type: str = "render", **fields: Any) -> Job:
        fields = {"attempt": 1, "max_attempts": 1, "progress": 0, **fields}
        job = Job(
            id=str(uuid.uuid4()),
            job_type=job_type,
            status=JobStatus.JOB_STATUS_PROCESSING,
            **fields,
        )
        self._jobs.append(job)
        self._offered.set()
        return job

    def requests(self, method: str) -> list[Any]:
        return [request for name, request, _ in self.calls if name == method]

    def times(self, method: str) -> list[float]:
        return [moment for name, _, moment in self.calls if name == method]

    async def called(self, method: str, times: int = 1) -> Any:
        """Wait until an RPC was called so often; return that request."""
        async with asyncio.timeout(PATIENCE), self._called:
            await self._called.wait_for(lambda: len(self.requests(method)) >= times)
        return self.requests(method)[times - 1]

    async def ClaimJobs(self, request, context):  # noqa: N802
        if (answer := await self._received("ClaimJobs", request, context)) is not None:
            return answer
        jobs = self._claim(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(request.wait.ToTimedelta().total_seconds()):
                while not jobs:
                    self._offered.clear()
                    await self._offered.wait()
                    jobs = self._claim(request)
        return pb.ClaimJobsResponse(jobs=jobs)

    def _claim(self, request: pb.ClaimJobsRequest) -> list[Job]:
        fitting = [job for job in self._jobs if job.job_type in request.job_types]
        claimed = fitting[: request.max_jobs]
        for job in claimed:
            self._jobs.remove(job)
        return claimed

    async def UpdateProgress(self, request, context):  # noqa: N802
        job = Job(id=request.job_id, status=JobStatus.JOB_STATUS_PROCESSING)
        usual = pb.UpdateProgressResponse(job=job, applied=True)
        return await self._received("UpdateProgress", request, context) or usual

    async def ReportProgress(self, requests, context):  # type: ignore[override]  # noqa: N802
        self.streams += 1
        if (rule := self.rules.get("ReportProgress")) is not None:
            await rule(requests, context)
        answers: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

        async def acknowledge() -> None:
            while True:
                await context.write(await (await answers.get()))

        async with asyncio.TaskGroup() as group:
            acknowledging = group.create_task(acknowledge())
            async for request in requests:
                answers.put_nowait(group.create_task(self._acknowledgement(request)))
            acknowledging.cancel()

    async def _acknowledgement(self, report: Any) -> pb.ReportProgressResponse:
        request = pb.UpdateProgressRequest.FromString(report.SerializeToString())
        self.streamed += 1
        try:
            answer = await self.UpdateProgress(request, ReportContext())
        except Refused as refused:
            return pb.ReportProgressResponse(job=Job(id=request.job_id), error=refused.error)
        return pb.ReportProgressResponse.FromString(answer.SerializeToString())

    async def TransitionJob(self, request, context):  # noqa: N802
        usual = pb.TransitionJobResponse(job=Job(id=request.job_id))
        return await self._received("TransitionJob", request, context) or usual

    async def ReleaseJob(self, request, context):  # noqa: N802
        usual = pb.ReleaseJobResponse(job=Job(id=request.job_id))
        return await self._received("ReleaseJob", request, context) or usual

    async def CreateAsset(self, request, context):  # noqa: N802
        usual = pb.CreateAssetResponse(asset=Asset(job_id=request.job_id, url=request.url))
        return await self._received("CreateAsset", request, context) or usual

    async def _received(self, method: str, request: Any, context: Any) -> Any:
        self.calls.append((method, request, time.monotonic()))
        async with self._called:
            self._called.notify_all()
        rule = self.rules.get(method)
        return None if rule is None else await rule(request, context)


def refuse(code: grpc.StatusCode, times: int | None = None, words: str = "scripted") -> Rule:
    """Make a rule that refuses a call so often; always, without `times`."""
    left = [times]

    async def rule(request: Any, context: Context) -> None:
        if left[0] is not None:
            if left[0] == 0:
                return
            left[0] -= 1
        await context.abort(code, words)

    return rule


@pytest.fixture
def way() -> str:
    """How reports travel: by "stream" or by "calls". Tests of reports try both."""
    return "stream"


@pytest.fixture
async def service(way: str) -> AsyncIterator[FakeService]:
    """The fake service; it has no ReportProgress if reports are calls."""
    service = FakeService(streams=way == "stream")
    server = grpc.aio.server()
    add_WorkerServiceServicer_to_server(service, server)
    service.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service
    await server.stop(0)


@pytest.fixture
async def fake_client(service: FakeService) -> AsyncIterator[AsyncClient]:
    """A client whose channel retries nothing: what is repeated, the worker repeats."""
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel,
        AsyncClient(channel=channel) as client,
    ):
        yield client


class Running:
    """Runs workers in this loop; each is stopped at the end, and leaves no task behind."""

    def __init__(self) -> None:
        self._runs: list[tuple[Worker, asyncio.Task[None]]] = []

    def __call__(self, worker: Worker) -> "asyncio.Task[None]":
        run = asyncio.create_task(worker.run(signals=False))
        self._runs.append((worker, run))
        return run

    async def stop(self) -> None:
        for worker, _ in self._runs:
            worker.stop(now=True)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(run for _, run in self._runs), return_exceptions=True)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in names if name.startswith("jobledger-")}


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    running = Running()
    yield running
    await running.stop()


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        yield client


@pytest.fixture
def job_type() -> str:
    """A type of job that no other test's worker takes."""
    return f"t-{uuid.uuid4()}"


class WorkerProcess:
    """worker_program.py as a process, which says what it does line by line."""

    def __init__(self, target: str, job_type: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), target, job_type, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self._output = self.process.stdout

    async def says(self, word: str) -> str:
        """Wait for a line that begins so; return the rest of it."""
        async with asyncio.timeout(PATIENCE):
            while line := str(await asyncio.to_thread(self._output.readline)):
                if line.split()[:1] == [word]:
                    return line.removeprefix(word).strip()
        raise AssertionError(f"the worker exited without printing {word!r}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.to_thread(self.process.wait)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()


@pytest.fixture
def start_worker() -> Iterator[Callable[..., WorkerProcess]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> WorkerProcess:
            worker = WorkerProcess(*arguments)
            stack.callback(worker.close)
            return worker

        yield start
