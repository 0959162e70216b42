"""Claims out of a million jobs that wait, of few and of many tenants, compared with 10,000."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration

from benchmarks.backlog import PAUSED_TYPE, TYPE, Backlog, fill_backlog
from benchmarks.processes import BenchmarkError, cpu_seconds
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind
from benchmarks.targets import Server
from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import ClaimJobsRequest
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

SMALL = 10_000

BACKLOGS = (
    Backlog(tenants=1),
    Backlog(tenants=100, keys=12, full=4),
    Backlog(tenants=100_000, keys=12, full=4),
)

BATCHES = (32, 100)
"""Jobs of one claim. 100 is the most."""

CLAIMS_OF_ONE, CLAIMS_OF_MANY = 100, 10
"""Claims of a round on each side: few, so that the small database keeps most of its jobs."""

NEXT = 8
"""Claims in which the only job of a tenant has its turn."""

BAR = 1.2
"""How many times as long a claim may take."""

HOUR = Duration(seconds=3600)


def measure_backlog(run: Run) -> None:
    """Measure claims out of 1,000,000 waiting jobs of many tenants, compared with 10,000.

    Where there are keys, half of the jobs have one, and a third of the keys are full. A tenth of
    all jobs are of a type that is paused then. The ceiling is the same with 10,000 jobs.
    """
    for name in run.databases:
        for backlog in BACKLOGS:
            sides = []
            for jobs in (SMALL, run.arguments.jobs):
                run.tell(f"filling {name} with {jobs:,} jobs of {backlog.tenants:,} tenants")
                database = run.database(name)
                fill_backlog(database, jobs, backlog)
                server = Server(database, *run.arguments.serve)
                run.stack.callback(server.kill)
                server.start()
                sides.append(_Side(server))
            _measure(run, f"{backlog.tenants:,} tenants, {name}", sides)
            if backlog.tenants == 1:
                sides[-1].check_turn_of_a_newcomer()
            for side in sides:
                side.server.kill()


SCENARIO = Scenario(measure_backlog, {"jobs": (1_000_000, "jobs that wait in the large database")})


@dataclass(frozen=True)
class _Side:
    server: Server

    def claim(self, most: int) -> float:
        """Claim jobs; return the seconds until they were there."""
        request = ClaimJobsRequest(
            worker_id="w",
            job_types=[TYPE, PAUSED_TYPE],
            max_jobs=most,
            lease_duration=HOUR,
        )
        with grpc.insecure_channel(self.server.target) as channel:
            stub = WorkerServiceStub(channel)
            stub.ClaimJobs(ClaimJobsRequest(worker_id="w", job_types=["none"]))  # it is connected
            begin = time.perf_counter()
            jobs = stub.ClaimJobs(request).jobs
            seconds = time.perf_counter() - begin
        if len(jobs) != most:
            raise BenchmarkError(f"a claim of {most} jobs got {len(jobs)}")
        return seconds

    def cpu_of(self, most: int) -> float:
        """Return the server's CPU for each job of such claims, in µs."""
        before = cpu_seconds(self.server.pid)
        for _ in range(CLAIMS_OF_MANY):
            self.claim(most)
        used = cpu_seconds(self.server.pid) - before
        return used / (CLAIMS_OF_MANY * most) * 1e6

    def check_turn_of_a_newcomer(self) -> None:
        """Check that the only job of another tenant is among the next jobs."""
        with grpc.insecure_channel(self.server.target) as channel:
            request = CreateJobRequest(user_id="newcomer", job_type=TYPE)
            created = JobServiceStub(channel).CreateJob(request)
            claim = ClaimJobsRequest(worker_id="w", job_types=[TYPE], lease_duration=HOUR)
            claims = [WorkerServiceStub(channel).ClaimJobs(claim) for _ in range(NEXT)]
        if all(job.id != created.job.id for claimed in claims for job in claimed.jobs):
            raise BenchmarkError(f"the only job of a tenant was not among the next {NEXT}")


def _measure(run: Run, title: str, sides: Sequence[_Side]) -> None:
    for side in sides:
        side.claim(BATCHES[-1])  # everything is done for the first time
    for _ in run.each_round():
        took: list[list[float]] = [[] for _ in sides]
        for _ in range(CLAIMS_OF_ONE):
            for side, seconds in zip(sides, took, strict=True):
                seconds.append(side.claim(1))
        small, large = (statistics.median(seconds) * 1e3 for seconds in took)
        run.report.add(Kind.TIME, f"ClaimJobs of 1, p50, {title}", "ms", large, small, bar=BAR)
        for most in BATCHES:
            small, large = (side.cpu_of(most) for side in sides)
            run.report.add(Kind.SERVER_CPU, f"ClaimJobs of {most}, {title}", "µs/job", large, small)
