"""Claims: jobs out of a backlog, a job to a worker that waits, expired leases, an idle server."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.counted import counted_server
from benchmarks.counts import add_counts
from benchmarks.gauge import Ceiling, Committed, Gauge, add_reading
from benchmarks.load.messages import BATCH
from benchmarks.processes import BareServer, BenchmarkError, Generator, cpu_seconds
from benchmarks.run import Run
from benchmarks.stats import percentiles
from benchmarks.targets import PROGRAMS, Server, new_database

CLAIMERS = 32
BACKLOG_TYPE = "render"
"""The type of the jobs that `load.calls` creates."""

TITLES = {1: "ClaimJobs of one job", 20: "ClaimJobs of 20 jobs"}

LEASE_SECONDS = 5
"""The shortest that there is."""

PROMISED_SECONDS = 2.0

FIRST = 2
"""Jobs of a series that are left out: everything is done for the first time."""

SETTLE_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backlog",
        type=int,
        default=30_000,
        metavar="N",
        help="jobs that are created for each measurement of claims; default: 30,000",
    )
    parser.add_argument(
        "--jobs", type=int, default=50, metavar="N", help="to a waiting worker; default: 50"
    )
    parser.add_argument(
        "--expiring", type=int, default=20, metavar="N", help="leases that expire; default: 20"
    )
    parser.add_argument(
        "--idle", type=float, default=8.0, metavar="S", help="seconds of doing nothing; default: 8"
    )


def measure(run: Run) -> None:
    """Count first, then measure claims and waiting workers in turn. Raises BenchmarkError."""
    add_counts(run, {"create": "CreateJob", "claim": "ClaimJobs"})
    _add_idle(run)
    run.tell("starting the servers")
    bare = run.enter(BareServer())
    servers = [run.serving(name) for name in run.databases]
    generators = run.generators("load.workers")
    gauge, committed = Gauge(generators, seconds=run.seconds), Committed()
    claimed: set[str] = set()
    routes = list(_routes(run, servers))
    no_op = Ceiling(lambda: gauge.rate(bare, "create", in_flight=CLAIMERS))
    for number in run.each_round():
        for max_jobs, title in TITLES.items():
            for server in servers:
                batches = -(-run.arguments.backlog // BATCH)
                generators[0].do(
                    "latencies", target=server.target, operation="batch", calls=batches
                )
                no_op.begin_round()
                reading = committed.checked(
                    server,
                    lambda: gauge.read(
                        server,  # noqa: B023
                        "claim",
                        job_type=BACKLOG_TYPE,
                        claimers=CLAIMERS // len(generators),
                        max_jobs=max_jobs,  # noqa: B023
                    ),
                    each=1,
                )
                ids = [job for generator in generators for job in generator.do("claimed")["ids"]]
                if len(claimed.union(ids)) < len(claimed) + len(ids):
                    raise BenchmarkError(f"{server.database.name}: a job was claimed twice")
                claimed.update(ids)
                name = f"{title}, {server.database.name}"
                add_reading(run.report, name, "job", no_op.beside(reading))
        ceiling = _dispatch(run, _Route("", bare, bare), generators, f"bare-{number}")
        for position, route in enumerate(routes):
            took = _dispatch(run, route, generators, f"waiting-{number}-{position}")
            run.report.time(f"{route.title}, p50", "ms", took[0], ceiling[0])
            run.report.time(f"{route.title}, p99", "ms", took[1], ceiling[1])
    _add_expiry(run, servers, generators[0])
    run.report.note(committed.note)
    run.report.note(
        f"{len(claimed):,} jobs were claimed, none of them twice. A job that waits is created and "
        "claimed, two commits one after the other; times are from the sending of CreateJob."
    )


@dataclass(frozen=True)
class _Route:
    """From one server to a worker at the same or at another one."""

    title: str
    created_at: Server | BareServer
    received_at: Server | BareServer
    command: str = "wait_for_jobs"
    gap: float = 0.03
    """Seconds between two jobs, and up to as much again: so that all is idle before each."""


def _routes(run: Run, servers: list[Server]) -> Iterator[_Route]:
    for server in servers:
        name = server.database.name
        yield _Route(f"a job to a waiting claim, {name}", server, server)
        yield _Route(f"a job to its handler, {name}", server, server, command="handle_jobs")
        if server.database.pid is not None:
            # On a database of their own: replicas read what is claimed on the other one.
            home = run.serving(name)
            other = run.serving(home.database)
            yield _Route(f"a job to a claim at another replica, {name}", home, other, gap=0.06)
            polling = run.serving(home.database, "--feed=poll")
            title = f"a job to a claim at another replica that polls, {name}"
            yield _Route(title, home, polling, gap=0.6)


def _dispatch(
    run: Run, route: _Route, generators: list[Generator], job_type: str
) -> tuple[float, float]:
    """Create jobs for a worker that waits; return the percentiles of the time until it has one."""
    creator, worker = generators
    # A route with long pauses has fewer.
    jobs = max(2, int(run.arguments.jobs * min(1.0, 0.12 / route.gap))) + FIRST
    worker.begin(route.command, target=route.received_at.target, job_type=job_type, jobs=jobs)
    time.sleep(SETTLE_SECONDS)
    created = creator.do(
        "create_spaced",
        target=route.created_at.target,
        job_type=job_type,
        jobs=jobs,
        gap=route.gap,
    )["created"]
    received = worker.end()["received"]
    if [job_id for job_id, *_ in created] != [job_id for job_id, _ in received]:
        raise BenchmarkError(f"{route.title}: the jobs received are not those created, in order")
    pairs = list(zip(created, received, strict=True))[FIRST:]
    return percentiles([there - sent for (_, sent, _), (_, there) in pairs])


def _add_expiry(run: Run, servers: list[Server], generator: Generator) -> None:
    run.tell("letting leases expire")
    jobs = run.arguments.expiring
    for server in servers:
        late = generator.do(
            "expire", target=server.target, job_type="silent", jobs=jobs, lease=LEASE_SECONDS
        )["late"]
        if max(late) > PROMISED_SECONDS:
            raise BenchmarkError(f"{server.database.name}: a job outlived its lease by {max(late)}")
        title = f"end of a lease to end of its job, {server.database.name}"
        run.report.time(f"{title}, p50", "ms", percentiles(late)[0])
        run.report.time(
            f"{title}, longest", "ms", max(late) * 1e3, bar_value=PROMISED_SECONDS * 1e3
        )


def _add_idle(run: Run) -> None:
    """Add what a server without callers asks of its database, and its CPU."""
    run.tell("watching servers do nothing")
    cluster = run.cluster()
    for name in run.databases:
        database = run.enter(new_database(name, run.folder, cluster=cluster))
        with counted_server(database, cluster, PROGRAMS) as counter:
            time.sleep(2.0)  # after its start a server does some things once
            before, used = counter.read(), cpu_seconds(counter.server.pid)
            time.sleep(run.arguments.idle)
            after, cpu = counter.read(), cpu_seconds(counter.server.pid) - used
        statements = (after.statements - before.statements) / run.arguments.idle
        run.report.cost(f"an idle server, {name}: statements", "1/s", statements)
        run.report.cost(f"an idle server, {name}: CPU", "ms/s", cpu / run.arguments.idle * 1000)
