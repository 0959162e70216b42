"""One waiting worker: how long a job takes from who creates it to who does it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.processes import BareServer, BenchmarkError, Generator
from benchmarks.report import Figure, percentiles

SETTLE_SECONDS = 0.2
"""Until a worker that was told to wait does."""

FIRST = 2
"""Jobs that are left out of each series: everything is done for once."""


@dataclass
class Way:
    """From one server to a worker at the same or at another one.

    A job is made every `gap` seconds, and up to `jitter` more: long enough that
    everything is at rest again before the next.
    """

    title: str
    created_at: str
    taken_at: str
    library: bool = False
    gap: float = 0.03
    jitter: float = 0.02
    share: float = 1.0
    from_sent: list[float] = field(default_factory=list)
    from_acknowledged: list[float] = field(default_factory=list)


class Handover:
    """Sends jobs each way, the bare server's before each round."""

    def __init__(
        self,
        bare: BareServer,
        ways: Sequence[Way],
        creator: Generator,
        worker: Generator,
        *,
        jobs: int,
    ) -> None:
        self._bare = Way("bare", bare.target, bare.target)
        self._ways = ways
        self._creator = creator
        self._worker = worker
        self._jobs = jobs
        self._series = 0

    @property
    def figures(self) -> list[Figure]:
        figures = []
        ceilings = percentiles(self._bare.from_sent)
        for way in self._ways:
            for name, value, ceiling in zip(
                ("p50", "p99"), percentiles(way.from_sent), ceilings, strict=True
            ):
                figures.append(Figure(f"{way.title}, from sending, {name}", "ms"))
                figures[-1].add(value, ceiling)
            for name, value in zip(("p50", "p99"), percentiles(way.from_acknowledged), strict=True):
                figures.append(Figure(f"{way.title}, from its answer, {name}", "ms"))
                figures[-1].add(value)
        return figures

    @property
    def notes(self) -> list[str]:
        counts = (f"{way.title} {len(way.from_sent)}" for way in self._ways)
        return [f"Jobs handed over: {'; '.join(counts)}."]

    def prepare(self) -> None:
        pass

    def measure_round(self) -> None:
        self._send(self._bare)
        for way in self._ways:
            self._send(way)

    def _send(self, way: Way) -> None:
        self._series += 1
        job_type = f"handover-{self._series}"
        jobs = max(1, int(self._jobs * way.share)) + FIRST
        command = "handle" if way.library else "take"
        self._worker.begin(command, target=way.taken_at, job_type=job_type, jobs=jobs)
        time.sleep(SETTLE_SECONDS)
        made = self._creator.do(
            "make_spaced",
            target=way.created_at,
            job_type=job_type,
            jobs=jobs,
            gap=way.gap,
            jitter=way.jitter,
        )["made"]
        taken = self._worker.end()["taken"]
        if [job_id for job_id, *_ in made] != [job_id for job_id, _ in taken]:
            raise BenchmarkError(f"{way.title}: the jobs made are not, in order, those taken")
        for (_, sent, acknowledged), (_, there) in list(zip(made, taken, strict=True))[FIRST:]:
            way.from_sent.append(there - sent)
            way.from_acknowledged.append(there - acknowledged)
