"""The test's own view of the server, and what the programs' lines mean as messages."""

from typing import Any, Self

import grpc
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Attempt, Job, JobTransition
from jobledger.v1.job_service_pb2 import (
    CreateJobRequest,
    GetJobRequest,
    ListAssetsRequest,
    ListAttemptsRequest,
    ListTransitionsRequest,
    WatchOutputResponse,
)
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.queue_service_pb2 import ConcurrencyLimit
from jobledger.v1.worker_service_pb2 import (
    AppendOutputRequest,
    MarkCompletedRequest,
    TransitionJobRequest,
    UpdateProgressRequest,
    UpdateResult,
)
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.polyglot.programs import Event

MAX_STRUCT = 256 * 1024


class Ledger:
    """Calls the server with the repository's own stubs; waits for one that restarts."""

    def __init__(self, target: str) -> None:
        options = [
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.insecure_channel(target, options)
        self._jobs = JobServiceStub(self._channel)
        self._workers = WorkerServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def create(self, user: str, **fields: Any) -> Job:
        request = CreateJobRequest(user_id=user, **{"job_type": "render", **fields})
        return self._job(self._jobs.CreateJob, request)

    def get(self, job: Job) -> Job:
        request = GetJobRequest(job_id=job.id, user_id=job.user_id)
        return self._job(self._jobs.GetJob, request)

    def start(self, job: Job) -> Job:
        request = TransitionJobRequest(job_id=job.id, target_status="JOB_STATUS_PROCESSING")
        return self._job(self._workers.TransitionJob, request)

    def progress(self, job: Job, percent: int) -> Job:
        request = UpdateProgressRequest(
            job_id=job.id, any_attempt=True, progress={"progress": percent}
        )
        return self._job(self._workers.UpdateProgress, request)

    def append(self, job: Job, text: str) -> int:
        request = AppendOutputRequest(job_id=job.id, attempt=job.attempt, data=text.encode())
        return int(self._call(self._workers.AppendOutput, request).next_offset)

    def complete(self, job: Job) -> Job:
        request = MarkCompletedRequest(job_id=job.id, any_attempt=True)
        return self._job(self._workers.MarkCompleted, request)

    def assets(self, job: Job) -> list[Asset]:
        request = ListAssetsRequest(job_id=job.id, user_id=job.user_id)
        return list(self._call(self._jobs.ListAssets, request).assets)

    def attempts(self, job: Job) -> list[Attempt]:
        request = ListAttemptsRequest(job_id=job.id, user_id=job.user_id)
        return list(self._call(self._jobs.ListAttempts, request).attempts)

    def transitions(self, job: Job) -> list[JobTransition]:
        request = ListTransitionsRequest(job_id=job.id, user_id=job.user_id)
        return list(self._call(self._jobs.ListTransitions, request).transitions)

    def _job(self, method: Any, request: Any) -> Job:
        job: Job = self._call(method, request).job
        return job

    def _call(self, method: Any, request: Any) -> Any:
        return method(request, timeout=30, wait_for_ready=True)


def job_in(event: Event) -> Job:
    job = _parsed(event["job"], Job())
    assert isinstance(event["job"]["version"], str), "int64 as a decimal string"
    return job


def jobs_in(event: Event) -> list[Job]:
    return [_parsed(each, Job()) for each in event["jobs"]]


def result_in(event: Event) -> UpdateResult:
    return _parsed(event["result"], UpdateResult())


def limit_in(event: Event) -> ConcurrencyLimit:
    return _parsed(event["limit"], ConcurrencyLimit())


def output_in(event: Event) -> WatchOutputResponse:
    return _parsed(event["output"], WatchOutputResponse())


def transitions_in(event: Event) -> list[JobTransition]:
    return [_parsed(each, JobTransition()) for each in event["transitions"]]


def _parsed(fields: dict[str, Any], message: Any) -> Any:
    assert isinstance(fields, dict)
    return json_format.ParseDict(fields, message)


def struct(fields: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(fields)
    return struct


def largest() -> dict[str, Any]:
    """Return an object that takes exactly as many bytes, serialized, as the service allows."""
    text = "x" * (MAX_STRUCT - 1000)
    fields = {"text": text}
    fields["text"] += "x" * (MAX_STRUCT - struct(fields).ByteSize())
    assert struct(fields).ByteSize() == MAX_STRUCT
    return fields


def basic(job: Job) -> Job:
    """Return a copy of a job without its payloads, as answers to writes and lists have it."""
    copy = Job()
    copy.CopyFrom(job)
    copy.ClearField("parameters")
    copy.ClearField("result")
    return copy
