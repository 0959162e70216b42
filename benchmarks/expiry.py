"""Workers that fall silent: how long a job outlives its lease."""

import statistics
from collections.abc import Sequence

from benchmarks.processes import BenchmarkError, Generator
from benchmarks.report import Figure
from benchmarks.subjects import Subject

LEASE_SECONDS = 5
PROMISED_SECONDS = 2.0


class Expiry:
    """Lets the leases of many jobs expire, on all databases at the same time."""

    def __init__(
        self, subjects: Sequence[Subject], generators: Sequence[Generator], *, jobs: int
    ) -> None:
        self._subjects = subjects
        self._generators = generators
        self._jobs = jobs
        self._round = 0
        self._seen: dict[str, list[float]] = {subject.database: [] for subject in subjects}
        self._dated: dict[str, list[float]] = {subject.database: [] for subject in subjects}

    @property
    def figures(self) -> list[Figure]:
        figures = []
        for database, seen in self._seen.items():
            for name, value in (
                ("watcher sees, p50", statistics.median(seen)),
                ("watcher sees, longest", max(seen)),
                ("complete_time, p50", statistics.median(self._dated[database])),
            ):
                figures.append(Figure(f"Expiry to end, {database}, {name}", "ms"))
                figures[-1].add(value * 1000)
        return figures

    @property
    def notes(self) -> list[str]:
        jobs = len(next(iter(self._seen.values())))
        return [f"Expiry: {jobs} jobs on each database, leases of {LEASE_SECONDS} s."]

    def prepare(self) -> None:
        pass

    def measure_round(self) -> None:
        self._round += 1
        pairs = list(zip(self._subjects, self._generators, strict=True))
        for subject, generator in pairs:
            generator.begin(
                "expire",
                target=subject.target,
                job_type=f"expiry-{self._round}",
                jobs=self._jobs,
                lease=LEASE_SECONDS,
            )
        for subject, generator in pairs:
            reply = generator.end()
            if max(reply["seen"]) > PROMISED_SECONDS:
                raise BenchmarkError(
                    f"{subject.database}: a job outlived its lease by {max(reply['seen']):.1f} s"
                )
            self._seen[subject.database] += reply["seen"]
            self._dated[subject.database] += reply["dated"]
