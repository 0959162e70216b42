"""Many jobs in one call: BatchCreateJobs, beside the no-op and rows by the driver alone."""

import argparse
import statistics

from benchmarks.baseline.rows import insert_seconds, new_rows
from benchmarks.counts import add_counts
from benchmarks.gauge import Ceiling, Committed, Gauge, add_reading
from benchmarks.load.messages import BATCH
from benchmarks.processes import BareServer
from benchmarks.run import Run

TITLE = f"BatchCreateJobs of {BATCH}"

NO_OPS_IN_FLIGHT = 128

WARM_UP_SECONDS = 0.75
"""Longer than the first calls take, that begin all at once."""

COUNTED = 5
CHUNKS = 20
COMMITS = 50
BAR = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--in-flight",
        type=int,
        default=4,
        metavar="N",
        help="calls; default: 4, two in a transaction and two that wait for the next",
    )


def measure(run: Run) -> None:
    """Measure it between two rounds of the no-op, and the bare rows after it.

    Raises BenchmarkError.
    """
    add_counts(run, {"batch": TITLE}, calls=COUNTED)
    run.tell("starting the servers")
    bare = run.enter(BareServer())
    servers = [run.serving(name) for name in run.databases]
    empty = {name: run.database(name) for name in run.databases}
    generators = run.generators()
    rows = new_rows()
    no_ops = Gauge(generators, seconds=run.seconds)
    batches = Gauge(generators, seconds=2 * run.seconds, warm_up=WARM_UP_SECONDS)
    committed = Committed()
    no_op = Ceiling(lambda: no_ops.rate(bare, "create", in_flight=NO_OPS_IN_FLIGHT))
    for _ in run.each_round():
        no_op.begin_round()
        for server in servers:
            name = server.database.name
            reading = committed.checked(
                server,
                lambda: batches.rate(server, "batch", in_flight=run.arguments.in_flight),  # noqa: B023
                each=BATCH,
            )
            measured = no_op.beside(reading)
            add_reading(run.report, f"{TITLE}, {name}", "job", measured, each=BATCH, bar=BAR)
            seconds = insert_seconds(empty[name], rows, chunks=CHUNKS, size=BATCH)
            run.report.rate(
                f"{TITLE}, {name}, beside rows by executemany alone",
                "jobs/s",
                reading.rate * BATCH,
                BATCH / statistics.mean(seconds),
            )
            alone = insert_seconds(empty[name], rows, chunks=COMMITS, size=1)
            run.report.time(f"one row and its commit, {name}", "ms", statistics.median(alone) * 1e3)
    run.report.note(no_op.note(len(generators)))
    run.report.note(committed.note)
