"""What a worker counts, and what it says of its health."""

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Final, Protocol

from jobledger.core.metrics import Metric, MetricsCollector, metrics_page
from jobledger.core.status_server import Page, Pages
from jobledger.worker.outcomes import Completed, Failed, Outcome, Partial, Release

MAX_REASONS: Final = 10
"""Reasons that are distinguished for each type of job. All further ones are `other`."""

OTHER: Final = "other"

_logger = logging.getLogger("jobledger.worker")

SILENT_SECONDS: Final = 60.0
"""A worker is unhealthy if a stream of its has brought no message for so long. The service sends
one at least every 15 s."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """A job that a worker is done with.

    Attributes:
        job_type: its type.
        outcome: `completed`, `partial`, `failed`, `retried` (failed, and it may have another
            attempt), `released`, or `lost`: the service has not accepted an outcome of this worker.
        reason: that of the error, empty without one.
        seconds: from its start at this worker to the service's answer to its outcome.
    """

    job_type: str
    outcome: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """How a worker is.

    Attributes:
        healthy: whether each stream has brought a message in the last minute, and not all of its
            slots are stuck.
        slots: how many jobs it may run at once.
        busy: how many it runs.
        stuck: how many slots are kept by handlers that go on although their jobs are over, such as
            threads that ignore their timeout. They are free when the handlers return.
        silence: seconds since the last message, of the stream that has been silent longest; since
            the start before the first one. None while it does not run.
        jobs: jobs that it is done with, by outcome and reason: `{"failed": {"DISK_FULL": 2}}`.
    """

    healthy: bool
    slots: int
    busy: int
    stuck: int
    silence: float | None
    jobs: Mapping[str, Mapping[str, int]]


class Watched(Protocol):
    """Slots with their stream, as their metrics are read."""

    @property
    def size(self) -> int:
        """How many jobs at once."""

    @property
    def busy(self) -> int:
        """How many there are now."""

    @property
    def stuck(self) -> int:
        """How many are kept by handlers that go on although their jobs are over."""

    @property
    def last_message(self) -> float:
        """When the stream brought its last message, by the event loop's clock."""


class WorkerFigures:
    """Counts the jobs of a worker, and reads its slots.

    Args:
        on_end: called with each job that ends.
    """

    def __init__(self, on_end: Callable[[JobEnd], object] | None) -> None:
        self.ended: Counter[tuple[str, ...]] = Counter()
        """Jobs by type, outcome and reason."""
        self.watched: Sequence[Watched] = ()
        """The worker's slots, while it runs."""
        self._on_end = on_end
        self._reasons: dict[str, set[str]] = {}
        self._clock: Callable[[], float] | None = None

    def run(self, watched: Sequence[Watched]) -> None:
        """Take note that the worker runs, in this event loop."""
        self._clock = asyncio.get_running_loop().time
        self.watched = watched

    def end(self, job_type: str, outcome: Outcome | None, seconds: float) -> None:
        """Count a job, by the outcome that the service has accepted, if it has one."""
        name, reason = _named(outcome)
        self.ended[job_type, name, self._bounded(job_type, reason)] += 1
        if self._on_end is not None:
            try:
                self._on_end(JobEnd(job_type, name, reason, seconds))
            except Exception:
                _logger.exception("on_end failed")

    def silence(self) -> float | None:
        """Return for how many seconds the most silent stream has been silent."""
        if self._clock is None or not self.watched:
            return None
        return self._clock() - min(each.last_message for each in self.watched)

    def health(self) -> WorkerHealth:
        """Return how the worker is now."""
        jobs: dict[str, dict[str, int]] = {}
        for (_, outcome, reason), count in list(self.ended.items()):
            by_reason = jobs.setdefault(outcome, {})
            by_reason[reason] = by_reason.get(reason, 0) + count
        silence = self.silence()
        works = not any(each.stuck >= each.size for each in self.watched)
        return WorkerHealth(
            healthy=silence is not None and silence < SILENT_SECONDS and works,
            slots=sum(each.size for each in self.watched),
            busy=sum(each.busy for each in self.watched),
            stuck=sum(each.stuck for each in self.watched),
            silence=silence,
            jobs=jobs,
        )

    def pages(self) -> Pages:
        """Return the pages of a worker: its health; with prometheus_client, its metrics."""
        pages: dict[str, Callable[[], Page]] = {"/healthz": self._health_page}
        with contextlib.suppress(ImportError):  # the worker works without it
            pages["/metrics"] = metrics_page(MetricsCollector(METRICS, self))
        return pages

    def _health_page(self) -> Page:
        health = self.health()
        status = HTTPStatus.OK if health.healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(json.dumps(asdict(health)).encode(), status, "application/json")

    def _bounded(self, job_type: str, reason: str) -> str:
        known = self._reasons.setdefault(job_type, set())
        if reason and reason not in known:
            if len(known) >= MAX_REASONS:
                return OTHER
            known.add(reason)
        return reason


METRICS: Final[tuple[Metric[WorkerFigures], ...]] = (
    Metric(
        "jobledger_worker_slots",
        "gauge",
        "How many jobs the worker may run at once.",
        (),
        lambda f: sum(each.size for each in f.watched),
    ),
    Metric(
        "jobledger_worker_slots_busy",
        "gauge",
        "How many jobs the worker runs.",
        (),
        lambda f: sum(each.busy for each in f.watched),
    ),
    Metric(
        "jobledger_worker_slots_stuck",
        "gauge",
        "How many slots are kept by handlers that go on although their jobs are over, such as "
        "threads that ignore their timeout.",
        (),
        lambda f: sum(each.stuck for each in f.watched),
    ),
    Metric(
        "jobledger_worker_jobs_total",
        "counter",
        "Jobs that the worker is done with. The outcome is `completed`, `partial`, `failed`, "
        "`retried`, `released` or `lost`. The reason is that of the error: the first "
        f"{MAX_REASONS} of each type, further ones are `other`.",
        ("job_type", "outcome", "reason"),
        lambda f: f.ended,
    ),
    Metric(
        "jobledger_worker_silence_seconds",
        "gauge",
        "How long no message has come from the service, on the stream that has been silent "
        "longest. The service sends one at least every 15 seconds.",
        (),
        lambda f: f.silence() or 0.0,
    ),
)


def _named(outcome: Outcome | None) -> tuple[str, str]:
    match outcome:
        case None:
            return "lost", ""
        case Completed():
            return "completed", ""
        case Partial():
            return "partial", outcome.reason
        case Failed():
            return "retried" if outcome.retryable else "failed", outcome.reason
        case Release():
            return "released", ""
