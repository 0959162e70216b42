"""What `jobledger top` knows: which jobs there are, in which order, and how much happens.

Pure: no network, no drawing; the clocks are parameters.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from heapq import heappop, heappush
from itertools import takewhile
from typing import Final, NamedTuple, TypeAlias

from jobledger import FeedEvent, Job
from jobledger.cli.render import waits_until

LINGER: Final = 5.0
"""Seconds that a job stays after it is terminal."""
RATE_SPAN: Final = 10
"""Seconds over which changes are counted."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


# The position of a job: started ones first, then those that wait for a worker, by priority, then
# those that are scheduled; within that the oldest. A job that finishes keeps its position, so that
# rows do not move.
_Rank: TypeAlias = tuple[int, int, datetime, str]


class _Row(NamedTuple):
    """A job as it is shown: the time changes that, too."""

    job: Job
    state: str
    rank: _Rank


class Board:
    """The jobs that are not terminal, and those that became terminal a moment ago.

    Args:
        clock: monotonic, in seconds.
        now: the time of day, which schedules are compared with.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._now = now
        # Kept in order and counted as they change: a picture costs what it shows.
        self._jobs: dict[str, _Row] = {}
        self._order: list[_Rank] = []
        self._counts: Counter[str] = Counter()
        # In the order in which they will be removed.
        self._leaving: dict[str, float] = {}
        # When scheduled jobs are due, the soonest first.
        self._due: list[tuple[datetime, str]] = []
        self._changes: Counter[int] = Counter()  # by the second
        self._received_at: float | None = None
        self._synced_at: float | None = None

    def take(self, event: FeedEvent) -> None:
        """Take in an event of `watch_jobs`."""
        self._received_at = self._clock() - event.silence
        if event.synced and self._synced_at is None:
            self._synced_at = self._received_at
        job = event.job
        if job is None:
            return
        if self._synced_at is not None:
            self._count(int(self._received_at))
        self._leaving.pop(job.id, None)
        self._drop(job.id)
        if event.deleted:
            return
        self._put(job)
        if job.is_terminal:
            self._leaving[job.id] = self._received_at + LINGER

    def clear(self) -> None:
        """Drop everything: the jobs are listed again."""
        self._jobs.clear()
        self._order.clear()
        self._counts.clear()
        self._leaving.clear()
        self._due.clear()
        self._changes.clear()
        self._synced_at = None

    def tidy(self) -> None:
        """Drop the jobs that have stayed long enough after they finished; notice those now due."""
        now = self._clock()
        for job_id, _ in list(takewhile(lambda item: item[1] <= now, self._leaving.items())):
            del self._leaving[job_id]
            self._drop(job_id)
        while self._due and self._due[0][0] <= self._now():
            _, job_id = heappop(self._due)
            if job_id in self._jobs:
                job = self._jobs[job_id].job
                self._drop(job_id)
                self._put(job)

    def first(self, count: int) -> list[Job]:
        """Return at most `count` jobs from the top."""
        return [self._jobs[job_id].job for *_, job_id in self._order[:count]]

    def __len__(self) -> int:
        return len(self._jobs)

    def counts(self) -> Counter[str]:
        """Count the jobs by state, as it is shown."""
        return +self._counts

    @property
    def connected(self) -> bool:
        """Whether the service has sent anything yet."""
        return self._received_at is not None

    @property
    def synced(self) -> bool:
        """Whether the listing is complete."""
        return self._synced_at is not None

    def silence(self) -> float:
        """Return the seconds since the service has sent anything."""
        return 0.0 if self._received_at is None else self._clock() - self._received_at

    def rate(self) -> float:
        """Return the changes in a second, over the last ten."""
        now = self._clock()
        if self._synced_at is None:
            return 0.0
        recent = sum(count for second, count in self._changes.items() if second > now - RATE_SPAN)
        return recent / min(max(now - self._synced_at, 1.0), RATE_SPAN)

    def _put(self, job: Job) -> None:
        now = self._now()
        row = self._jobs[job.id] = _Row(job, job.display_state_at(now), _rank(job, now))
        self._counts[row.state] += 1
        insort(self._order, row.rank)
        until = waits_until(job, now)
        if until is not None:
            heappush(self._due, (until, job.id))

    def _drop(self, job_id: str) -> None:
        row = self._jobs.pop(job_id, None)
        if row is not None:
            self._counts[row.state] -= 1
            del self._order[bisect_left(self._order, row.rank)]

    def _count(self, second: int) -> None:
        self._changes[second] += 1
        for old in list(takewhile(lambda past: past <= second - RATE_SPAN, self._changes)):
            del self._changes[old]


def _rank(job: Job, now: datetime) -> _Rank:
    if job.start_time is not None:
        return 0, 0, job.start_time, job.id
    until = waits_until(job, now)
    if until is not None:
        return 2, 0, until, job.id
    return 1, -job.priority, job.create_time or _EPOCH, job.id
