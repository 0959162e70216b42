"""Waiting for many jobs over a watch of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import grpc

from jobledger.core.calls import now_async
from jobledger.core.models import FeedEvent, Job, JobChange
from jobledger.core.reconnecting import may_reconnect
from jobledger.core.streams import AsyncWatch
from jobledger.errors import JobledgerError, JobNotFound, MessageTooLarge


async def as_completed(
    watch: AsyncWatch[tuple[str, ...]],
    waiting: dict[str, None],
    read: Callable[[Iterable[str], float | None], Awaitable[dict[str, Job]]],
    limit: float | None,
) -> AsyncIterator[Job]:
    """Yield each job of `waiting` once it is terminal.

    Args:
        watch: yields the ids of jobs that may have finished; see CompletionWatch.
        waiting: the ids; emptied.
        read: reads jobs with their payloads, in so many seconds; those that do not exist are
            missing.
        limit: seconds for all of them.

    Raises:
        JobNotFound: there is no such job, or it was deleted.
        JobledgerError: what `watch` and `read` raise.
    """
    if not waiting:
        return
    deadline = None if limit is None else now_async() + limit
    unread: dict[str, None] = {}
    async with watch:
        async for ids in watch:
            unread.update(dict.fromkeys(job_id for job_id in ids if job_id in waiting))
            if not unread:
                continue
            left = None if deadline is None else max(deadline - now_async(), 0.0)
            try:
                jobs = await read(unread, left)
            except JobledgerError as error:
                if not may_reconnect(error) or isinstance(error, MessageTooLarge):
                    raise
                # The watch says when the service answers again, or gives up.
                continue
            for job_id in unread:
                if job_id not in jobs:
                    raise JobNotFound(
                        f"job {job_id} does not exist or was deleted",
                        code=grpc.StatusCode.NOT_FOUND,
                        reason="JOB_NOT_FOUND",
                    )
                if jobs[job_id].is_terminal:
                    del waiting[job_id]
                    yield jobs[job_id]
            unread.clear()
            if not waiting:
                return


async def group_completed(
    watch: AsyncWatch[FeedEvent | JobChange], ended: Callable[[], AsyncIterator[Job]]
) -> AsyncIterator[Job]:
    """Yield each job of a group once it is terminal, until the group is.

    Args:
        watch: yields the changes of the jobs of the group, and those of the group itself.
        ended: lists the jobs of the group that are terminal.

    Raises:
        JobledgerError: what `watch` and `ended` raise.
    """
    seen: set[str] = set()
    unread, is_last = False, False
    async with watch:
        async for event in watch:
            if isinstance(event, JobChange):
                is_last = event.job.is_terminal
            elif event.job is not None and event.job.is_terminal and event.job.id not in seen:
                seen.add(event.job.id)
                yield event.job
            # The listing of a watch has no terminal jobs, and the two watches know no order.
            unread = unread or is_last or (isinstance(event, FeedEvent) and event.synced)
            if not unread:
                continue
            try:
                async for job in ended():
                    if job.id not in seen:
                        seen.add(job.id)
                        yield job
            except JobledgerError as error:
                if not may_reconnect(error) or isinstance(error, MessageTooLarge):
                    raise
                # The watch says when the service answers again, or gives up.
                continue
            unread = False
            if is_last:
                return
