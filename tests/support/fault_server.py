"""A server that misbehaves on demand."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from jobledger.v1 import job_service_pb2_grpc
from jobledger.v1.job_pb2 import Job, JobStatus
from jobledger.v1.job_service_pb2 import (
    BatchGetJobsResponse,
    JobChange,
    WatchJobResponse,
    WatchJobsResponse,
    WatchOutputResponse,
)

Message = WatchJobResponse | WatchJobsResponse | WatchOutputResponse
Script = Callable[[Any, grpc.ServicerContext], Iterator[Message]]


def aborts(code: grpc.StatusCode, words: str = "scripted") -> Script:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        context.abort(code, words)
        yield WatchJobResponse()

    return script


def refuses(status: grpc.Status) -> Script:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        context.abort_with_status(status)
        yield WatchJobResponse()

    return script


def falls_silent(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(30)
    yield from ()


def rich(code: grpc.StatusCode, reason: str, *details: Any, **metadata: str) -> grpc.Status:
    """Make a status as the service does: with its reason."""
    status = Status(code=code.value[0], message=reason)
    info = ErrorInfo(reason=reason, domain="jobledger", metadata=metadata)
    for detail in (info, *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def moves() -> Script:
    """End an old stream: go on elsewhere, at once."""
    retry = RetryInfo(retry_delay=Duration())
    return refuses(rich(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", retry, resume_token="theirs"))


class FaultServer(job_service_pb2_grpc.JobServiceServicer):
    """Plays one script for each watch, in order, and remembers the requests.

    BatchGetJobs has the jobs of `stored`, once it was refused `outages` times.
    """

    aborts = staticmethod(aborts)
    refuses = staticmethod(refuses)
    falls_silent = staticmethod(falls_silent)
    moves = staticmethod(moves)
    rich = staticmethod(rich)

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.scripts: list[Script] = []
        self.ended = threading.Event()
        self.stored: dict[str, Job] = {}
        self.outages = 0
        self.was_read = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def WatchJob(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        self.requests.append(request)
        context.add_callback(self.ended.set)
        return self.scripts.pop(0)(request, context)

    WatchJobs = WatchJob
    WatchOutput = WatchJob

    def BatchGetJobs(self, request: Any, context: grpc.ServicerContext) -> BatchGetJobsResponse:  # noqa: N802
        if self.outages:
            self.outages -= 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "scripted")
        found = [self.stored[job_id] for job_id in request.job_ids if job_id in self.stored]
        answer = BatchGetJobsResponse(jobs=found)
        self.was_read.set()
        return answer

    def stores(self, job_id: str, version: int, status: str, **payloads: dict[str, Any]) -> None:
        """Add a job to those that BatchGetJobs has."""
        status_number = JobStatus.Value(f"JOB_STATUS_{status}")
        job = self.stored[job_id] = Job(id=job_id, version=version, status=status_number)
        for name, content in payloads.items():
            getattr(job, name).update(content)

    @staticmethod
    def message(version: int, status: str = "PROCESSING") -> WatchJobResponse:
        job = Job(id="j", version=version, status=JobStatus.Value(f"JOB_STATUS_{status}"))
        return WatchJobResponse(job=job)

    @staticmethod
    def news(
        token: str,
        job_id: str = "",
        version: int = 1,
        status: str = "PROCESSING",
        *,
        deleted: bool = False,
        **fields: bool,
    ) -> WatchJobsResponse:
        """Make a message of WatchJobs; without a job id, one of `synced` or `heartbeat`."""
        response = WatchJobsResponse(resume_token=token, **fields)
        if job_id:
            status_number = JobStatus.Value(f"JOB_STATUS_{status}")
            job = Job(id=job_id, version=version, status=status_number)
            response.changes.changes.append(JobChange(job=job, deleted=deleted))
        return response

    def says(self, *messages: Message, then: Script | None = None) -> None:
        """Add a script: these messages, then the end (OK unless `then` says otherwise)."""

        def script(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            yield from messages
            if then is not None:
                yield from then(request, context)

        self.scripts.append(script)

    def stop(self) -> None:
        self._server.stop(0).wait()
