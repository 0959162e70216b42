"""Steady writing: how long a change takes from who makes it to who watches all jobs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.processes import BenchmarkError, Generator
from benchmarks.report import Figure, percentiles

JOBS = 500
"""Jobs that are reported on in turn: so many that hardly two changes of one meet."""

SETTLE_SECONDS = 1.0
"""Until the follower has been told all jobs, and everything is at rest."""

FIRST = 0.1
"""The share of the changes that is left out: everything is done for once."""


@dataclass
class Route:
    """From a server where it is written to one where it is watched."""

    title: str
    written_at: str
    watched_at: str
    from_sent: dict[int, list[float]] = field(default_factory=dict)
    from_answer: dict[int, list[float]] = field(default_factory=dict)


class Delivery:
    """Writes at each rate, by all routes from one server at the same time."""

    def __init__(
        self,
        routes: Sequence[Route],
        writer: Generator,
        follower: Generator,
        *,
        rates: Sequence[int],
        seconds: float,
    ) -> None:
        self._routes = routes
        self._writer = writer
        self._follower = follower
        self._rates = rates
        self._seconds = seconds
        self._reached: dict[int, list[float]] = {rate: [] for rate in rates}
        self._skipped = 0
        self._written = 0

    @property
    def figures(self) -> list[Figure]:
        figures = []
        for rate in self._rates:
            for route in self._routes:
                for since, samples in (
                    ("sending", route.from_sent[rate]),
                    ("its answer", route.from_answer[rate]),
                ):
                    for name, value in zip(("p50", "p99"), percentiles(samples), strict=True):
                        title = f"{rate:,} changes/s, {route.title}, from {since}, {name}"
                        figures.append(Figure(title, "ms"))
                        figures[-1].add(value)
        return figures

    @property
    def notes(self) -> list[str]:
        reached = (f"{rate:,}: {min(found):,.0f} at least" for rate, found in self._reached.items())
        told = (
            f"All {self._written:,} changes were told on every route, {self._skipped:,} of them "
            "by a later version of their job."
        )
        between = (
            "The commit lies between sending and the answer, so what it takes from the commit "
            "lies between the two figures; the answer may come after the delivery."
        )
        return [f"Changes a second, wanted and reached: {'; '.join(reached)}.", told, between]

    def prepare(self) -> None:
        for route in self._routes:
            route.from_sent = {rate: [] for rate in self._rates}
            route.from_answer = {rate: [] for rate in self._rates}

    def measure_round(self) -> None:
        for rate in self._rates:
            for written_at in dict.fromkeys(route.written_at for route in self._routes):
                together = [route for route in self._routes if route.written_at == written_at]
                self._write(written_at, together, rate)

    def _write(self, written_at: str, routes: Sequence[Route], rate: int) -> None:
        self._writer.do("start_jobs", target=written_at, jobs=JOBS)
        changes = int(rate * self._seconds)
        watched = [route.watched_at for route in routes]
        self._follower.begin("follow", targets=watched, changes=changes)
        time.sleep(SETTLE_SECONDS)
        done = self._writer.do("write", target=written_at, rate=rate, seconds=self._seconds)
        told = self._follower.end()["told"]
        self._reached[rate].append(len(done["written"]) / done["seconds"])
        self._written += changes
        for route, messages in zip(routes, told, strict=True):
            self._match(route, rate, done["written"], messages)

    def _match(
        self,
        route: Route,
        rate: int,
        written: Sequence[tuple[str, int, float, float]],
        messages: Sequence[tuple[str, int, float]],
    ) -> None:
        times: dict[str, list[tuple[int, float]]] = {}
        for job_id, version, at in messages:
            times.setdefault(job_id, []).append((version, at))
        for number, (job_id, version, sent, answered) in enumerate(written):
            later = [(v, at) for v, at in times.get(job_id, ()) if v >= version]
            if not later:
                raise BenchmarkError(f"{route.title}: version {version} of {job_id} was not told")
            told, at = later[0]
            self._skipped += told != version
            if number >= len(written) * FIRST:
                route.from_sent[rate].append(at - sent)
                route.from_answer[rate].append(at - answered)
