"""Claims: jobs out of a backlog, a job to a worker that waits, a server with nothing to do."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.duration_pb2 import Duration

from benchmarks.counting import counting
from benchmarks.load import BATCH
from benchmarks.load.messages import create_requests
from benchmarks.measure import Work, measure
from benchmarks.processes import BenchmarkError, cpu_seconds
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import ClaimJobsRequest
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

CLAIMERS = 32
WORKS = (
    Work.calls("ClaimJobs of one job", "claim", CLAIMERS, unit="job"),
    Work.calls("ClaimJobs of 20 jobs", "claim_many", CLAIMERS, unit="job"),
)

FIRST = 2
"""Jobs of a series that are left out: everything is done for the first time."""

SETTLE_SECONDS = 0.2

Route = tuple[str, Server, Server, float]
"""A title, where jobs are created, where a worker waits for them, and the seconds between two jobs,
and up to as many again: so that all is idle before each."""

Moment = tuple[str, float]
"""A job's id, and when something happened to it, in seconds by the monotonic clock."""


def measure_claims(run: Run) -> None:
    """Measure claims out of a backlog and by a worker that waits, and an idle server."""
    _add_idle(run)
    servers = [run.serving(name) for name in run.databases]
    backlog = Work.alone("", "create_batch", -(-run.arguments.backlog // BATCH))
    claimed: set[str] = set()
    routes = list(_routes(run, servers))
    for turn in run.each_round():
        for work in WORKS:
            for server in servers:
                measure(server, run.generators[:1], backlog)
            run.measure(work, servers, turn)
            for server in servers:
                for generator in run.generators:
                    ids = generator.do("calls.claimed", target=server.target)["ids"]
                    if len(claimed.union(ids)) < len(claimed) + len(ids):
                        raise BenchmarkError(f"{server.database.name}: a job was claimed twice")
                    claimed.update(ids)
        for number, route in enumerate(routes):
            p50, p99 = _dispatch(run, route, f"waiting-{turn}-{number}")
            run.report.add(Kind.TIME, f"{route[0]}, p50", "ms", p50)
            run.report.add(Kind.TIME, f"{route[0]}, p99", "ms", p99)
    run.report.note(
        f"{len(claimed):,} jobs were claimed, none of them twice. A job that waits is created and "
        "claimed, two commits one after the other; times are from the sending of CreateJob."
    )


SCENARIO = Scenario(
    measure_claims,
    {
        "backlog": (30_000, "jobs that are created for each measurement of claims"),
        "jobs": (50, "jobs to a waiting worker"),
        "idle": (8.0, "seconds of doing nothing"),
    },
)


def _routes(run: Run, servers: list[Server]) -> Iterator[Route]:
    for server in servers:
        name = server.database.name
        yield f"a job to a waiting claim, {name}", server, server, 0.03
        if server.database.pid is not None:
            # On a database of their own: replicas read what is claimed on the other one.
            home = run.serving(name)
            other = run.serving(home.database)
            yield f"a job to a claim at another replica, {name}", home, other, 0.06
            polling = run.serving(home.database, "--feed=poll")
            yield f"a job to a claim at another replica that polls, {name}", home, polling, 0.6


def _dispatch(run: Run, route: Route, job_type: str) -> tuple[float, float]:
    """Create jobs for a worker that waits; return the percentiles of the time until it has one."""
    title, created_at, received_at, gap = route
    # A route with long pauses has fewer.
    jobs = max(2, int(run.arguments.jobs * min(1.0, 0.12 / gap))) + FIRST
    with ThreadPoolExecutor(1) as thread:
        receiving = thread.submit(_wait, received_at.target, job_type, jobs)
        time.sleep(SETTLE_SECONDS)
        created = _create(created_at.target, job_type, jobs, gap)
        received = receiving.result()
    if [job_id for job_id, _ in created] != [job_id for job_id, _ in received]:
        raise BenchmarkError(f"{title}: the jobs received are not those created, in order")
    pairs = list(zip(created, received, strict=True))[FIRST:]
    return percentiles([there - sent for (_, sent), (_, there) in pairs])


def _create(target: str, job_type: str, jobs: int, gap: float) -> list[Moment]:
    """Create one job after the other; return when each was sent."""
    created = []
    requests = create_requests(job_type=job_type)
    with grpc.insecure_channel(target) as channel:
        stub = JobServiceStub(channel)
        for _ in range(jobs):
            time.sleep(gap + random.random() * gap)
            sent = time.monotonic()
            created.append((stub.CreateJob(next(requests)).job.id, sent))
    return created


def _wait(target: str, job_type: str, jobs: int) -> list[Moment]:
    """Wait for jobs, one call after the other; return when each was there."""
    wait, lease = Duration(seconds=60), Duration(seconds=3600)
    request = ClaimJobsRequest(
        worker_id="waiting", job_types=[job_type], lease_duration=lease, wait=wait
    )
    received: list[Moment] = []
    with grpc.insecure_channel(target) as channel:
        stub = WorkerServiceStub(channel)
        while len(received) < jobs:
            (job,) = stub.ClaimJobs(request).jobs
            received.append((job.id, time.monotonic()))
    return received


def _add_idle(run: Run) -> None:
    """Add what a server without callers asks of its database, and its CPU."""
    run.tell("watching servers do nothing")
    for name in run.databases:
        with counting(run.database(name)) as counted:
            time.sleep(min(2.0, run.arguments.idle))  # at first a server does some things once
            before, used = counted.read(), cpu_seconds(counted.server.pid)
            time.sleep(run.arguments.idle)
            after, cpu = counted.read(), cpu_seconds(counted.server.pid) - used
        statements = (after[Kind.STATEMENTS] - before[Kind.STATEMENTS]) / run.arguments.idle
        run.report.add(Kind.STATEMENTS, f"an idle server, {name}", "1/s", statements)
        milliseconds = cpu / run.arguments.idle * 1000
        run.report.add(Kind.SERVER_CPU, f"an idle server, {name}", "ms/s", milliseconds)
