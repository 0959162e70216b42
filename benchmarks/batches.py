"""Many jobs in one call: how many a second, beside calls that do nothing and bare inserts."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.bare_insert import insert_seconds, new_rows
from benchmarks.comparisons import Comparisons
from benchmarks.gauge import Gauge
from benchmarks.messages import BATCH
from benchmarks.processes import BareServer, BenchmarkError, Generator
from benchmarks.rates import IN_FLIGHT
from benchmarks.report import Figure
from benchmarks.subjects import Database, Subject

CALLS_IN_FLIGHT = 4
"""As many as keep the server busy: two in a transaction, two that wait for the next."""

WARM_UP_SECONDS = 0.75
"""Longer than the first calls take, that begin all at once."""

CHUNKS = 20
COMMITS = 50
BAR = 2.0

TITLE = f"BatchCreateJobs of {BATCH}"


class Batches:
    """Measures it on each database between two no-ops, and then the bare insert beside it.

    `empty` are other databases of the same kinds, that nobody serves.
    """

    def __init__(
        self,
        bare: BareServer,
        subjects: Mapping[str, Subject],
        empty: Sequence[Database],
        generators: Sequence[Generator],
        *,
        seconds: float,
    ) -> None:
        self._bare = bare
        self._subjects = subjects
        self._empty = empty
        self._gauge = Gauge(generators, seconds=seconds)
        self._batch_gauge = Gauge(generators, seconds=2 * seconds, warm_up=WARM_UP_SECONDS)
        self._comparisons = Comparisons()
        self._rows = new_rows()
        self._made = 0

    @property
    def figures(self) -> list[Figure]:
        return self._comparisons.figures

    @property
    def notes(self) -> list[str]:
        note = (
            f"All {self._made:,} jobs that {TITLE} acknowledged were found in the feed; "
            f"{CALLS_IN_FLIGHT} calls were in flight."
        )
        return [note]

    def prepare(self) -> None:
        self._gauge.warm_up(self._bare, "create", in_flight=IN_FLIGHT)
        for subject in self._subjects.values():
            self._gauge.warm_up(subject, "batch", in_flight=CALLS_IN_FLIGHT)

    def measure_round(self) -> None:
        before = self._gauge.rate(self._bare, "create", in_flight=IN_FLIGHT)
        for empty in self._empty:
            subject = self._subjects[empty.name]
            seq = subject.feed_seq()
            ours = self._batch_gauge.rate(subject, "batch", in_flight=CALLS_IN_FLIGHT)
            self._check(subject, ours.calls * BATCH, subject.feed_seq() - seq)
            after = self._gauge.rate(self._bare, "create", in_flight=IN_FLIGHT)
            title = f"{TITLE}, {empty.name}"
            self._comparisons.add(title, "job", ours, (before, after), bar=BAR, each=BATCH)
            self._compare(empty, ours.rate * BATCH)
            before = after

    def _check(self, subject: Subject, acknowledged: int, committed: int) -> None:
        if acknowledged != committed:
            raise BenchmarkError(
                f"{TITLE} on {subject.database}: {acknowledged} jobs were acknowledged, "
                f"{committed} changes are in the feed"
            )
        self._made += acknowledged

    def _compare(self, empty: Database, rate: float) -> None:
        """Insert the same rows by the driver alone, so many at a time, and then one by one."""
        seconds = insert_seconds(empty, self._rows, chunks=CHUNKS, size=BATCH)
        title = f"{TITLE}, {empty.name}: by a bare executemany"
        beside = Figure(title, "jobs/s", more_is_better=True)
        self._comparisons.keep(beside).add(rate, BATCH / statistics.mean(seconds))
        alone = insert_seconds(empty, self._rows, chunks=COMMITS, size=1)
        commit = Figure(f"A bare commit of one row, {empty.name}", "ms")
        self._comparisons.keep(commit).add(statistics.median(alone) * 1000)
