"""Watching several jobs at once, until all are terminal."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from jobledger import AsyncClient, JobChange, JobStatus, JobView
from jobledger.cli.exit_codes import FAILED_JOB, PARTIAL_JOB, flush, print_note, write
from jobledger.cli.outages import Outages
from jobledger.cli.render import to_json


class View(Protocol):
    """What shows the changes, and notes about the connection."""

    shown: JobView
    """How much of a job it shows."""

    def show(self, change: JobChange) -> None:
        """Show a change of a job."""

    def note(self, message: str) -> None:
        """Show a note for people."""


class Lines(View):
    """One JSON line for each change; notes go to stderr."""

    shown = JobView.FULL

    def show(self, change: JobChange) -> None:
        write(to_json(change))
        flush()

    def note(self, message: str) -> None:
        print_note(message)


async def watch_all(
    client: AsyncClient, job_ids: Sequence[str], opened: AbstractContextManager[View], server: str
) -> int:
    """Watch all jobs until they are terminal; return the exit code of the worst of them."""
    with opened as view:
        outages = Outages(server, view.note)
        try:
            async with asyncio.TaskGroup() as group:
                watches = [
                    group.create_task(_watch(client, job_id, view, outages)) for job_id in job_ids
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    statuses = {watch.result() for watch in watches}
    if JobStatus.FAILED in statuses:
        return FAILED_JOB
    return PARTIAL_JOB if JobStatus.PARTIAL in statuses else 0


async def _watch(client: AsyncClient, job_id: str, view: View, outages: Outages) -> JobStatus:
    status = JobStatus.UNKNOWN
    async with client.watch(
        job_id,
        view=view.shown,
        on_disconnect=outages.disconnected,
        on_reconnect=outages.reconnected,
    ) as changes:
        async for change in changes:
            outages.received()
            view.show(change)
            status = change.job.status
    return status
