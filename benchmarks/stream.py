"""Reports over a few streams: how many are durable a second, beside a stream that does nothing."""

import statistics
from collections.abc import Sequence

from benchmarks.comparisons import Comparisons
from benchmarks.gauge import Gauge, Reading, Server
from benchmarks.processes import BareServer, BenchmarkError, Generator, all_do
from benchmarks.report import Figure
from benchmarks.subjects import Subject
from jobledger_client._pipeline import MAX_WAITING

STREAMS = 8
JOBS_EACH = 100

WINDOW = MAX_WAITING
"""Reports of a stream that are under way at once: as many as the clients let be."""

WARM_UP_SECONDS = 0.5
"""Until the first crowd of reports has been read."""

BAR = 0.7


class Stream:
    """Measures ReportProgress on each database, between two measurements of the bare stream."""

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
        self._gauge = Gauge(generators, seconds=seconds, warm_up=WARM_UP_SECONDS)
        self._comparisons = Comparisons()
        self._bare_readings: list[Reading] = []
        self._written = 0

    @property
    def figures(self) -> list[Figure]:
        return self._comparisons.figures

    @property
    def notes(self) -> list[str]:
        server = statistics.median(reading.server_cores for reading in self._bare_readings)
        cost = statistics.median(reading.generator_cpu for reading in self._bare_readings)
        generator = statistics.median(reading.generator_cores for reading in self._bare_readings)
        bare = (
            f"Bare stream: the server used {server:.2f} cores, each generator {generator:.2f}, "
            f"{cost:.0f} µs an update."
        )
        durable = (
            f"All {self._written:,} acknowledged reports were found in the feed, each one version "
            f"of its job; {WINDOW:,} were under way on each of {STREAMS} streams."
        )
        return [bare, durable]

    def prepare(self) -> None:
        """Make the jobs that are reported on, and warm every server up."""
        share = STREAMS * JOBS_EACH // len(self._generators)
        for subject in self._subjects:
            all_do(self._generators, "prepare", target=subject.target, jobs=share)
        servers: tuple[Server, ...] = (self._bare, *self._subjects)
        for server in servers:
            self._report(server)

    def measure_round(self) -> None:
        before = self._bare_stream()
        for subject in self._subjects:
            seq = subject.feed_seq()
            ours = self._report(subject)
            self._check(subject, ours.calls, subject.feed_seq() - seq)
            after = self._bare_stream()
            title = f"ReportProgress, {subject.database}"
            self._comparisons.add(title, "update", ours, (before, after), bar=BAR)
            before = after

    def _bare_stream(self) -> Reading:
        reading = self._report(self._bare)
        self._bare_readings.append(reading)
        return reading

    def _report(self, server: Server) -> Reading:
        return self._gauge.read(
            server,
            "report",
            streams=STREAMS // len(self._generators),
            jobs=JOBS_EACH,
            window=WINDOW,
            true=isinstance(server, Subject),
        )

    def _check(self, subject: Subject, acknowledged: int, committed: int) -> None:
        """Find every acknowledged report in the feed, and every job as its last answer said."""
        if acknowledged != committed:
            raise BenchmarkError(
                f"ReportProgress on {subject.database}: {acknowledged} reports were acknowledged, "
                f"{committed} changes are in the feed"
            )
        all_do(self._generators, "check", target=subject.target)
        self._written += acknowledged
