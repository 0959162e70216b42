"""The ends of the streams of output that this process has appended to last.

So most appends read nothing. As copies they may be old: an append fails if a later piece is stored
(`OutputStatements.insert`), and then they are read.
"""

from collections.abc import Iterable

from jobledger_server.domain.job import JobId
from jobledger_server.domain.output import Tails

MAX_JOBS = 10_000
"""Jobs whose streams are kept. Each takes up to 2 KiB."""


class OutputTails:
    """The streams of jobs, by the job."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, Tails] = {}  # the one appended to last comes last

    def find(self, job_id: JobId) -> Tails | None:
        """Return the streams of a job, or None if they are not kept."""
        return self._jobs.get(job_id)

    def put(self, job_id: JobId, tails: Tails) -> None:
        """Keep the streams of a job as they were committed."""
        self._jobs.pop(job_id, None)
        self._jobs[job_id] = tails
        if len(self._jobs) > MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]

    def discard(self, ids: Iterable[JobId]) -> None:
        """Forget the streams of these jobs."""
        for job_id in ids:
            self._jobs.pop(job_id, None)

    def clear(self) -> None:
        """Forget all: the next answer may come from another database."""
        self._jobs.clear()
