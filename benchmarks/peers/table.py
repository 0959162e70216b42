"""The same lifecycle on what people use instead: BullMQ, Celery, a hand-made service."""

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import IN_FLIGHT, PERCENTS
from benchmarks.peers.subjects import SUBJECTS
from benchmarks.processes import BenchmarkError, Generator, cpu_seconds
from benchmarks.stats import percentiles

WARM_UP = 640
"""Lifecycles before those that are measured: connections are open, code is compiled."""

MINIMUM = 500
"""Lifecycles of a round: those that live first and last are not in its rate."""


@dataclass(frozen=True)
class Measurement:
    """What a number of lifecycles took on one peer. Processor times are ms for each lifecycle.

    Attributes:
        server_cpu: of the server and its database.
        database_cpu: of it the database's, where it is not the server itself.
        client_cpu: of the creator, the observer and the worker.
        rate: lifecycles a second.
        latency_p50: ms from the handler's return until the observer knew of the end.
        latency_p99: likewise.
        updates_seen: how many of a job's updates its observer saw, on average.
    """

    server_cpu: float
    database_cpu: float
    client_cpu: float
    rate: float
    latency_p50: float
    latency_p99: float
    updates_seen: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--lifecycles", type=int, default=2_000, help="in each round, 500 or more")
    parser.add_argument("--rounds", type=int, default=3, help="of all peers in turn")
    parser.add_argument(
        "--in-flight",
        type=int,
        default=IN_FLIGHT,
        choices=range(1, IN_FLIGHT + 1),
        metavar="N",
        help=f"jobs that live at once, 1 to {IN_FLIGHT}; default: {IN_FLIGHT}",
    )
    parser.add_argument("--json", type=Path, help="a file for the measurements of each round")


def run(arguments: argparse.Namespace) -> int:
    names = arguments.names or list(SUBJECTS)
    if unknown := set(names) - set(SUBJECTS):
        raise BenchmarkError(f"unknown: {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    if arguments.lifecycles < MINIMUM:
        raise BenchmarkError(f"--lifecycles: at least {MINIMUM}")
    rounds: dict[str, list[Measurement]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            rounds[name].append(measure(name, arguments.lifecycles, arguments.in_flight))
    print(f"medians of {arguments.rounds} rounds of {arguments.lifecycles:,} lifecycles,")
    print(
        f"{arguments.in_flight} at once; processor time in ms for each lifecycle, latency in ms\n"
    )
    print(table(rounds))
    if arguments.json:
        content = {name: [asdict(one) for one in measured] for name, measured in rounds.items()}
        arguments.json.write_text(json.dumps(content, indent=1))
    return 0


def measure(name: str, lifecycles: int, in_flight: int) -> Measurement:
    """Start a peer, live the lifecycles on it and end it. Raises BenchmarkError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subject = stack.enter_context(SUBJECTS[name](folder, in_flight))
        worker, owners = (
            stack.enter_context(Generator(command, subject.environment))
            for command in (subject.worker, subject.owners)
        )
        owners.do("live", jobs=WARM_UP)
        pids = (subject.server, subject.database, owners.pid, worker.pid)
        before = [cpu_seconds(pid) for pid in pids]
        lives = owners.do("live", jobs=lifecycles)["lives"]
        server, database, *clients = (
            (cpu_seconds(pid) - begun) / lifecycles * 1000
            for pid, begun in zip(pids, before, strict=True)
        )
    if len(lives) != lifecycles:
        raise BenchmarkError(f"{len(lives)} of {lifecycles} jobs were observed to their end")
    # The first and the last ones had fewer others at the same time.
    ends = sorted(observed for _, observed, _ in lives)[in_flight:-in_flight]
    p50, p99 = percentiles([observed - completed for completed, observed, _ in lives])
    return Measurement(
        server_cpu=server + database,
        database_cpu=database,
        client_cpu=sum(clients),
        rate=(len(ends) - 1) / (ends[-1] - ends[0]),
        latency_p50=p50,
        latency_p99=p99,
        updates_seen=statistics.mean(seen for _, _, seen in lives),
    )


def table(rounds: dict[str, list[Measurement]]) -> str:
    """Return a table in Markdown of the medians of each peer's rounds."""
    titles = ("", "server and database", "of it database", "clients", "lifecycles/s", "p50", "p99")
    lines = [
        f"| {' | '.join(titles)} | updates seen of {len(PERCENTS)} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    formats = ("{:.2f}", "{:.2f}", "{:.2f}", "{:,.0f}", "{:.1f}", "{:.1f}", "{:.2f}")
    for name, measured in rounds.items():
        columns = zip(*(asdict(one).values() for one in measured), strict=True)
        cells = (
            text.format(statistics.median(values))
            for text, values in zip(formats, columns, strict=True)
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
