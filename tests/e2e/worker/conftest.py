"""A service that misbehaves on demand, the real one, and workers in this process and in others."""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from jobledger import AsyncClient
from jobledger.v1 import error_reason_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Job, JobStatus, RetryPolicy
from jobledger.v1.worker_service_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from jobledger.worker import ClaimedJob, Completed, Worker
from tests.e2e.worker.rules import Context, Rule
from tests.support.forked import Forked
from tests.support.server_process import ServerProcess

PROGRAM = Path(__file__).with_name("worker_program.py")
SECONDS = 30.0
"""That a test waits for anything at most."""


class Refused(Exception):
    """What a rule's abort means for an update."""

    def __init__(self, error: pb.UpdateError) -> None:
        super().__init__(error)
        self.error = error


class ReportContext:
    """Stands in for the context of a call where a rule is applied to an update."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Refused(pb.UpdateError(code=code.value[0], message=details))

    async def abort_with_status(self, status: grpc.Status) -> None:
        ((_, packed),) = status.trailing_metadata
        info = error_details_pb2.ErrorInfo()
        status_pb2.Status.FromString(packed).details[0].Unpack(info)
        reason = error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{info.reason}")
        code = status.code.value[0]
        raise Refused(
            pb.UpdateError(code=code, reason=reason, message=status.details, metadata=info.metadata)
        )


class FakeStream:
    """One stream of Work: updates are calls of FakeService, and go by its rules."""

    def __init__(self, service: "FakeService", context: Context) -> None:
        self._service = service
        self._context = context
        self._results: asyncio.Queue[asyncio.Task[pb.WorkResponse]] = asyncio.Queue()
        self._slots = 0
        self._held: set[str] = set()
        self._writing = asyncio.Lock()
        self._ended: asyncio.Future[grpc.StatusCode] = asyncio.get_running_loop().create_future()
        self._updates: set[asyncio.Task[pb.WorkResponse]] = set()

    async def serve(self, requests: Any) -> None:
        service = self._service
        service.streams.append(self)
        first = await anext(aiter(requests))
        await service.received("Work", first, self._context)
        self._held = {held.job_id for held in first.hello.holding}
        await self._write(pb.WorkResponse(heartbeat=True))
        tasks = [self._answer(), self._push(first.hello.job_types), self._read(first, requests)]
        running = {asyncio.create_task(task) for task in tasks} | {self._ended}
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running - {self._ended}) | self._updates:
                task.cancel()
        if self._ended.done():
            await self._context.abort(self._ended.result(), "scripted")

    def end(self, code: grpc.StatusCode) -> None:
        """End the stream with an error."""
        self._ended.set_result(code)

    async def push(self, *jobs: Job, signals: Sequence[pb.JobSignal] = ()) -> None:
        """Push jobs whatever the slots are."""
        await self._write(pb.WorkResponse(jobs=jobs, signals=signals))

    async def result(self, job_id: str) -> None:
        """Answer an update, whether there is one or not."""
        await self._write(pb.WorkResponse(results=[pb.UpdateResult(job_id=job_id)]))

    async def signal(self, **fields: Any) -> None:
        if "lease_lost" in fields:
            self._held.discard(fields["job_id"])
        await self._write(pb.WorkResponse(signals=[pb.JobSignal(**fields)]))

    async def _write(self, response: pb.WorkResponse) -> None:
        async with self._writing:
            await self._context.write(response)

    async def _read(self, first: pb.WorkRequest, requests: Any) -> None:
        self._take(first)
        async for request in requests:
            self._take(request)
        while self._updates:
            await asyncio.wait(self._updates)

    def _take(self, request: pb.WorkRequest) -> None:
        self._service.received_message(request)
        if request.HasField("slots"):
            self._slots = request.slots
        for update in request.updates:
            self._service.streamed += 1
            task = asyncio.create_task(self._result(update))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)
            self._results.put_nowait(task)
        self._service.wake()

    async def _answer(self) -> None:
        while True:
            await self._write(await (await self._results.get()))

    async def _push(self, job_types: Any) -> None:
        while True:
            self._service.offered.clear()
            room = self._slots - len(self._held)
            if jobs := self._service.take(job_types, max(0, room)):
                self._held |= {job.id for job in jobs}
                await self._write(pb.WorkResponse(jobs=jobs))
            await self._service.offered.wait()

    async def _result(self, update: pb.JobUpdate) -> pb.WorkResponse:
        response = pb.WorkResponse()
        result = response.results.add(job_id=update.job_id, applied=True)
        try:
            await self._apply(update, result, response)
        except Refused as refused:
            result.error.CopyFrom(refused.error)
            result.applied = False
            if refused.error.reason:
                self._held.discard(update.job_id)
        return response

    async def _apply(
        self, update: pb.JobUpdate, result: pb.UpdateResult, response: pb.WorkResponse
    ) -> None:
        service, context = self._service, ReportContext()
        names = {"job_id": update.job_id, "attempt": update.attempt}
        match update.WhichOneof("update"):
            case "progress":
                answer = await service.update_progress(
                    pb.UpdateProgressRequest(**names, progress=update.progress), context
                )
                result.applied = answer.applied
                if answer.cancel_requested:
                    signal = response.signals.add(**names)
                    signal.cancel_requested.reason = answer.job.cancel_reason
                if answer.job.status > JobStatus.JOB_STATUS_PROCESSING:
                    response.signals.add(**names).lease_lost.SetInParent()
                    self._held.discard(update.job_id)
            case "asset":
                link = pb.CreateAssetRequest(**names, asset=update.asset)
                result.asset.CopyFrom((await service.create_asset(link, context)).asset)
            case "finish":
                finish = update.finish
                end = pb.TransitionJobRequest(**names, target_status=finish.status, finish=finish)
                await service.transition_job(end, context)
                self._held.discard(update.job_id)
            case "release":
                release = pb.ReleaseJobRequest(**names, release=update.release)
                await service.release_job(release, context)
                self._held.discard(update.job_id)
        service.wake()


class FakeService(WorkerServiceServicer):
    """Hands out the jobs that it is given and remembers every call.

    Its only RPC is Work. The first message of a stream counts as a call of Work, and an update as a
    call of the RPC that does the same. A rule for one of them may refuse, delay or change its
    answer; None is the usual one.
    """

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self.streams: list[FakeStream] = []
        self.messages: list[pb.WorkRequest] = []
        """Of all streams."""
        self.streamed = 0
        """Updates of streams."""
        self.calls: list[tuple[str, Any]] = []
        self.port = 0
        self.offered = asyncio.Event()
        """Set when a job may be pushed."""
        self._jobs: list[Job] = []
        self._received = asyncio.Event()

    def offer(self, job_type: str = "render", **fields: Any) -> Job:
        fields = {"attempt": 1, "retry_policy": RetryPolicy(max_attempts=1), **fields}
        job = Job(
            id=str(uuid.uuid4()),
            job_type=job_type,
            status=JobStatus.JOB_STATUS_PROCESSING,
            **fields,
        )
        self._jobs.append(job)
        self.wake()
        return job

    def requests(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    async def called(self, method: str, times: int = 1) -> Any:
        """Wait until an RPC was called so often; return that request."""
        await self.until(lambda: len(self.requests(method)) >= times)
        return self.requests(method)[times - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what the service has received fulfils a condition."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._received.clear()
                await self._received.wait()

    def take(self, job_types: Any, count: int) -> list[Job]:
        """Take jobs that were offered."""
        claimed = [job for job in self._jobs if job.job_type in job_types][:count]
        for job in claimed:
            self._jobs.remove(job)
        return claimed

    def wake(self) -> None:
        self.offered.set()

    async def update_progress(self, request, context):
        job = Job(id=request.job_id, status=JobStatus.JOB_STATUS_PROCESSING)
        usual = pb.UpdateProgressResponse(job=job, applied=True)
        return await self.received("UpdateProgress", request, context) or usual

    async def Work(self, requests, context):  # type: ignore[override]  # noqa: N802
        await FakeStream(self, context).serve(requests)

    async def transition_job(self, request, context):
        usual = pb.TransitionJobResponse(job=Job(id=request.job_id))
        return await self.received("TransitionJob", request, context) or usual

    async def release_job(self, request, context):
        usual = pb.ReleaseJobResponse(job=Job(id=request.job_id))
        return await self.received("ReleaseJob", request, context) or usual

    async def create_asset(self, request, context):
        usual = pb.CreateAssetResponse(
            asset=Asset(job_id=request.job_id, url=request.asset.asset.url)
        )
        return await self.received("CreateAsset", request, context) or usual

    def received_message(self, message: pb.WorkRequest) -> None:
        self.messages.append(message)
        self._received.set()

    async def received(self, method: str, request: Any, context: Any) -> Any:
        self.calls.append((method, request))
        self._received.set()
        rule = self.rules.get(method)
        return None if rule is None else await rule(request, context)


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    service = FakeService()
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
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(run for _, run in self._runs), return_exceptions=True)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in names if name.startswith("jobledger-")}


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    running = Running()
    yield running
    await running.stop()


class Waiting:
    """A worker whose handlers wait until they are stopped, or `go` is set."""

    def __init__(
        self, client: AsyncClient, running: Running, concurrency: int = 1, **options: Any
    ) -> None:
        self.worker = Worker(client, concurrency=concurrency, **options)
        self.started = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.stopped: list[tuple[str, bool, str]] = []
        self.has_stopped = asyncio.Event()
        self.worker.handler("render")(self._render)
        self.run = running(self.worker)

    async def _render(self, job: ClaimedJob) -> Completed:
        self.started.release()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped.append((job.id, job.cancel_requested, job.cancel_reason))
            self.has_stopped.set()
            raise
        return Completed({"attempt": job.attempt})


@pytest.fixture
def start_waiting(fake_client: AsyncClient, running: Running) -> Callable[..., Waiting]:
    def start(client: AsyncClient = fake_client, **options: Any) -> Waiting:
        return Waiting(client, running, **options)

    return start


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
        ours, end = os.pipe()
        self._output = os.fdopen(ours)
        program = [PROGRAM.read_text("utf-8"), target, job_type, *arguments]
        with (
            os.fdopen(end, "wb") as out,
            os.fdopen(os.dup(2), "wb") as err,
            Path(os.devnull).open("rb") as nothing,
        ):
            self.process = Forked("python", program, files=(nothing, out, err), env=os.environ)

    async def says(self, word: str) -> str:
        """Wait for a line that begins so; return the rest of it."""
        async with asyncio.timeout(SECONDS):
            while line := str(await asyncio.to_thread(self._output.readline)):
                if line.split()[:1] == [word]:
                    return line.removeprefix(word).strip()
        raise AssertionError(f"the worker exited without printing {word!r}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        async with asyncio.timeout(SECONDS):
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
