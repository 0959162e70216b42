"""The sizes of large jobs, by which batches bound the bytes that they read.

A command does not contain the size of its job, and 512 jobs can have 400 MB. So the sizes
are recorded when jobs are written or read. A job that this process has not seen counts 0.
"""

from collections.abc import Callable

from jobledger_server.domain.job import Job, JobId

LARGE = 16 * 1024
"""A job of at least this many bytes is large."""

MAX_JOBS = 16_384
"""Large jobs whose sizes are recorded at most."""

ReadBytes = Callable[[JobId], int]
"""Returns the bytes that a job adds to a read."""


class JobSizes:
    """The sizes of the large jobs that were written or read last."""

    def __init__(self) -> None:
        self._sizes: dict[JobId, int] = {}  # the most recent one is last

    def record(self, job: Job) -> None:
        """Record the size of a job that was written or read."""
        size = len(job.parameters or b"") + len(job.result or b"")
        if job.error is not None:
            size += len(job.error.details or b"")
        if size < LARGE:
            return
        self._sizes.pop(job.id, None)
        self._sizes[job.id] = size
        if len(self._sizes) > MAX_JOBS:
            del self._sizes[next(iter(self._sizes))]

    def read_counter(self) -> ReadBytes:
        """Return a function that returns the bytes that a job adds to a read.

        It counts each large job once, and other jobs as 0.
        """
        counted: set[JobId] = set()

        def read_bytes(job_id: JobId) -> int:
            if job_id in counted:
                return 0
            counted.add(job_id)
            return self._sizes.get(job_id, 0)

        return read_bytes
