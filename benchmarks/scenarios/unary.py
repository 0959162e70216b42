"""Unary calls: CreateJob, UpdateProgress and GetJob, many at once and one after the other."""

import argparse
import os
import statistics
import time
from pathlib import Path

from benchmarks.counts import add_counts
from benchmarks.gauge import Ceiling, Committed, Gauge, add_reading
from benchmarks.processes import BareServer, all_do
from benchmarks.run import Run
from benchmarks.stats import percentiles

OPERATIONS = {"create": "CreateJob", "progress": "UpdateProgress", "get": "GetJob"}
CHANGES = {"create": 1, "progress": 1, "get": 0}

BARS = {"SQLite": 0.80, "PostgreSQL": 0.85}
READ_BAR = 0.85
LATENCY_BAR = 2.0
"""Milliseconds."""

SYNCS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--in-flight", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1_000,
        metavar="N",
        help="that are reported on and read, in turn; default: 1,000",
    )
    parser.add_argument(
        "--calls", type=int, default=500, metavar="N", help="of one caller, a round; default: 500"
    )


def measure(run: Run) -> None:
    """Measure each call between two rounds of the no-op. Raises BenchmarkError."""
    in_flight, calls = run.arguments.in_flight, run.arguments.calls
    add_counts(run, OPERATIONS)
    run.tell("starting the servers")
    bare = run.enter(BareServer())
    servers = [run.serving(name) for name in run.databases]
    generators = run.generators()
    gauge, committed = Gauge(generators, seconds=run.seconds), Committed()
    for server in servers:
        all_do(
            generators, "prepare", target=server.target, jobs=run.arguments.jobs // len(generators)
        )
    for target in (server.target for server in servers):
        generators[0].do("latencies", target=target, operation="create", calls=50)
    no_op = Ceiling(lambda: gauge.rate(bare, "create", in_flight=in_flight))
    for _ in run.each_round():
        no_op.begin_round()
        for operation, name in OPERATIONS.items():
            for server in servers:
                reading = committed.checked(
                    server,
                    lambda: gauge.rate(server, operation, in_flight=in_flight),  # noqa: B023
                    each=CHANGES[operation],
                )
                all_do(generators, "check", target=server.target)
                database = server.database.name
                bar = BARS[database] if CHANGES[operation] else READ_BAR
                title = f"{name}, {database}"
                add_reading(run.report, title, "call", no_op.beside(reading), bar=bar)
        begun = generators[0].do("latencies", target=bare.target, operation="create", calls=calls)
        alone, _ = percentiles(begun["seconds"])
        run.report.time("writing 4 KiB to the disk", "ms", _sync_milliseconds(run.folder))
        for server in servers:
            done = generators[0].do(
                "latencies", target=server.target, operation="create", calls=calls
            )
            title = f"CreateJob, one caller, {server.database.name}"
            p50, p99 = percentiles(done["seconds"])
            run.report.time(
                f"{title}, p50 beyond the no-op's", "ms", p50 - alone, bar_value=LATENCY_BAR
            )
            run.report.time(f"{title}, p99 beyond the no-op's p50", "ms", p99 - alone)
    run.report.note(no_op.note(len(generators)))
    run.report.note(committed.note)


def _sync_milliseconds(folder: Path) -> float:
    """Return the median time of appending 4 KiB to a file and having it on the disk."""
    took = []
    with (folder / "sync").open("ab", buffering=0) as file:
        for _ in range(SYNCS):
            begin = time.monotonic()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.monotonic() - begin)
    return statistics.median(took) * 1000
