"""Measures what calls cost beside 5,000,000 jobs, against the same beside 10,000.

    python -m benchmarks.growth [--quick] [--json FILE] [--only DATABASE...] [--jobs NUMBER]

Both sizes are served at the same time and called in turn. docs/performance.md says
what is measured, and how to read it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.filling import fill_all
from benchmarks.growth_calls import GrowthCalls
from benchmarks.growth_starts import GrowthStarts
from benchmarks.growth_subjects import Sized, describe
from benchmarks.idle import mix
from benchmarks.outcome import Report, publish, tell
from benchmarks.processes import BenchmarkError, Generator
from benchmarks.subjects import DATABASES, new_database

SMALL = 10_000

JOB_TYPES = ("render", "upscale", "caption", "train", "export", "transcode", "thumbnail")


@dataclass(frozen=True)
class Size:
    """How much is done; more is slower and steadier."""

    jobs: int
    starts: int
    rounds: int
    calls: int


FULL = Size(jobs=5_000_000, starts=3, rounds=7, calls=200)
QUICK = Size(jobs=200_000, starts=1, rounds=2, calls=100)


def measure(names: Sequence[str], size: Size, jobs: int) -> Report:
    """Run it on each database. Raises BenchmarkError."""
    report = Report(ceiling=f"{SMALL:,} jobs")
    for name in names:
        with (
            tempfile.TemporaryDirectory(prefix="jobledger-bench-") as folder,
            ExitStack() as stack,
        ):
            sized = []
            for count in (SMALL, jobs):
                tell(f"filling {name} with {count:,} jobs")
                database = stack.enter_context(new_database(name, Path(folder)))
                (filling,) = fill_all([database], mix(count), *JOB_TYPES)
                sized.append(Sized(database, filling))
                report.notes.append(describe(sized[-1]))
                tell(report.notes[-1])
            small, large = sized
            report.add(GrowthStarts(small, large), size.starts)
            caller = stack.enter_context(Generator("growth_load"))
            calls = stack.enter_context(GrowthCalls.serving(small, large, caller, size.calls))
            report.add(calls, size.rounds)
    return report


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200,000 jobs and fewer rounds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")
    parser.add_argument("--only", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--jobs", type=int, metavar="NUMBER", help="default: 5,000,000")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    begin = time.monotonic()
    try:
        report = measure(arguments.only, size, arguments.jobs or size.jobs)
    except BenchmarkError as error:
        sys.exit(f"growth: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
