"""The memory: jobs as this process last wrote them, so that their rows need not be read again.

Most commands are about a running job that a command before was about: the reports of a
worker. Those that wait or have ended are not remembered: hardly anything comes for them.
What is remembered is only a copy. Under the job's lock the database is asked whether
its row is still the one that was written (`Driver.unchanged`), and that costs a
fraction of reading it.
"""

from collections.abc import Collection

from jobledger_server.domain.job import Job, JobId

MAX_JOBS = 8192
"""Jobs remembered at most."""

MAX_BYTES = 32 * 1024 * 1024
"""Bytes that they take at most."""

Mark = str | int
"""Tells what one transaction wrote from what any other did. The dialect's own."""


class JobCache:
    """The jobs that were written last, each with the mark of the transaction that wrote it."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, tuple[Job, Mark]] = {}  # the one that was written last comes last
        self._sizes: dict[JobId, int] = {}
        self._bytes = 0

    def find(self, ids: Collection[JobId]) -> dict[JobId, tuple[Job, Mark]]:
        """Return those of the jobs that are remembered."""
        return {id_: self._jobs[id_] for id_ in ids if id_ in self._jobs}

    def put(self, job: Job, mark: Mark) -> None:
        """Take a job as it was written and committed."""
        self.discard(job.id)
        self._jobs[job.id] = job, mark
        size = self._sizes[job.id] = job.content_bytes
        self._bytes += size
        while len(self._jobs) > MAX_JOBS or self._bytes > MAX_BYTES:
            self.discard(next(iter(self._jobs)))

    def discard(self, job_id: JobId) -> None:
        """Let go of a job, if it is remembered."""
        if self._jobs.pop(job_id, None) is not None:
            self._bytes -= self._sizes.pop(job_id)

    def clear(self) -> None:
        """Let go of everything: what answers next may be another database."""
        self._jobs.clear()
        self._sizes.clear()
        self._bytes = 0
