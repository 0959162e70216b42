"""Waiting for many jobs over one watch."""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from jobledger.core.models import FeedEvent, Job
from jobledger.core.streams import AsyncWatch
from jobledger.errors import DeadlineExceeded, JobNotFound


async def as_completed(
    watch: AsyncWatch[FeedEvent],
    waiting: dict[str, None],
    get_job: Callable[[str], Awaitable[Job]],
    timeout: float | None,
) -> AsyncIterator[Job]:
    """Yield each job of `waiting` once it is terminal.

    Args:
        watch: all jobs of the owner, from a listing on.
        waiting: the ids; emptied.
        get_job: reads a job that the listing does not have.
        timeout: seconds, as the watch has it, to read them; None: any time.

    Raises:
        JobNotFound: there is no such job, or it was deleted.
        DeadlineExceeded: `timeout` has passed.
    """
    if not waiting:
        return
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    listed: set[str] = set()
    synced = False
    async with watch:
        async for event in watch:
            if event.synced:
                # What is not in the listing was terminal before the watch started, or does not
                # exist. A second listing follows a gap, in which any job may have finished.
                for job_id in [job_id for job_id in waiting if synced or job_id not in listed]:
                    if time.monotonic() >= deadline:
                        raise DeadlineExceeded(
                            f"{len(waiting)} jobs did not finish in time",
                            code=grpc.StatusCode.DEADLINE_EXCEEDED,
                        )
                    job = await get_job(job_id)
                    if job.is_terminal:
                        del waiting[job_id]
                        yield job
                synced = True
            elif event.job is not None and event.job.id in waiting:
                job = event.job
                listed.add(job.id)
                if event.deleted:
                    raise JobNotFound(f"job {job.id} was deleted", code=grpc.StatusCode.NOT_FOUND)
                if job.is_terminal:
                    del waiting[job.id]
                    yield job
            if not waiting:
                return
