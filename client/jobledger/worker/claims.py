"""Claims jobs for the free slots of a worker, and starts them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from jobledger.core.aio.client import AsyncClient
from jobledger.core.models import Job
from jobledger.core.retry import Backoff, is_transient
from jobledger.errors import JobledgerError, MessageTooLarge
from jobledger.worker.handlers import Handler
from jobledger.worker.lease import Lease
from jobledger.worker.progress_reporter import Reporter
from jobledger.worker.runner import JobRun
from jobledger.worker.slots import Slots

# How long a claim that is under way when the worker stops may take to bring jobs,
# which are then released. One that has brought none by then is cancelled: it waits for
# jobs to come, and the service takes back what it may find at that moment.
LAST_CLAIM: Final = 0.25
LONGEST_PAUSE: Final = 5.0

_logger = logging.getLogger("jobledger.worker")


class Claims:
    """Claims and runs jobs until the worker stops.

    Args:
        client: makes the calls.
        reporter: carries the reports.
        handlers: by job type.
        stopping: set when the worker stops.
        lease: seconds.
        wait: seconds that a claim waits for jobs.
        worker_id: the worker's.
        state: what the worker's lifespan yielded.
    """

    def __init__(
        self,
        client: AsyncClient,
        reporter: Reporter,
        handlers: Mapping[str, Handler],
        stopping: asyncio.Event,
        *,
        lease: float,
        wait: float,
        worker_id: str,
        state: Any,
    ) -> None:
        self._client = client
        self._reporter = reporter
        self._handlers = handlers
        self._stopping = stopping
        self._lease = lease
        self._wait = wait
        self._worker_id = worker_id
        self._state = state

    async def fill(self, slots: Slots, group: asyncio.TaskGroup) -> None:
        """Claim jobs for these slots whenever one is free. Raises JobledgerError."""
        backoff = Backoff(LONGEST_PAUSE)
        while not self._stopping.is_set():
            if not (room := slots.room):
                await slots.wait_for_room()
                continue
            try:
                await self._claim(slots, room, group)
            except JobledgerError as error:
                if isinstance(error, MessageTooLarge):
                    # Its jobs are claimable again when their leases have expired.
                    slots.claim_less(room)
                elif not is_transient(error):
                    raise
                pause = backoff.pause(error)
                _logger.warning("claim failed (%s); next try in %.1f s", error, pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
            else:
                backoff.reset()

    async def _claim(self, slots: Slots, room: int, group: asyncio.TaskGroup) -> None:
        sent = time.monotonic()
        claim = asyncio.create_task(
            self._client.claim_jobs(
                slots.job_types,
                max_jobs=room,
                lease_duration=self._lease,
                wait=self._wait,
                worker_id=self._worker_id,
            )
        )
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({claim, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not claim.done():
                await asyncio.wait({claim}, timeout=LAST_CLAIM)
        finally:
            stopping.cancel()
            claim.cancel()
            await asyncio.wait({claim, stopping})
        if not claim.cancelled():
            for job in claim.result():
                run = self._prepare(job, sent)
                slots.fill(run)
                group.create_task(_run(run, slots), name=f"jobledger-{job.id}")

    def _prepare(self, job: Job, sent: float) -> JobRun:
        lease = Lease(self._lease, sent)
        answered = time.monotonic()
        if lease.renew_at <= answered:
            # The claim has waited for the job; when in that time the lease began,
            # only the service knows. The first renewal shows.
            lease.renewed(answered)
            lease.renew_now()
        run = JobRun(
            self._client,
            self._reporter,
            job,
            self._handlers[job.job_type],
            lease,
            worker_id=self._worker_id,
            state=self._state,
        )
        if self._stopping.is_set():
            run.shut_down()
        return run


async def _run(run: JobRun, slots: Slots) -> None:
    try:
        await run.run()
    except Exception:
        _logger.exception("job %s: a bug", run.job.id)
    finally:
        slots.free(run)
