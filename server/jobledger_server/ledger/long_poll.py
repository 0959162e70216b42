"""Claims that wait: ask, wait for a wake-up, ask again; nothing is lost if the caller leaves."""

import asyncio
import logging

from jobledger_server.admission.admission import CALLER, SERVICE
from jobledger_server.domain.commands import Claim, Release
from jobledger_server.domain.job import Job
from jobledger_server.ledger.claim_waiters import Openings
from jobledger_server.ledger.ledger import Ledger

log = logging.getLogger("jobledger.claims")


class Claims:
    """Long polls for jobs."""

    def __init__(self, ledger: Ledger, openings: Openings) -> None:
        self._ledger = ledger
        self._openings = openings
        self._releasing: set[asyncio.Task[None]] = set()

    async def claim(self, command: Claim, wait: float) -> list[Job]:
        """Return jobs as soon as there are any, none after `wait` seconds or when draining."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        with self._openings.seeking(command.job_types) as seeker:
            while True:
                seeker.rest()
                jobs = await self._claim_or_return(command)
                left = deadline - loop.time()
                if jobs or left <= 0 or self._openings.draining:
                    return jobs
                await seeker.wait(left)

    async def finish(self) -> None:
        """Return when everything that was claimed for callers who left is released."""
        if self._releasing:
            await asyncio.wait(self._releasing)

    async def _claim_or_return(self, command: Claim) -> list[Job]:
        claiming = asyncio.ensure_future(self._ledger.claim(command))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The caller is gone, its claim is on its way: without this, what it gets would be
            # nobody's until the lease expires, and an attempt lost.
            releasing = asyncio.create_task(self._release(claiming))
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)
            raise

    async def _release(self, claiming: asyncio.Future[list[Job]]) -> None:
        CALLER.set(SERVICE)  # no limit of the caller's may stand in the way
        try:
            jobs = await claiming
        except Exception:  # noqa: BLE001
            return  # nothing was claimed
        releases = [self._ledger.apply(Release(job_id=job.id, attempt=job.attempt)) for job in jobs]
        for job, outcome in zip(
            jobs, await asyncio.gather(*releases, return_exceptions=True), strict=True
        ):
            if isinstance(outcome, BaseException):
                facts = {"job": job.id, "attempt": job.attempt, "cause": repr(outcome)}
                log.warning("release_failed", extra=facts)
