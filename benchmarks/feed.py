"""Measures how soon a commit reaches those who watch all jobs, at the same and another replica.

    python -m benchmarks.feed [--quick] [--json FILE] [--only NAME...]

docs/performance.md says what is measured, and how to read it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.delivery import Delivery, Route
from benchmarks.outcome import Report, publish, tell
from benchmarks.processes import BenchmarkError, Generator
from benchmarks.resting import Resting
from benchmarks.subjects import new_database, serving_on

NAMES = ("delivery", "resting")

RATES = (100, 1_000)

POLLING = "--feed=poll"


@dataclass(frozen=True)
class Size:
    """How much is done; more is slower and steadier."""

    rounds: int
    seconds: float
    resting_seconds: float


FULL = Size(rounds=3, seconds=10.0, resting_seconds=20.0)
QUICK = Size(rounds=1, seconds=2.5, resting_seconds=5.0)


def measure(names: Sequence[str], size: Size) -> Report:
    """Run the scenarios. Raises BenchmarkError."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as name:
        folder = Path(name)
        if "delivery" in names:
            _measure_delivery(report, size, folder)
        if "resting" in names:
            with new_database("PostgreSQL", folder) as database:
                ways = {"with hints": (), "polling": (POLLING,)}
                report.add(Resting(database, ways, seconds=size.resting_seconds), 1)
    return report


def _measure_delivery(report: Report, size: Size, folder: Path) -> None:
    with ExitStack() as stack:
        tell("starting the servers and the generators")
        sqlite = stack.enter_context(new_database("SQLite", folder))
        alone = stack.enter_context(serving_on(sqlite)).target
        routes = [Route("SQLite, same server", alone, alone)]
        # Each pair on a database of its own: a replica that polls sends no hints either.
        for way, arguments in (("hints", ()), ("polling", (POLLING,))):
            database = stack.enter_context(new_database("PostgreSQL", folder))
            here, there = (
                stack.enter_context(serving_on(database, *arguments)).target for _ in range(2)
            )
            title = f"PostgreSQL, {way}"
            routes += [
                Route(f"{title}, same replica", here, here),
                Route(f"{title}, other replica", here, there),
            ]
        writer = stack.enter_context(Generator("feed_load"))
        follower = stack.enter_context(Generator("feed_load"))
        delivery = Delivery(routes, writer, follower, rates=RATES, seconds=size.seconds)
        report.add(delivery, size.rounds)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in a minute")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure there too")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    begin = time.monotonic()
    try:
        report = measure(list(arguments.only), size)
    except BenchmarkError as error:
        sys.exit(f"feed: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
