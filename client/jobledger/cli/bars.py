"""Watching several jobs at once: bars on a terminal, one JSON line per change elsewhere."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from jobledger import AsyncClient, JobChange, JobStatus
from jobledger.cli.exit_codes import FAILED_JOB, PARTIAL_JOB, flush, write
from jobledger.cli.outages import Outages
from jobledger.cli.render import NARROW, clean, fitting_id, job_message, to_json

Show: TypeAlias = Callable[[JobChange], None]


async def watch_all(
    client: AsyncClient,
    job_ids: Sequence[str],
    shown: AbstractContextManager[Show],
    outages: Outages,
) -> int:
    """Watch all jobs until they are terminal; return the exit code of the worst of them."""
    with shown as show:
        try:
            async with asyncio.TaskGroup() as group:
                watches = [
                    group.create_task(_watch(client, job_id, show, outages))
                    for job_id in dict.fromkeys(job_ids)
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    statuses = {watch.result() for watch in watches}
    if JobStatus.FAILED in statuses:
        return FAILED_JOB
    return PARTIAL_JOB if JobStatus.PARTIAL in statuses else 0


async def _watch(client: AsyncClient, job_id: str, show: Show, outages: Outages) -> JobStatus:
    status = JobStatus.UNKNOWN
    async with client.watch(
        job_id, on_disconnect=outages.disconnected, on_reconnect=outages.reconnected
    ) as changes:
        async for change in changes:
            outages.heard()
            show(change)
            status = change.job.status
    return status


def lines() -> AbstractContextManager[Show]:
    """Print each change as a line of JSON."""

    def show(change: JobChange) -> None:
        write(to_json(change))
        flush()

    return nullcontext(show)


class Bars(AbstractContextManager[Show]):
    """One bar for each job."""

    def __init__(self) -> None:
        # Half of the start-up time of a command that draws nothing.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TaskID, TextColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        console = Console()
        self._width = console.width
        bars = [BarColumn(bar_width=10)] if self._width >= NARROW else []
        # markup off: a job's text must not be interpreted. It gets the width that is left.
        self._progress = Progress(
            TextColumn("{task.fields[title]}", markup=False),
            *bars,
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]:<10}", markup=False),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            expand=True,
            # On a terminal, notes are printed above the bars; elsewhere they go to stderr as usual.
            redirect_stderr=sys.stderr.isatty(),
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Show:
        self._progress.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _show(self, change: JobChange) -> None:
        job = change.job
        message, status = clean(job_message(job)), job.status.value
        title = clean(fitting_id(job, self._width))
        bar = self._bars.get(job.id)
        if bar is not None:
            self._progress.update(bar, completed=job.progress, status=status, description=message)
            return
        self._bars[job.id] = self._progress.add_task(
            message, completed=job.progress, title=title, status=status
        )
