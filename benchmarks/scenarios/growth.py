"""What calls cost with 5,000,000 jobs in the database, compared with the same with 10,000."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from benchmarks.load.messages import create_requests, report
from benchmarks.measure import check
from benchmarks.processes import BenchmarkError
from benchmarks.scenarios import Run, Scenario
from benchmarks.seed import Filled, Job, fill
from benchmarks.stats import Kind
from benchmarks.targets import Server
from jobledger.v1.job_service_pb2 import (
    GetJobRequest,
    JobFilter,
    ListJobsRequest,
    WatchJobRequest,
    WatchJobsRequest,
)
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import ClaimJobsRequest
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

SMALL = 10_000
WARM_UP_CALLS = 20

BAR = 1.2
"""How many times as long each call may take."""

ROWS = 50
"""Jobs on a page where nothing else is asked for."""

HOUR = Duration(seconds=3600)


class Side:
    """One database, its server, and the calls that can be made on it.

    Each call is about a job, and returns the seconds until its answer was there. Answers are
    checked after that.
    """

    def __init__(self, filled: Filled, server: Server) -> None:
        self.filled = filled
        channel = grpc.insecure_channel(server.target)
        self._jobs = JobServiceStub(channel)
        self._workers = WorkerServiceStub(channel)
        self._requests = create_requests()
        self._reports = itertools.count(1)
        self._created: list[str] = []
        self._resume_tokens: dict[str, str] = {}

    def create(self, job: Job) -> float:
        request = next(self._requests)
        request.user_id, request.job_type = job.owner, job.type
        self._created.append(job.type)
        return _timed(self._jobs.CreateJob, request, lambda answer: answer.job.version == 1)

    def claim(self, _: Job) -> float:
        """Claim the oldest job of a type of which one was created."""
        types = [self._created.pop(0)]
        request = ClaimJobsRequest(worker_id="worker-1", job_types=types, lease_duration=HOUR)
        return _timed(self._workers.ClaimJobs, request, lambda answer: len(answer.jobs) == 1)

    def progress(self, job: Job) -> float:
        request = report(job.id, next(self._reports))
        return _timed(self._workers.UpdateProgress, request, lambda answer: answer.applied)

    def get(self, job: Job) -> float:
        request = GetJobRequest(job_id=job.id, user_id=job.owner)
        return _timed(self._jobs.GetJob, request, lambda answer: answer.job.id == job.id)

    def list(self, job: Job) -> float:
        request = ListJobsRequest(user_id=job.owner, page_size=ROWS)
        return _timed(self._jobs.ListJobs, request, lambda answer: len(answer.jobs) == ROWS)

    def list_nothing(self, job: Job) -> float:
        """Search the owner's jobs for a label that none has."""
        request = ListJobsRequest(user_id=job.owner, filter=JobFilter(labels={"project": "none"}))
        return _timed(self._jobs.ListJobs, request, lambda answer: not answer.jobs)

    def watch(self, job: Job) -> float:
        """Watch a job until the first message."""
        request = WatchJobRequest(job_id=job.id, user_id=job.owner)
        return _timed_until(self._jobs.WatchJob, request, lambda _: True)

    def sync(self, job: Job) -> float:
        """Watch the owner's jobs until all that have not ended were sent."""
        return self._synced(WatchJobsRequest(user_id=job.owner))

    def resume(self, job: Job) -> float:
        """Watch the owner's jobs again after a new one, from where the last watch had come."""
        if job.owner not in self._resume_tokens:
            self.sync(job)
        token = self._resume_tokens[job.owner]
        self.create(job)
        return self._synced(WatchJobsRequest(user_id=job.owner, resume_token=token))

    def _synced(self, request: WatchJobsRequest) -> float:
        def last(message: Any) -> bool:
            self._resume_tokens[request.user_id] = message.resume_token
            return bool(message.synced)

        return _timed_until(self._jobs.WatchJobs, request, last)


def _timed(call: Callable[[Any], Any], request: Any, right: Callable[[Any], bool]) -> float:
    begin = time.monotonic()
    answer = call(request)
    took = time.monotonic() - begin
    if not right(answer):
        raise BenchmarkError(f"{request} was answered {answer}")
    return took


def _timed_until(watch: Callable[[Any], Any], request: Any, last: Callable[[Any], bool]) -> float:
    """Return the seconds until the first message of which `last` is true."""
    begin = time.monotonic()
    call = watch(request)
    if not any(last(message) for message in call):
        raise BenchmarkError(f"a watch ended: {request}")
    took = time.monotonic() - begin
    call.cancel()
    return took


@dataclass(frozen=True)
class Call:
    """A call that is measured.

    Attributes:
        seconds: makes it.
        jobs: which jobs it is about (see `Filled.pick`).
        writes: whether each call is a change.
    """

    title: str
    seconds: Callable[[Side, Job], float]
    jobs: str = "any"
    writes: bool = False


CALLS = (
    Call("CreateJob", Side.create, writes=True),
    Call("ClaimJobs", Side.claim, writes=True),
    Call("UpdateProgress", Side.progress, "PROCESSING", writes=True),
    Call("GetJob", Side.get),
    Call("ListJobs, first page, large owner", Side.list, "large"),
    Call("ListJobs, first page, small owner", Side.list, "small"),
    Call("ListJobs, a label that no job has, large owner", Side.list_nothing, "large"),
    Call("WatchJob, first message", Side.watch),
    Call("WatchJobs, in sync, small owner", Side.sync, "small"),
    Call("WatchJobs, resumed, large owner", Side.resume, "large", writes=True),
)


def measure_growth(run: Run) -> None:
    """Measure calls with 5,000,000 jobs in the database, compared with the same with 10,000.

    Both sizes are served at the same time, and one caller calls them in turn. What is called for
    is picked at random of all jobs and owners, so that calls meet rows that earlier ones did not.
    """
    run.report.note(f"The reference is the same with {SMALL:,} jobs.")
    for name in run.databases:
        filled = []
        for jobs in (SMALL, run.arguments.jobs):
            run.tell(f"filling {name} with {jobs:,} jobs")
            filled.append(fill(run.database(name), jobs))
            seconds = filled[-1].seconds
            run.report.note(f"{name} was filled with {filled[-1].jobs:,} jobs in {seconds:.0f} s.")
        servers = [Server(one.database, *run.arguments.serve) for one in filled]
        for server in servers:
            run.stack.callback(server.kill)
        starts = [server.start() * 1e3 for server in reversed(servers)]
        run.report.add(Kind.TIME, f"start to SERVING, {name}", "ms", *starts)
        sides = [Side(one, server) for one, server in zip(filled, servers, strict=True)]
        for call in CALLS:
            _alternate(call, sides, WARM_UP_CALLS)
        for _ in run.each_round():
            for call in CALLS:
                small, large = _alternate(call, sides, run.arguments.calls)
                title = f"{call.title}, {name}"
                run.report.add(Kind.TIME, title, "ms", large * 1e3, small * 1e3, ratio_bar=BAR)
        for server in servers:
            server.kill()


SCENARIO = Scenario(
    measure_growth,
    {
        "jobs": (5_000_000, "jobs in the large database"),
        "calls": (200, "calls of each kind a round"),
    },
)


def _alternate(call: Call, sides: "Sequence[Side]", calls: int) -> list[float]:
    """Make that many calls on each side, in turn; return each one's median in seconds.

    Raises BenchmarkError unless exactly the acknowledged changes are in the databases.
    """
    before = [side.filled.database.feed_seq() for side in sides]
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(calls):
        for side, took in zip(sides, seconds, strict=True):
            took.append(call.seconds(side, side.filled.pick(call.jobs)))
    for side, seq in zip(sides, before, strict=True):
        check(side.filled.database, seq, calls * call.writes)
    return [statistics.median(took) for took in seconds]
