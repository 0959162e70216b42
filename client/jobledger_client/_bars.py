"""Watching several jobs at once: bars on a terminal, one JSON line per change elsewhere."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TypeAlias

from jobledger_client import AsyncClient, JobStatus, WatchJobResponse
from jobledger_client._ending import FAILED_JOB, PARTIAL_JOB, flush, write
from jobledger_client._render import clean, job_words, short_id, status_name, to_json

Show: TypeAlias = Callable[[WatchJobResponse], None]


async def watch_all(
    client: AsyncClient, job_ids: Sequence[str], show: AbstractContextManager[Show]
) -> int:
    """Follow all jobs to their ends; the exit code tells the worst of them."""
    # A watch waits for a server for ever. This call does not: a wrong address
    # or job is told at once.
    jobs = [await client.get_job(job_id) for job_id in dict.fromkeys(job_ids)]
    with show as tell:
        try:
            async with asyncio.TaskGroup() as group:
                ends = [group.create_task(_follow(client, job.id, tell)) for job in jobs]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    statuses = {end.result() for end in ends}
    if JobStatus.JOB_STATUS_FAILED in statuses:
        return FAILED_JOB
    return PARTIAL_JOB if JobStatus.JOB_STATUS_PARTIAL in statuses else 0


async def _follow(client: AsyncClient, job_id: str, tell: Show) -> "JobStatus.ValueType":
    status = JobStatus.JOB_STATUS_UNSPECIFIED
    async with aclosing(client.watch(job_id)) as news:
        async for message in news:
            tell(message)
            status = message.job.status
    return status


def lines() -> AbstractContextManager[Show]:
    def tell(message: WatchJobResponse) -> None:
        write(to_json(message))
        flush()

    return nullcontext(tell)


class Bars(AbstractContextManager[Show]):
    """One bar for each job."""

    def __init__(self) -> None:
        # Half of the start-up time of a command that draws nothing.
        from rich.progress import BarColumn, Progress, TaskID, TextColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        # markup off: a job's words are not ours to interpret. They get what
        # width the rest leaves.
        self._progress = Progress(
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]:<10}", markup=False),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            expand=True,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Show:
        self._progress.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _tell(self, message: WatchJobResponse) -> None:
        job = message.job
        words, status = clean(job_words(job)), status_name(job.status)
        bar = self._bars.get(job.id)
        if bar is not None:
            self._progress.update(bar, completed=job.progress, status=status, description=words)
            return
        title = clean(f"{job.job_type}  {short_id(job)}")
        self._bars[job.id] = self._progress.add_task(
            words, completed=job.progress, title=title, status=status
        )
