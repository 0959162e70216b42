"""Measures what watchers that do not read cost those who do, and the server's memory.

    python -m benchmarks.slow [--quick] [--json FILE] [--only DATABASE...] [--minutes NUMBER]

1,000 watchers read, and a few hundred changes a second are made all the time; 20
others read one message and no more, half of them watching everything. Beside
that stands the same without those 20, measured just before.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.outcome import Report, publish, tell
from benchmarks.processes import GENERATORS, BenchmarkError, Generator, all_do, resident_bytes
from benchmarks.report import Figure, percentiles
from benchmarks.subjects import DATABASES, Subject, serving

JOBS = 100
WATCHERS = 1_000
STALLED = 20
RATE = 300.0
"""Changes a second."""

WARM_UP_SECONDS = 5.0
STALL_SECONDS = 3.0
"""Until the server is held up by those who do not read."""

SAMPLE_SECONDS = 1.0
LEAVE_OUT_SECONDS = 60.0
"""At the start the server fills what it keeps at most; with less time to go half is left out."""

MIB = 1024 * 1024

# No heartbeats: they would be deliveries too. And no stream is moved while it is measured.
SERVE = ("--heartbeat", "3600", "--max-watch-age", "0")


@dataclass(frozen=True)
class Programs:
    """The processes that call the server."""

    changer: Generator
    watchers: Sequence[Generator]
    staller: Generator


class Slow:
    """Measures deliveries without and with the stalled watchers, in turn; then the memory."""

    def __init__(self, subject: Subject, programs: Programs, *, seconds: float) -> None:
        self._subject = subject
        self._programs = programs
        self._seconds = seconds
        self._jobs: list[list[str]] = []
        self._figures: dict[str, Figure] = {}
        self._begun = 0.0
        self._rate = 0.0
        self._deliveries: list[float] = []

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def notes(self) -> list[str]:
        note = (
            f"On {self._subject.database} {self._rate:,.0f} changes a second were made, of "
            f"{RATE:,.0f} wanted, and {statistics.median(self._deliveries):,.0f} deliveries a "
            "second reached those who read."
        )
        return [note]

    def prepare(self) -> None:
        """Make the jobs, open the watches of those who read, and begin to change."""
        changer, watchers = self._programs.changer, self._programs.watchers
        self._jobs = changer.do("make_busy", target=self._subject.target, jobs=JOBS)["jobs"]
        streams = WATCHERS // len(watchers)
        all_do(watchers, "watch", target=self._subject.target, jobs=self._jobs, streams=streams)
        changer.do("begin_changes", rate=RATE)
        self._begun = time.monotonic()
        time.sleep(WARM_UP_SECONDS)

    def measure_round(self) -> None:
        without = self._deliver()
        self._stall()
        time.sleep(STALL_SECONDS)
        beside = self._deliver()
        self._programs.staller.do("release")
        for name in ("p50", "p99"):
            self._add(
                f"delivery beside {STALLED} stalled, {name}", "ms", beside[name], without[name]
            )
        time.sleep(STALL_SECONDS)

    def measure_memory(self, minutes: float) -> None:
        """Sample the server's memory beside stalled watchers that stay."""
        self._stall()
        begin = time.monotonic()
        samples = []
        while (now := time.monotonic()) < begin + minutes * 60:
            samples.append(((now - begin) / 60, resident_bytes(self._subject.pid) / MIB))
            time.sleep(SAMPLE_SECONDS)
        self._programs.staller.do("release")
        left_out = min(LEAVE_OUT_SECONDS / 60, minutes / 2)
        kept = [sample for sample in samples if sample[0] >= left_out]
        slope = statistics.linear_regression(*zip(*kept, strict=True)).slope
        beside = f"server's memory, {minutes:g} min beside {STALLED} stalled"
        self._add(f"{beside}: most", "MiB", max(mib for _, mib in samples))
        self._add(f"{beside}: growth after {left_out:.2g} min", "MiB/min", slope)

    def finish(self) -> None:
        """End the changes; every one of them must have been made."""
        changes = self._programs.changer.do("end_changes")["changes"]
        self._rate = changes / (time.monotonic() - self._begun)

    def _stall(self) -> None:
        target = self._subject.target
        self._programs.staller.do("stall", target=target, jobs=self._jobs, streams=STALLED)

    def _deliver(self) -> dict[str, float]:
        """Return percentiles of the time from sending a change to a watcher having it, in ms."""
        replies = all_do(self._programs.watchers, "time", seconds=self._seconds)
        taken = [seconds for reply in replies for seconds in reply["seconds"]]
        self._deliveries.append(len(taken) / self._seconds)
        return dict(zip(("p50", "p99"), percentiles(taken), strict=True))

    def _add(self, name: str, unit: str, value: float, without: float | None = None) -> None:
        title = f"{name}, {self._subject.database}"
        self._figures.setdefault(title, Figure(title, unit)).add(value, without)


def measure(names: Sequence[str], rounds: int, seconds: float, minutes: float) -> Report:
    """Run it on each database. Raises BenchmarkError."""
    report = Report(ceiling="without")
    for name in names:
        with (
            tempfile.TemporaryDirectory(prefix="jobledger-bench-") as folder,
            ExitStack() as stack,
        ):
            tell(f"opening the watches on {name}")
            subject = stack.enter_context(serving(name, Path(folder), *SERVE))
            changer, staller, *watchers = [
                stack.enter_context(Generator("slow_load")) for _ in range(2 + GENERATORS)
            ]
            slow = Slow(subject, Programs(changer, watchers, staller), seconds=seconds)
            slow.prepare()
            for number in range(1, rounds + 1):
                tell(f"round {number} of {rounds}")
                slow.measure_round()
            tell(f"memory, for {minutes:g} minutes")
            slow.measure_memory(minutes)
            slow.finish()
            report.figures += slow.figures
            report.notes += slow.notes
    return report


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in two minutes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")
    parser.add_argument("--only", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument(
        "--minutes", type=float, metavar="NUMBER", help="of sampling the memory; default: 2"
    )
    arguments = parser.parse_args()
    rounds, seconds, minutes = (1, 3.0, 0.3) if arguments.quick else (5, 6.0, 2.0)
    begin = time.monotonic()
    try:
        report = measure(arguments.only, rounds, seconds, arguments.minutes or minutes)
    except BenchmarkError as error:
        sys.exit(f"slow: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
