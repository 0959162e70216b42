"""What `jobledger top` knows: which jobs there are, in which order, and how much happens.

Pure: no network, no drawing; the clock is a parameter.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jobledger_client import TERMINAL_STATUSES, Job, JobStatus, WatchJobsResponse

LINGER: Final = 5.0
"""Seconds that a job stays after its end."""
RATE_SPAN: Final = 10
"""Seconds over which changes are counted."""


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a job stands: what was started first, and within that the oldest.

    It stays there to its end, so that rows do not jump about.
    """

    waits: bool
    since: int
    job_id: str


class Board:
    """The jobs that have not ended, and those that ended just now."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._jobs: dict[str, tuple[_Place, Job]] = {}
        # In the order in which they will go.
        self._leaving: dict[str, float] = {}
        self._changes: deque[tuple[int, int]] = deque()
        self._heard: float | None = None
        self._synced_at: float | None = None

    def take(self, message: WatchJobsResponse) -> None:
        """Take in a message of `watch_jobs`."""
        self._heard = self._clock()
        if message.synced and self._synced_at is None:
            self._synced_at = self._heard
        if not message.HasField("job"):
            return
        if self._synced_at is not None:
            self._count(int(self._heard))
        job = message.job
        self._leaving.pop(job.id, None)
        if message.deleted:
            self._jobs.pop(job.id, None)
            return
        self._jobs[job.id] = (_place(job), job)
        if job.status in TERMINAL_STATUSES:
            self._leaving[job.id] = self._heard + LINGER

    def begin_anew(self) -> None:
        """Forget everything: the jobs are listed again."""
        self._jobs.clear()
        self._leaving.clear()
        self._changes.clear()
        self._synced_at = None

    def tidy(self) -> None:
        """Let go of the jobs that have stayed long enough after their end."""
        now = self._clock()
        due = [job_id for job_id, moment in self._leaving.items() if moment <= now]
        for job_id in due:
            del self._leaving[job_id], self._jobs[job_id]

    def first(self, count: int) -> list[Job]:
        """Return so many jobs from the top."""
        rows = heapq.nsmallest(count, self._jobs.values(), key=lambda row: row[0])
        return [job for _, job in rows]

    def __len__(self) -> int:
        return len(self._jobs)

    def counts(self) -> "Counter[JobStatus.ValueType]":
        return Counter(job.status for _, job in self._jobs.values())

    @property
    def connected(self) -> bool:
        """Whether the service has said anything yet."""
        return self._heard is not None

    @property
    def synced(self) -> bool:
        return self._synced_at is not None

    def silence(self) -> float:
        """Seconds since the last message, heartbeats included."""
        return 0.0 if self._heard is None else self._clock() - self._heard

    def rate(self) -> float:
        """Return the changes in a second, over the last ten."""
        now = self._clock()
        if self._synced_at is None:
            return 0.0
        recent = sum(count for second, count in self._changes if second > now - RATE_SPAN)
        return recent / min(max(now - self._synced_at, 1.0), RATE_SPAN)

    def _count(self, second: int) -> None:
        if self._changes and self._changes[-1][0] == second:
            self._changes[-1] = (second, self._changes[-1][1] + 1)
            return
        self._changes.append((second, 1))
        while self._changes[0][0] <= second - RATE_SPAN:
            self._changes.popleft()


def _place(job: Job) -> _Place:
    started = job.HasField("start_time")
    since = job.start_time if started else job.create_time
    return _Place(not started, since.ToNanoseconds(), job.id)
