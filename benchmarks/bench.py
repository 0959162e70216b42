"""Measures Jobledger on this machine, everything beside what the bare stack reaches on it.

    python -m benchmarks.bench [--quick] [--json FILE] [--only NAME...]

docs/performance.md says what is measured, and how to read it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.batches import Batches
from benchmarks.ceiling import AS_OURS
from benchmarks.fanout import Fanout
from benchmarks.latency import Latency
from benchmarks.outcome import Report, publish, tell
from benchmarks.processes import GENERATORS, BareServer, BenchmarkError, Generator
from benchmarks.rates import Rates
from benchmarks.startup import Startup
from benchmarks.stream import Stream
from benchmarks.subjects import DATABASES, new_database, serving
from benchmarks.watched import Watched
from jobledger_server.grpc_environment import GRPC_ENVIRONMENT

NAMES = ("rates", "latency", "stream", "batches", "fanout", "watched", "startup")

SHARING = frozenset({"rates", "latency", "stream", "batches"})
"""Those that are measured on the same servers, one after the other."""


@dataclass(frozen=True)
class Size:
    """How much is done; more is slower and steadier."""

    rounds: int
    seconds: float
    calls: int
    streams: int
    watched_seconds: float


FULL = Size(rounds=7, seconds=1.0, calls=500, streams=10_000, watched_seconds=5.0)
QUICK = Size(rounds=3, seconds=0.25, calls=100, streams=1_000, watched_seconds=1.5)


@contextmanager
def _generators(number: int = GENERATORS, program: str = "http2_load") -> Iterator[list[Generator]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Generator(program)) for _ in range(number)]


def measure(names: Sequence[str], size: Size) -> Report:
    """Run the scenarios, with servers and generators of their own. Raises BenchmarkError."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as name:
        folder = Path(name)
        if not SHARING.isdisjoint(names):
            _measure_calls(report, size, folder, names)
        if "fanout" in names:
            _measure_fanout(report, size, folder)
        if "watched" in names:
            _measure_watched(report, size, folder)
        if "startup" in names:
            with new_database("PostgreSQL", folder) as database:
                report.add(Startup(folder, database), size.rounds)
    return report


def _measure_calls(report: Report, size: Size, folder: Path, names: Sequence[str]) -> None:
    with ExitStack() as stack:
        tell("starting the servers")
        bare = stack.enter_context(BareServer())
        subjects = [stack.enter_context(serving(name, folder)) for name in DATABASES]
        generators = stack.enter_context(_generators())
        seconds = size.seconds
        if "rates" in names:
            set_up = stack.enter_context(BareServer(AS_OURS, environment=GRPC_ENVIRONMENT))
            rates = Rates(bare, subjects, generators, folder, seconds=seconds, set_up=set_up)
            report.add(rates, size.rounds)
        if "latency" in names:
            latency = Latency(bare, subjects, generators[0], folder, calls=size.calls)
            report.add(latency, size.rounds)
        if "stream" in names:
            report.add(Stream(bare, subjects, generators, seconds=seconds), size.rounds)
        if "batches" in names:
            empty = [stack.enter_context(new_database(name, folder)) for name in DATABASES]
            by_name = {subject.database: subject for subject in subjects}
            report.add(Batches(bare, by_name, empty, generators, seconds=seconds), size.rounds)


def _measure_fanout(report: Report, size: Size, folder: Path) -> None:
    with ExitStack() as stack:
        tell("opening the watches")
        bare = stack.enter_context(BareServer())
        # No heartbeats: they would be deliveries too.
        subject = stack.enter_context(serving("SQLite", folder, "--heartbeat", "3600"))
        generators = stack.enter_context(_generators())
        (caller,) = stack.enter_context(_generators(1))
        fanout = Fanout(bare, subject, generators, caller, streams=size.streams)
        report.add(fanout, size.rounds)


def _measure_watched(report: Report, size: Size, folder: Path) -> None:
    with ExitStack() as stack:
        tell("opening a watch for each of many jobs")
        # No heartbeats: they would be taken for changes that are told again.
        without = ("--heartbeat", "3600")
        subjects = [stack.enter_context(serving(name, folder, *without)) for name in DATABASES]
        writer, watcher = stack.enter_context(_generators(2, "watched_load"))
        watched = Watched(subjects, writer, watcher, seconds=size.watched_seconds)
        report.add(watched, size.rounds)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in two minutes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    begin = time.monotonic()
    try:
        report = measure(arguments.only, size)
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
