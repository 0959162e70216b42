"""The job cache: jobs as this process last wrote them, so that it need not read their rows again.

Most commands are about a running job that an earlier command was about: a worker's reports.
Waiting and finished jobs are not cached, because few commands are about them. The cache
holds copies only. The database is asked whether the job's row is still the one that was
written (`Driver.unchanged`), which costs a fraction of reading the row.
"""

from collections.abc import Collection

from jobledger_server.domain.job import JobId
from jobledger_server.store import Change
from jobledger_server.tuning import Tuning

WriteId = str | int
"""Identifies the transaction that wrote a row. Each dialect has its own kind."""


class JobCache:
    """The jobs written last, each with the id of the transaction that wrote it."""

    def __init__(self, max_bytes: int = Tuning().job_cache_bytes) -> None:
        self._max_bytes = max_bytes
        self._jobs: dict[JobId, tuple[Change, WriteId]] = {}  # the one written last comes last
        self._bytes = 0

    def find(self, ids: Collection[JobId]) -> dict[JobId, tuple[Change, WriteId]]:
        """Return those of the jobs that are cached, each as its latest change."""
        return {id_: self._jobs[id_] for id_ in ids if id_ in self._jobs}

    def put(self, change: Change, write_id: WriteId) -> None:
        """Cache a job as it was written and committed."""
        job_id = change.job.id
        self.discard(job_id)
        self._jobs[job_id] = change, write_id
        self._bytes += change.memory_bytes
        while self._bytes > self._max_bytes:
            self.discard(next(iter(self._jobs)))

    def discard(self, job_id: JobId) -> None:
        """Remove a job, if it is cached."""
        if job_id in self._jobs:
            change, _ = self._jobs.pop(job_id)
            self._bytes -= change.memory_bytes

    def clear(self) -> None:
        """Remove every job: the next answer may come from another database."""
        self._jobs.clear()
        self._bytes = 0
