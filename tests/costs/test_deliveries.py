"""What a change costs beside the writing: one serialization, however many are told."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server.app import App
from jobledger_server.domain.model import Job
from jobledger_server.wire import encoding, messages

WATCHERS = 40


async def test_a_change_is_serialized_once_for_all_who_watch_its_job(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    serialized: list[int] = []
    job_bytes = encoding.job_bytes

    def noted(job: Job) -> bytes:
        serialized.append(job.version)
        return job_bytes(job)

    async with grpc.aio.insecure_channel(app.address) as channel:
        jobs, workers = JobServiceStub(channel), WorkerServiceStub(channel)
        created = await jobs.CreateJob(
            job_service_pb2.CreateJobRequest(user_id="ada", job_type="render")
        )
        started = await workers.TransitionJob(
            worker_service_pb2.TransitionJobRequest(
                job_id=created.job.id, target_status=job_pb2.JOB_STATUS_PROCESSING, worker_id="w"
            )
        )
        one = [
            jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=created.job.id, user_id="ada"))
            for _ in range(WATCHERS)
        ]
        many = [
            jobs.WatchJobs(job_service_pb2.WatchJobsRequest(user_id="ada")) for _ in range(WATCHERS)
        ]
        for stream in one:
            await stream.read()
        for stream in many:
            while not (await stream.read()).synced:
                pass
        for module in (encoding, messages):
            monkeypatch.setattr(module, "job_bytes", noted)
        await workers.UpdateProgress(
            worker_service_pb2.UpdateProgressRequest(job_id=created.job.id, attempt=1, progress=5)
        )
        told = await asyncio.gather(*(stream.read() for stream in (*one, *many)))
        for stream in (*one, *many):
            stream.cancel()
    version = started.job.version + 1
    assert {message.job.version for message in told} == {version}
    # Once for each kind of stream, and once for the caller's own answer.
    assert serialized == [version] * 3


async def test_all_who_watch_one_job_are_handed_the_same_bytes(
    app: App, call: Any, start: Callable[..., object]
) -> None:
    """The same object: not a byte is copied for the next watcher before gRPC has it."""
    from jobledger_server.watch.subscription import News
    from jobledger_server.wire.job_service import JobService

    service = JobService.__new__(JobService)
    service._last_news = (None, None)
    job = Job(id="j", user_id="ada", job_type="t", create_time=1, update_time=1, queue_timeout=1)
    first = service._message(News(job, ()))
    assert all(service._message(News(job, ())) is first for _ in range(WATCHERS))
