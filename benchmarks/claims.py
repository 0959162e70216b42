"""Many claimers at once: how many jobs a second are handed out of a backlog, and none twice."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.processes import BareServer, BenchmarkError, Generator, all_do
from benchmarks.report import Figure
from benchmarks.subjects import Subject

CLAIMERS = 32
MANY = 20
WARM_UP_SECONDS = 0.25
BACKLOG_TYPE = "backlog"

TITLES = {
    1: f"ClaimJobs, {CLAIMERS} claimers, one job each",
    MANY: f"ClaimJobs, {CLAIMERS} claimers, {MANY} jobs each",
}


class Claims:
    """Claims one job at a time and many, on each database, between two measurements of the no-op.

    `backlogs` says how many jobs wait in each subject's database.
    """

    def __init__(
        self,
        bare: BareServer,
        subjects: Sequence[Subject],
        generators: Sequence[Generator],
        *,
        seconds: float,
    ) -> None:
        self._bare = bare
        self._subjects = subjects
        self._generators = generators
        self._seconds = seconds
        self._figures: dict[str, Figure] = {}
        self._claimed: Mapping[str, set[str]] = {s.database: set() for s in subjects}

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def notes(self) -> list[str]:
        total = sum(map(len, self._claimed.values()))
        note = (
            f"{total:,} jobs were claimed, none of them twice, and the feed advanced by one for "
            "each."
        )
        return [note]

    def prepare(self) -> None:
        self._no_op()
        for subject in self._subjects:
            self._claim(subject, 1)

    def measure_round(self) -> None:
        before = self._no_op()
        for max_jobs, title in TITLES.items():
            for subject in self._subjects:
                rate = self._claim(subject, max_jobs)
                after = self._no_op()
                name = f"{title}, {subject.database}"
                figure = self._figures.setdefault(name, Figure(name, "jobs/s", more_is_better=True))
                figure.add(rate, statistics.mean((before, after)))
                before = after

    def _no_op(self) -> float:
        """Return the bare server's calls a second with as many in flight as there are claimers."""
        replies = all_do(
            self._generators,
            "rate",
            target=self._bare.target,
            operation="create",
            in_flight=CLAIMERS // len(self._generators),
            warm_up=WARM_UP_SECONDS,
            seconds=self._seconds,
        )
        return float(sum(reply["rate"] for reply in replies))

    def _claim(self, subject: Subject, max_jobs: int) -> float:
        seq = subject.feed_seq()
        replies = all_do(
            self._generators,
            "claim",
            target=subject.target,
            job_type=BACKLOG_TYPE,
            claimers=CLAIMERS // len(self._generators),
            max_jobs=max_jobs,
            warm_up=WARM_UP_SECONDS,
            seconds=self._seconds,
        )
        self._check(subject, replies, subject.feed_seq() - seq)
        return float(sum(reply["rate"] for reply in replies))

    def _check(self, subject: Subject, replies: Sequence[dict[str, Any]], committed: int) -> None:
        ids = [job_id for reply in replies for job_id in reply["claimed"]]
        known = self._claimed[subject.database]
        fresh = set(ids) - known
        if len(fresh) < len(ids):
            raise BenchmarkError(
                f"{len(ids) - len(fresh)} jobs were given twice on {subject.database}"
            )
        if len(ids) != committed:
            raise BenchmarkError(
                f"{len(ids)} jobs were claimed on {subject.database}, {committed} changes are in "
                "the feed"
            )
        known |= fresh
