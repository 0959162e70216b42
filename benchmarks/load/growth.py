"""One caller and two servers: calls made in turn on each, each for a job that it is given.

A job is given as its id, its owner and its type. Answers are checked after their time is taken.
"""

import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from benchmarks.load.messages import create_requests
from benchmarks.load.program import Reply, Wrong, serve
from jobledger.v1 import asset_pb2, job_pb2, job_service_pb2, worker_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server.rpc.tokens import read_token, token
from jobledger_server.watch.feed_watch import Selection

ROWS = 50
"""Jobs on a page where nothing else is asked for."""

FILTERED_ROWS = 10
"""Jobs on a page of some of an owner's: so few that an owner of 250 jobs has them."""

BEHIND = 20_000
"""Changes that a watch missed: more than a server keeps in memory."""

Job = tuple[str, str, str]
"""Its id, its owner and its type."""


class Calls:
    """One server, and the calls that can be made on it."""

    def __init__(self, address: str) -> None:
        channel = grpc.aio.insecure_channel(address)
        self._jobs: Any = JobServiceStub(channel)
        self._workers: Any = WorkerServiceStub(channel)
        self._requests = create_requests()
        self._claimed: list[str] = []
        self._random = random.Random(1)
        self._reports = 0

    async def create(self, job: Job) -> float:
        request = next(self._requests)
        _, request.user_id, request.job_type = job
        request.request_id = uuid.uuid4().hex
        took, _ = await _timed(self._jobs.CreateJob, request)
        return took

    async def get(self, job: Job) -> float:
        job_id, user_id, _ = job
        request = job_service_pb2.GetJobRequest(job_id=job_id, user_id=user_id)
        took, answer = await _timed(self._jobs.GetJob, request)
        _expect(answer.job.id == job_id, answer)
        return took

    async def claim(self, job: Job) -> float:
        """Claim the oldest job of the same type."""
        *_, job_type = job
        request = worker_service_pb2.ClaimJobsRequest(
            worker_id="worker-1", job_types=[job_type], lease_duration=Duration(seconds=3600)
        )
        took, answer = await _timed(self._workers.ClaimJobs, request)
        _expect([job.job_type for job in answer.jobs] == [job_type], answer)
        self._claimed.append(answer.jobs[0].id)
        return took

    async def progress(self, job: Job) -> float:
        self._reports += 1
        request = worker_service_pb2.UpdateProgressRequest(
            job_id=job[0], attempt=1, progress=50, progress_message=f"step {self._reports}"
        )
        took, answer = await _timed(self._workers.UpdateProgress, request)
        _expect(answer.applied, answer)
        return took

    async def complete(self, _: Job) -> float:
        """End any of the jobs that were claimed, with an asset."""
        number = self._random.randrange(len(self._claimed))
        self._claimed[number], job_id = self._claimed[-1], self._claimed[number]
        self._claimed.pop()
        asset = asset_pb2.Asset(asset_type="image", url=f"https://assets.example/{job_id}.png")
        request = worker_service_pb2.MarkCompletedRequest(job_id=job_id, attempt=1, assets=[asset])
        took, answer = await _timed(self._workers.MarkCompleted, request)
        _expect(answer.job.status == job_pb2.JOB_STATUS_COMPLETED, answer)
        return took

    async def list(self, job: Job) -> float:
        return await self._list(job, ROWS)

    async def list_failed(self, job: Job) -> float:
        return await self._list(job, FILTERED_ROWS, statuses=[job_pb2.JOB_STATUS_FAILED])

    async def list_project(self, job: Job) -> float:
        return await self._list(job, FILTERED_ROWS, labels={"project": "project-3"})

    async def list_nothing(self, job: Job) -> float:
        return await self._list(job, 0, labels={"project": "none"})

    async def _list(self, job: Job, rows: int, **filters: Any) -> float:
        _, user_id, _ = job
        request = job_service_pb2.ListJobsRequest(user_id=user_id, page_size=rows, **filters)
        took, answer = await _timed(self._jobs.ListJobs, request)
        _expect([job.user_id for job in answer.jobs] == [user_id] * rows, answer)
        return took

    async def assets(self, job: Job) -> float:
        job_id, user_id, _ = job
        request = job_service_pb2.ListAssetsRequest(job_id=job_id, user_id=user_id)
        took, answer = await _timed(self._jobs.ListAssets, request)
        _expect(all(asset.job_id == job_id for asset in answer.assets), answer)
        return took

    async def transitions(self, job: Job) -> float:
        job_id, user_id, _ = job
        request = job_service_pb2.ListTransitionsRequest(job_id=job_id, user_id=user_id)
        took, answer = await _timed(self._jobs.ListTransitions, request)
        _expect(all(step.job_id == job_id for step in answer.transitions), answer)
        return took

    async def watch(self, job: Job) -> float:
        """Watch a job until the first message."""
        job_id, user_id, _ = job
        request = job_service_pb2.WatchJobRequest(job_id=job_id, user_id=user_id)
        took, message = await _watched(self._jobs.WatchJob, request, lambda _: True)
        _expect(message.job.id == job_id, message)
        return took

    async def watch_all(self, job: Job) -> float:
        """Watch the owner's jobs until the first message."""
        took, message = await self._watch_all(job, lambda _: True)
        _expect(message.synced or message.job.user_id == job[1], message)
        return took

    async def sync(self, job: Job) -> float:
        """Watch the owner's jobs until all that have not ended were sent."""
        took, _ = await self._watch_all(job, lambda message: bool(message.synced))
        return took

    async def resume(self, job: Job) -> float:
        """Watch the owner's jobs from BEHIND changes back until the first message."""
        _, user_id, _ = job
        _, message = await self._watch_all(job, lambda message: bool(message.synced))
        key = Selection(user_id=user_id).key()
        epoch, seq, _ = read_token("resume_token", key, message.resume_token).split("/")
        back = token(key, f"{epoch}/{int(seq) - BEHIND}/")
        request = job_service_pb2.WatchJobsRequest(user_id=user_id, resume_token=back)
        took, message = await _watched(self._jobs.WatchJobs, request, lambda _: True)
        _expect(message.job.user_id == user_id, message)
        return took

    async def _watch_all(self, job: Job, last: Callable[[Any], bool]) -> tuple[float, Any]:
        _, user_id, _ = job
        request = job_service_pb2.WatchJobsRequest(user_id=user_id)
        return await _watched(self._jobs.WatchJobs, request, last)


async def _timed(call: Callable[[Any], Awaitable[Any]], request: Any) -> tuple[float, Any]:
    """Return the seconds until the answer, and the answer."""
    begin = time.monotonic()
    answer = await call(request)
    return time.monotonic() - begin, answer


async def _watched(
    watch: Callable[[Any], Any], request: Any, last: Callable[[Any], bool]
) -> tuple[float, Any]:
    """Return the seconds until the first message of which `last` is true, and that message."""
    begin = time.monotonic()
    call = watch(request)
    while not last(message := await call.read()):
        pass
    took = time.monotonic() - begin
    call.cancel()
    return took, message


def _expect(right: bool, answer: object) -> None:  # noqa: FBT001
    if not right:
        raise Wrong(f"an answer was {answer}")


class Growth:
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        self._calls: dict[str, Calls] = {}

    async def alternate(self, jobs: dict[str, list[Job]], operation: str) -> Reply:
        """Make one call after the other, in turn on each target, each for the target's next job.

        Return each target's seconds.
        """
        for target in jobs:
            if target not in self._calls:
                self._calls[target] = Calls(target)
        seconds: dict[str, list[float]] = {target: [] for target in jobs}
        for picks in zip(*jobs.values(), strict=True):
            for target, pick in zip(jobs, picks, strict=True):
                seconds[target].append(await getattr(self._calls[target], operation)(pick))
        return {"seconds": seconds}


if __name__ == "__main__":
    serve(Growth)
