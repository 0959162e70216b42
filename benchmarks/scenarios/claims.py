"""Claims: jobs out of a backlog, a job to a worker that waits, expired leases, an idle server."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.counting import counting
from benchmarks.load import BATCH, USER
from benchmarks.load.messages import create_requests
from benchmarks.measure import Target, Work, measure, unary_calls
from benchmarks.processes import BenchmarkError, cpu_seconds
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server
from jobledger.v1.job_pb2 import JOB_STATUS_FAILED
from jobledger.v1.job_service_pb2 import GetJobRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import ClaimJobsRequest
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_client import AsyncClient
from jobledger_client.worker import ClaimedJob, Worker

CLAIMERS = 32
WORKS = (
    Work.calls("ClaimJobs of one job", "claim", CLAIMERS, unit="job"),
    Work.calls("ClaimJobs of 20 jobs", "claim20", CLAIMERS, unit="job"),
)

LEASE_SECONDS = 5
"""The shortest that there is."""

PROMISED_SECONDS = 2.0

FIRST = 2
"""Jobs of a series that are left out: everything is done for the first time."""

SETTLE_SECONDS = 0.2

Moment = tuple[str, float]
"""A job's id, and when something happened to it, in seconds by the monotonic clock."""


def measure_claims(run: Run) -> None:
    """Measure claims: out of a backlog, by a worker that waits; expired leases, an idle server."""
    _add_idle(run)
    bare, servers = run.bare(), [run.serving(name) for name in run.databases]
    targets: list[Target] = [bare, *servers]
    backlog = Work.alone("", "batch", -(-run.arguments.backlog // BATCH))
    claimed: set[str] = set()
    routes = list(_routes(run, servers))
    for turn in run.each_round():
        for work in WORKS:
            for target in servers:
                measure(target, run.generators[:1], backlog)
            run.compare(work, targets, turn, ceiling=unary_calls(CLAIMERS)[0])
            for server in servers:
                for generator in run.generators:
                    ids = generator.do("calls.claimed", target=server.target)["ids"]
                    if len(claimed.union(ids)) < len(claimed) + len(ids):
                        raise BenchmarkError(f"{server.database.name}: a job was claimed twice")
                    claimed.update(ids)
        ceiling = _dispatch(run, _Route("", bare, bare, _wait), f"bare-{turn}")
        for number, route in enumerate(routes):
            p50, p99 = _dispatch(run, route, f"waiting-{turn}-{number}")
            run.report.add(Kind.TIME, f"{route.title}, p50", "ms", p50, ceiling[0])
            run.report.add(Kind.TIME, f"{route.title}, p99", "ms", p99, ceiling[1])
    _add_expiry(run, servers)
    run.report.note(
        f"{len(claimed):,} jobs were claimed, none of them twice. A job that waits is created and "
        "claimed, two commits one after the other; times are from the sending of CreateJob."
    )


SCENARIO = Scenario(
    measure_claims,
    {
        "backlog": (30_000, "jobs that are created for each measurement of claims"),
        "jobs": (50, "jobs to a waiting worker"),
        "expiring": (20, "leases that expire"),
        "idle": (8.0, "seconds of doing nothing"),
    },
)


@dataclass(frozen=True)
class _Route:
    """From one server to a worker at the same or at another one."""

    title: str
    created_at: Target
    received_at: Target
    receive: Callable[[str, str, int], list[Moment]]
    gap: float = 0.03
    """Seconds between two jobs, and up to as much again: so that all is idle before each."""


def _routes(run: Run, servers: list[Server]) -> Iterator[_Route]:
    for server in servers:
        name = server.database.name
        yield _Route(f"a job to a waiting claim, {name}", server, server, _wait)
        yield _Route(f"a job to its handler, {name}", server, server, _handle)
        if server.database.pid is not None:
            # On a database of their own: replicas read what is claimed on the other one.
            home = run.serving(name)
            other = run.serving(home.database)
            yield _Route(
                f"a job to a claim at another replica, {name}", home, other, _wait, gap=0.06
            )
            polling = run.serving(home.database, "--feed=poll")
            title = f"a job to a claim at another replica that polls, {name}"
            yield _Route(title, home, polling, _wait, gap=0.6)


def _dispatch(run: Run, route: _Route, job_type: str) -> tuple[float, float]:
    """Create jobs for a worker that waits; return the percentiles of the time until it has one."""
    # A route with long pauses has fewer.
    jobs = max(2, int(run.arguments.jobs * min(1.0, 0.12 / route.gap))) + FIRST
    with ThreadPoolExecutor(1) as thread:
        receiving = thread.submit(route.receive, route.received_at.target, job_type, jobs)
        time.sleep(SETTLE_SECONDS)
        created = _create(route.created_at.target, job_type, jobs, route.gap)
        received = receiving.result()
    if [job_id for job_id, _ in created] != [job_id for job_id, _ in received]:
        raise BenchmarkError(f"{route.title}: the jobs received are not those created, in order")
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


def _handle(target: str, job_type: str, jobs: int) -> list[Moment]:
    """Wait for jobs with the worker library; return when each one's handler started."""
    received: list[Moment] = []

    async def work() -> None:
        async with AsyncClient(target) as client:
            worker = Worker(client, worker_id="waiting")

            @worker.handler(job_type)
            async def handler(job: ClaimedJob) -> None:
                received.append((job.id, time.monotonic()))
                if len(received) == jobs:
                    worker.stop()

            await worker.run(signals=False)

    asyncio.run(work())
    return received


def _add_expiry(run: Run, servers: list[Server]) -> None:
    """Claim jobs, let their leases expire, and add how much later each job ended.

    By `complete_time`, which the database's clock has, as the lease has.
    """
    run.tell("letting leases expire")
    expiries: dict[Server, dict[str, float]] = {}
    for server in servers:
        requests = create_requests(job_type="silent")
        claim = ClaimJobsRequest(
            worker_id="silent",
            job_types=["silent"],
            lease_duration=Duration(seconds=LEASE_SECONDS),
        )
        with grpc.insecure_channel(server.target) as channel:
            for _ in range(run.arguments.expiring):
                JobServiceStub(channel).CreateJob(next(requests))
                (job,) = WorkerServiceStub(channel).ClaimJobs(claim).jobs
                expiries.setdefault(server, {})[job.id] = _seconds(job.lease_expire_time)
    time.sleep(LEASE_SECONDS + PROMISED_SECONDS)
    for server, jobs in expiries.items():
        late = []
        with grpc.insecure_channel(server.target) as channel:
            for job_id, expiry in jobs.items():
                query = GetJobRequest(job_id=job_id, user_id=USER)
                job = JobServiceStub(channel).GetJob(query).job
                if job.status != JOB_STATUS_FAILED or job.error.reason != "LEASE_EXPIRED":
                    raise BenchmarkError(f"{server.database.name}: a job outlived its lease: {job}")
                late.append(_seconds(job.complete_time) - expiry)
        title = f"end of a lease to end of its job, {server.database.name}"
        run.report.add(Kind.TIME, f"{title}, p50", "ms", percentiles(late)[0])
        longest = max(late) * 1e3
        bar = PROMISED_SECONDS * 1e3
        run.report.add(Kind.TIME, f"{title}, longest", "ms", longest, bar_value=bar)


def _seconds(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9


def _add_idle(run: Run) -> None:
    """Add what a server without callers asks of its database, and its CPU."""
    run.tell("watching servers do nothing")
    for name in run.databases:
        with counting(run.database(name)) as counted:
            time.sleep(
                min(2.0, run.arguments.idle)
            )  # after its start a server does some things once
            before, used = counted.read(), cpu_seconds(counted.server.pid)
            time.sleep(run.arguments.idle)
            after, cpu = counted.read(), cpu_seconds(counted.server.pid) - used
        statements = (after.statements - before.statements) / run.arguments.idle
        run.report.add(Kind.STATEMENTS, f"an idle server, {name}", "1/s", statements)
        milliseconds = cpu / run.arguments.idle * 1000
        run.report.add(Kind.SERVER_CPU, f"an idle server, {name}", "ms/s", milliseconds)
