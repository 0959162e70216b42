"""Measures what a second process of a server gains on this machine, over one PostgreSQL.

    python -m benchmarks.several [--quick] [--json FILE]

The same calls as `bench.py --only rates`, over 16 connections, to a server of one
process and to one of two (`--processes 2`), each with a PostgreSQL of its own, in
turn. docs/decisions/0022-several-processes-share-a-port.md says what came of it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.outcome import Report, publish
from benchmarks.processes import (
    GENERATORS,
    BareServer,
    BenchmarkError,
    Generator,
    cpu_seconds,
    listening_at,
)
from benchmarks.rates import OPERATIONS, Rates
from benchmarks.report import Figure
from benchmarks.subjects import Subject, new_database, serving_on

PROCESSES = 2

START_SECONDS = 30.0


@dataclass(frozen=True)
class Size:
    """How much is done; more is slower and steadier."""

    rounds: int
    seconds: float


FULL = Size(rounds=7, seconds=1.5)
QUICK = Size(rounds=3, seconds=0.25)


class Several(Rates):
    """Rates of a server of one process and one of several, and the second's beside the first's."""

    def __init__(
        self,
        bare: BareServer,
        one: Subject,
        several: Subject,
        generators: Sequence[Generator],
        folder: Path,
        *,
        seconds: float,
    ) -> None:
        super().__init__(bare, (one, several), generators, folder, seconds=seconds)
        self._one = one
        self._several = several

    @property
    def figures(self) -> list[Figure]:
        measured = {figure.name: figure for figure in super().figures}
        gains = []
        for operation in OPERATIONS.values():
            gain = Figure(f"{operation}, a second process", "no-op", more_is_better=True)
            several, one = (
                measured[f"{operation}, {subject.database}"]
                for subject in (self._several, self._one)
            )
            # By its own no-ops each: between one and the other the machine may have slowed down.
            for ours, alone in zip(several.ratios, one.ratios, strict=True):
                gain.add(ours, alone)
            gains.append(gain)
        return [*gains, *measured.values()]

    @property
    def notes(self) -> list[str]:
        used = sorted(map(cpu_seconds, listening_at(self._several.target, self._several.pid)))
        shares = " and ".join(f"{seconds / sum(used):.0%}" for seconds in used)
        return [
            "In the first lines both are in parts of the no-op, and the ceiling is one process.",
            f"Of their processor time the {PROCESSES} processes had {shares}.",
            *super().notes,
        ]


@contextmanager
def _serving(folder: Path, processes: int) -> Iterator[Subject]:
    with (
        new_database("PostgreSQL", folder) as database,
        serving_on(database, f"--processes={processes}") as subject,
    ):
        # A connection that is opened before all listen would be dealt to those that do.
        deadline = time.monotonic() + START_SECONDS
        while len(listening_at(subject.target, subject.pid)) < processes:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{processes} processes do not listen in {START_SECONDS} s")
            time.sleep(0.05)
        yield replace(subject, database="1 process" if processes == 1 else f"{processes} processes")


def measure(size: Size) -> Report:
    """Run the scenario. Raises BenchmarkError."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as name, ExitStack() as stack:
        bare = stack.enter_context(BareServer())
        one, several = (
            stack.enter_context(_serving(Path(name), count)) for count in (1, PROCESSES)
        )
        generators = [stack.enter_context(Generator("several_load")) for _ in range(GENERATORS)]
        scenario = Several(bare, one, several, generators, Path(name), seconds=size.seconds)
        report.add(scenario, size.rounds)
    return report


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in a minute")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")
    arguments = parser.parse_args()
    begin = time.monotonic()
    try:
        report = measure(QUICK if arguments.quick else FULL)
    except BenchmarkError as error:
        sys.exit(f"several: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
