"""What the changes of jobs say about them: how long they waited and ran, and how they finished."""

from collections import Counter
from collections.abc import Sequence

from jobledger_server.domain.job import MICROS_PER_SECOND, Job, JobStatus
from jobledger_server.domain.leases import SERVICE_REASONS
from jobledger_server.store import Change
from jobledger_server.telemetry.instruments import COUNTS, JOB_SECONDS, Histogram, histograms

MAX_JOB_TYPES = 100
"""Types of jobs that are distinguished. All further ones are `other`."""

MAX_REASONS = 10
"""Reasons of applications that are distinguished for each type. All further ones are `other`."""

OTHER = "other"


class JobMetrics:
    """Counts the changes that this server commits, so that no other server counts them too."""

    def __init__(self) -> None:
        self.created: Counter[str] = Counter()
        """By job type."""
        self.finished: Counter[tuple[str, ...]] = Counter()
        """By job type, status and reason."""
        self.requeued: Counter[str] = Counter()
        """By job type."""
        self.waits: dict[str, Histogram] = histograms(JOB_SECONDS)
        """Seconds from a creation, or the time that was scheduled, to the first start, by job
        type."""
        self.runs: dict[tuple[str, ...], Histogram] = histograms(JOB_SECONDS)
        """Seconds from the first start to the terminal state, by job type and status."""
        self.attempts: dict[str, Histogram] = histograms(COUNTS)
        """Attempts of jobs that have finished, by job type."""
        self._types: set[str] = set()
        self._reasons: dict[str, set[str]] = {}

    def observe(self, changes: Sequence[Change]) -> None:
        """Count the changes of a commit."""
        for change in changes:
            job = change.job
            if change.deleted:
                continue
            if change.transitions:
                self._transition(job)
            elif job.version == 1:
                self.created[self._type(job)] += 1
            elif (
                job.status is JobStatus.PROCESSING
                and job.children is None
                and not job.leased
                # Else a report came for a job that waits already.
                and job.progress_time != job.update_time
            ):
                self.requeued[self._type(job)] += 1

    def _transition(self, job: Job) -> None:
        job_type = self._type(job)
        # No worker runs a group.
        start = job.start_time if job.children is None else None
        end = job.complete_time
        if end is None:
            if start is not None:
                self.waits[job_type].record(_seconds(job.due_time, start))
            return
        status = job.status.value
        reason = "" if job.error is None else self._reason(job_type, job.error.reason)
        self.finished[job_type, status, reason] += 1
        if start is not None:
            self.runs[job_type, status].record(_seconds(start, end))
            self.attempts[job_type].record(job.attempt)

    def _reason(self, job_type: str, reason: str) -> str:
        # Workers choose any but the service's own: each is a time series.
        known = self._reasons.setdefault(job_type, set())
        if reason not in known and reason not in SERVICE_REASONS:
            if len(known) >= MAX_REASONS:
                return OTHER
            known.add(reason)
        return reason

    def _type(self, job: Job) -> str:
        job_type = job.job_type
        if job_type not in self._types:
            if len(self._types) >= MAX_JOB_TYPES:
                return OTHER
            self._types.add(job_type)
        return job_type


def _seconds(begin: int, end: int) -> float:
    # The database's clock may have been set back. The sum of a histogram must not decrease.
    return max(0, end - begin) / MICROS_PER_SECOND
