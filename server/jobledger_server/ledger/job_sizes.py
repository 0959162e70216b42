"""JobSizes of large jobs, so that a batch reads no more bytes at once than it may.

What is asked of a job says nothing of its size, and 512 jobs can be 400 MB. So the sizes
are kept as jobs are written and read; of a job that this process has not seen yet the
size is taken for none.
"""

from collections.abc import Callable

from jobledger_server.domain.job import Job, JobId

LARGE = 16 * 1024
"""Bytes from which on a job is large."""

MAX_JOBS = 16_384
"""Large jobs whose sizes are known at most."""


class JobSizes:
    """The sizes of the large jobs that were seen last."""

    def __init__(self) -> None:
        self._sizes: dict[JobId, int] = {}  # the one that was seen last comes last

    def record(self, job: Job) -> None:
        """Take note of a job as it was written or read."""
        size = len(job.parameters or b"") + len(job.result or b"")
        if job.error is not None:
            size += len(job.error.details or b"")
        if size < LARGE:
            return
        self._sizes.pop(job.id, None)
        self._sizes[job.id] = size
        if len(self._sizes) > MAX_JOBS:
            del self._sizes[next(iter(self._sizes))]

    def counting(self) -> Callable[[JobId], int]:
        """Return what says how many bytes a job adds to what is read: once, where it is large."""
        counted: set[JobId] = set()

        def added(job_id: JobId) -> int:
            size = self._sizes.get(job_id, 0)
            if not size or job_id in counted:
                return 0
            counted.add(job_id)
            return size

        return added
