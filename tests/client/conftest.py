"""A server that misbehaves on demand, and the real one."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from jobledger.v1 import job_service_pb2_grpc
from jobledger_client import AsyncClient, Client, Job, JobStatus, WatchJobResponse
from server_process import ServerProcess

Script = Callable[[Any, grpc.ServicerContext], Iterator[WatchJobResponse]]


class FaultServer(job_service_pb2_grpc.JobServiceServicer):
    """Plays one script for each WatchJob, in order, and remembers the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.scripts: list[Script] = []
        self.ended = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def WatchJob(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[WatchJobResponse]:
        self.requests.append(request)
        context.add_callback(self.ended.set)
        return self.scripts.pop(0)(request, context)

    @staticmethod
    def message(version: int, status: str = "PROCESSING", **fields: Any) -> WatchJobResponse:
        job = Job(id="j", version=version, status=JobStatus.Value(f"JOB_STATUS_{status}"))
        return WatchJobResponse(job=job, **fields)

    def says(self, *messages: WatchJobResponse, then: Script | None = None) -> None:
        """Add a script: these messages, then the end (OK unless `then` says otherwise)."""

        def script(request: Any, context: grpc.ServicerContext) -> Iterator[WatchJobResponse]:
            yield from messages
            if then is not None:
                yield from then(request, context)

        self.scripts.append(script)

    def stop(self) -> None:
        self._server.stop(0).wait()


def aborts(code: grpc.StatusCode, words: str = "scripted") -> Script:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[WatchJobResponse]:
        context.abort(code, words)
        yield WatchJobResponse()

    return script


def refuses(status: grpc.Status) -> Script:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[WatchJobResponse]:
        context.abort_with_status(status)
        yield WatchJobResponse()

    return script


def falls_silent(request: Any, context: grpc.ServicerContext) -> Iterator[WatchJobResponse]:
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(30)
    yield from ()


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    server = FaultServer()
    server.aborts, server.refuses, server.falls_silent = aborts, refuses, falls_silent
    yield server
    server.stop()


@pytest.fixture(params=["sync", "async"])
def collect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Watch to the end with either client; give what was yielded."""

    async def collect(target: str, job_id: str, **options: Any) -> list[WatchJobResponse]:
        if request.param == "async":
            async with AsyncClient(target, user_id="ada") as client:
                return [message async for message in client.watch(job_id, **options)]

        def read() -> list[WatchJobResponse]:
            with Client(target, user_id="ada") as client:
                return list(client.watch(job_id, **options))

        return await asyncio.to_thread(read)

    return collect


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The real server, shared: tests use owners of their own."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real server that may be killed."""
    with ServerProcess(tmp_path_factory.mktemp("own_server")) as process:
        yield process
