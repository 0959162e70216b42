"""Many watched jobs, steadily reported on: how long a change takes until its watcher is told."""

import time
from collections.abc import Sequence

from benchmarks.processes import BenchmarkError, Generator
from benchmarks.report import Figure, percentiles
from benchmarks.subjects import Subject

JOBS = 1_000
RATE = 1_000
"""Changes a second, on one job after the other."""

BAR = 20.0
"""Milliseconds, for the p99 from the service's decision on."""

FIRST = 0.1
"""The share of the changes that is left out: everything is done for once."""

PATIENCE_SECONDS = 5.0
SETTLE_SECONDS = 0.5


class Watched:
    """Writes to each server while a watch of its own is open for each job."""

    def __init__(
        self, subjects: Sequence[Subject], writer: Generator, watcher: Generator, *, seconds: float
    ) -> None:
        self._subjects = subjects
        self._writer = writer
        self._watcher = watcher
        self._seconds = seconds
        self._figures: dict[str, Figure] = {}
        self._written = 0
        self._reached: list[float] = []

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def notes(self) -> list[str]:
        told = (
            f"All {self._written:,} changes of watched jobs were told to their watchers, each "
            f"once; {RATE:,} a second were wanted, {min(self._reached):,.0f} at least reached."
        )
        decided = (
            "The service decides on a change before it commits it: so the time since then has all "
            "of the commit in it."
        )
        return [told, decided]

    def prepare(self) -> None:
        """Make the jobs and open the watches."""
        for subject in self._subjects:
            made = self._writer.do("make", target=subject.target, jobs=JOBS)
            ids = [job_id for job_id, _ in made["jobs"]]
            self._watcher.do("watch_each", target=subject.target, job_ids=ids)
        time.sleep(SETTLE_SECONDS)

    def measure_round(self) -> None:
        for subject in self._subjects:
            done = self._writer.do("write", target=subject.target, rate=RATE, seconds=self._seconds)
            written = done["written"]
            told = self._watcher.do("told", changes=len(written), patience=PATIENCE_SECONDS)["told"]
            self._written += len(written)
            self._reached.append(len(written) / done["seconds"])
            self._add(subject.database, written, told)

    def _add(
        self,
        database: str,
        written: Sequence[tuple[str, int, float, float]],
        told: Sequence[tuple[str, int, float, float]],
    ) -> None:
        times = {(job_id, version): (at, since) for job_id, version, at, since in told}
        wanted = [(job_id, version) for job_id, version, _, _ in written]
        if len(times) != len(told) or set(times) != set(wanted):
            raise BenchmarkError(f"{database}: the watchers were not told each change once")
        counted = written[int(len(written) * FIRST) :]
        since_sending = [times[job_id, version][0] - sent for job_id, version, sent, _ in counted]
        since_deciding = [times[job_id, version][1] for job_id, version, _, _ in counted]
        for what, seconds, bar in (
            ("from the decision", since_deciding, BAR),
            ("from sending", since_sending, None),
        ):
            p50, p99 = percentiles(seconds)
            title = f"{RATE:,} changes/s to {JOBS:,} watched jobs, {database}, {what}"
            self._figure(f"{title}, p50").add(p50)
            self._figure(f"{title}, p99", bar).add(p99)

    def _figure(self, name: str, bar: float | None = None) -> Figure:
        return self._figures.setdefault(name, Figure(name, "ms", bar=bar, bar_of="value"))
