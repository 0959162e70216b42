"""Measures how work gets to workers on this machine: claims, hand-over, expiry, and rest.

    python -m benchmarks.work [--quick] [--json FILE] [--only NAME...]

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

from benchmarks.claims import BACKLOG_TYPE, Claims
from benchmarks.expiry import Expiry
from benchmarks.filling import fill_all
from benchmarks.handover import Handover, Way
from benchmarks.idle import Idle, idling, mix
from benchmarks.outcome import Report, publish, tell
from benchmarks.processes import GENERATORS, BareServer, BenchmarkError, Generator
from benchmarks.subjects import DATABASES, Subject, new_database, serving_on

NAMES = ("claims", "idle", "expiry", "handover")


@dataclass(frozen=True)
class Size:
    """How much is done; more is slower and steadier."""

    claim_rounds: int
    claim_seconds: float
    backlog: int
    handover_rounds: int
    handover_jobs: int
    expiry_rounds: int
    expiry_jobs: int
    idle_jobs: int
    idle_seconds: float
    beside_jobs: int


FULL = Size(
    claim_rounds=4,
    claim_seconds=0.75,
    backlog=120_000,
    handover_rounds=2,
    handover_jobs=50,
    expiry_rounds=1,
    expiry_jobs=40,
    idle_jobs=1_000_000,
    idle_seconds=8.0,
    beside_jobs=50,
)
QUICK = Size(
    claim_rounds=1,
    claim_seconds=0.3,
    backlog=15_000,
    handover_rounds=1,
    handover_jobs=10,
    expiry_rounds=1,
    expiry_jobs=20,
    idle_jobs=100_000,
    idle_seconds=3.0,
    beside_jobs=10,
)


def _ways(subjects: Sequence[Subject], hinted: Subject, polling: Subject) -> list[Way]:
    ways = []
    for subject in subjects:
        here, name = subject.target, subject.database
        ways += [
            Way(f"Hand-over, {name}", here, here),
            Way(f"Hand-over to a handler, {name}", here, here, library=True),
        ]
    # At rest a server looks every half second, after a look that found something sooner: so the
    # next job comes when it is at rest again, and at any moment of its pause.
    second = f"Hand-over by a second server, {hinted.database}"
    return [
        *ways,
        Way(second, here, hinted.target, gap=0.08, jitter=0.05),
        Way(f"{second}, polling", here, polling.target, gap=0.65, jitter=0.5, share=0.2),
    ]


def measure(names: Sequence[str], size: Size) -> Report:
    """Run the scenarios: claims out of a backlog, the others beside full tables.

    Raises BenchmarkError.
    """
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        tell("starting the bare server and the generators")
        bare = stack.enter_context(BareServer())
        generators = [stack.enter_context(Generator("work_load")) for _ in range(GENERATORS)]
        if "claims" in names:
            _measure_claims(report, size, folder, bare, generators)
        if names != ["claims"]:
            _measure_others(report, size, folder, bare, generators, names=names)
    return report


def _measure_claims(
    report: Report, size: Size, folder: Path, bare: BareServer, generators: Sequence[Generator]
) -> None:
    with ExitStack() as stack:
        tell(f"making a backlog of {size.backlog:,} jobs")
        databases = [stack.enter_context(new_database(name, folder)) for name in DATABASES]
        fill_all(databases, {"QUEUED": size.backlog}, BACKLOG_TYPE)
        subjects = [stack.enter_context(serving_on(database)) for database in databases]
        beside = f"Hand-over beside {size.backlog:,} of another type"
        ways = [Way(f"{beside}, {s.database}", s.target, s.target) for s in subjects]
        report.add(Handover(bare, ways, *generators, jobs=size.beside_jobs), 1)
        claims = Claims(bare, subjects, generators, seconds=size.claim_seconds)
        report.add(claims, size.claim_rounds)


def _measure_others(
    report: Report,
    size: Size,
    folder: Path,
    bare: BareServer,
    generators: Sequence[Generator],
    *,
    names: Sequence[str],
) -> None:
    with ExitStack() as stack:
        tell(f"filling the databases with {size.idle_jobs:,} jobs")
        databases = [stack.enter_context(new_database(name, folder)) for name in DATABASES]
        fill_all(databases, mix(size.idle_jobs), "render")
        if "idle" in names:
            with idling(databases) as idlers:
                report.add(Idle(idlers, jobs=size.idle_jobs, seconds=size.idle_seconds), 1)
        subjects = [stack.enter_context(serving_on(database)) for database in databases]
        if "expiry" in names:
            report.add(Expiry(subjects, generators, jobs=size.expiry_jobs), size.expiry_rounds)
        if "handover" in names:
            hinted = stack.enter_context(serving_on(databases[-1]))
            polling = stack.enter_context(serving_on(databases[-1], "--feed=poll"))
            ways = _ways(subjects, hinted, polling)
            handover = Handover(bare, ways, *generators, jobs=size.handover_jobs)
            report.add(handover, size.handover_rounds)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in 40 s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    begin = time.monotonic()
    try:
        report = measure(list(arguments.only), size)
    except BenchmarkError as error:
        sys.exit(f"work: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
