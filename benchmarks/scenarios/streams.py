"""Streams of progress reports: ReportProgress over a few streams, beside a bare stream."""

import argparse

from benchmarks.gauge import Ceiling, Committed, Gauge, Reading, add_reading
from benchmarks.processes import BareServer, all_do
from benchmarks.run import Run
from benchmarks.targets import Server
from jobledger_client._pipeline import MAX_WAITING

STREAMS = 8
JOBS_EACH = 100

WARM_UP_SECONDS = 0.5
"""Until the first crowd of reports has been read."""

BAR = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--window",
        type=int,
        default=MAX_WAITING,
        metavar="N",
        help=f"reports of a stream under way at once; default: {MAX_WAITING}, the client's limit",
    )


def measure(run: Run) -> None:
    """Measure it on each database between two rounds of the bare stream. Raises BenchmarkError."""
    run.tell("starting the servers")
    bare = run.enter(BareServer())
    servers = [run.serving(name) for name in run.databases]
    generators = run.generators()
    for server in servers:
        share = STREAMS * JOBS_EACH // len(generators)
        all_do(generators, "prepare", target=server.target, jobs=share)
    gauge = Gauge(generators, seconds=run.seconds, warm_up=WARM_UP_SECONDS)
    committed = Committed()

    def report(server: BareServer | Server) -> Reading:
        return gauge.read(
            server,
            "report",
            streams=STREAMS // len(generators),
            jobs=JOBS_EACH,
            window=run.arguments.window,
            known=isinstance(server, Server),
        )

    ceiling = Ceiling(lambda: report(bare))
    for _ in run.each_round():
        ceiling.begin_round()
        for server in servers:
            reading = committed.checked(server, lambda: report(server), each=1)  # noqa: B023
            all_do(generators, "check", target=server.target)
            title = f"ReportProgress, {server.database.name}"
            add_reading(run.report, title, "update", ceiling.beside(reading), bar=BAR)
    run.report.note(ceiling.note(len(generators)))
    run.report.note(committed.note)
    run.report.note(
        f"{run.arguments.window:,} reports were under way on each of {STREAMS} streams."
    )
