"""The jobs that a worker holds on one stream, and the signals that it has to get.

A stream costs one entry for each job that it holds, and at most one signal for each:
a lost lease replaces a cancellation that was not sent yet.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from msgspec import Struct

from jobledger_server.admission.endings import Ending
from jobledger_server.domain.job import Job, JobId
from jobledger_server.store import Change


class Signal(Struct, frozen=True):
    """Cancellation of a held job was requested; or, with `lost`, its lease is lost."""

    job_id: JobId
    attempt: int
    lost: bool
    cancel_reason: str = ""


class HeldJobs:
    """The jobs of one stream.

    Args:
        holders: Where the hub finds the streams that hold a job.
        wake: Called when there may be a signal.
    """

    def __init__(self, holders: "Holders", wake: Callable[[], None]) -> None:
        self.wake = wake
        self.ended = asyncio.Event()
        """Set when the stream has to end."""
        self.ending: Ending | None = None
        """Why it has to end."""
        self._holders = holders
        self._attempts: dict[JobId, int] = {}
        self._signals: dict[tuple[JobId, int], Signal] = {}
        self._cancelled: set[JobId] = set()

    def __len__(self) -> int:
        return len(self._attempts)

    def attempts(self) -> list[tuple[JobId, int]]:
        """Return the jobs and the worker's attempts."""
        return list(self._attempts.items())

    def add(self, job_id: JobId, attempt: int) -> None:
        """Hold a job: each of its changes is offered from now on."""
        self._attempts[job_id] = attempt
        self._holders.add(job_id, self)

    def remove(self, job_id: JobId, attempt: int) -> None:
        """Stop holding a job: its worker finished or released it, or knows that it is lost."""
        if self._attempts.get(job_id) == attempt:
            del self._attempts[job_id]
            self._signals.pop((job_id, attempt), None)
            self._cancelled.discard(job_id)
            self._holders.discard(job_id, self)

    def offer(self, change: Change) -> bool:
        """Take note of a change; return whether there is a signal."""
        attempt = self._attempts.get(change.job.id)
        if attempt is None:
            return False
        if change.deleted:
            return self.lose(change.job.id, attempt)
        return self.observe(change.job)

    def observe(self, job: Job) -> bool:
        """Take note of a job as it was read or written; return whether there is a signal.

        It may be older than what was offered before.
        """
        attempt = self._attempts.get(job.id)
        if attempt is None or job.attempt < attempt:
            return False  # an attempt before the worker's
        if job.attempt > attempt or not job.leased:
            return self.lose(job.id, attempt)
        known = job.id in self._cancelled or (job.id, attempt) in self._signals
        if job.cancel_request_time is None or known:
            return False
        self._cancelled.add(job.id)
        signal = Signal(job.id, attempt, lost=False, cancel_reason=job.cancel_reason)
        self._signals[job.id, attempt] = signal
        return True

    def lose(self, job_id: JobId, attempt: int) -> bool:
        """Take note that the job is not the worker's any more; return whether it was."""
        if self._attempts.get(job_id) != attempt:
            return False
        self._signals[job_id, attempt] = Signal(job_id, attempt, lost=True)
        return True

    def next_signal(self, unless: Collection[JobId]) -> Signal | None:
        """Take a signal to send, of a job that is not in `unless`."""
        for key, signal in self._signals.items():
            if signal.job_id not in unless:
                del self._signals[key]
                if signal.lost:
                    self.remove(*key)
                return signal
        return None


class Holders:
    """The streams that hold jobs, and which of them holds which."""

    def __init__(self) -> None:
        self._streams: dict[HeldJobs, None] = {}  # as a set that keeps the order, like those below
        self._by_job: dict[JobId, dict[HeldJobs, None]] = {}

    def __len__(self) -> int:
        """How many jobs and streams there are."""
        return len(self._streams) + len(self._by_job)

    def of(self, job_id: JobId) -> Collection[HeldJobs]:
        """Return the streams that hold the job. Usually one does: a stream may have broken."""
        return self._by_job.get(job_id, ())

    @contextmanager
    def opened(self, wake: Callable[[], None]) -> Iterator[HeldJobs]:
        """Yield the jobs of a new stream."""
        held_jobs = HeldJobs(self, wake)
        self._streams[held_jobs] = None
        try:
            yield held_jobs
        finally:
            del self._streams[held_jobs]
            for job_id, attempt in held_jobs.attempts():
                held_jobs.remove(job_id, attempt)

    def add(self, job_id: JobId, held_jobs: HeldJobs) -> None:
        self._by_job.setdefault(job_id, {})[held_jobs] = None

    def discard(self, job_id: JobId, held_jobs: HeldJobs) -> None:
        holders = self._by_job.get(job_id)
        if holders is not None:
            holders.pop(held_jobs, None)
            if not holders:
                del self._by_job[job_id]

    def end(self, ending: Callable[[], Ending]) -> None:
        """End every stream."""
        for held_jobs in self._streams:
            held_jobs.ending = held_jobs.ending or ending()
            held_jobs.ended.set()
