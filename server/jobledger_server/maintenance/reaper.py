"""The reaper: sees to it that what is due by time is done, on every server alike.

No leader. Any number of reapers may say of the same job that it is due: the
decision is made under the job's lock, by the same rules as every other, and by
the database's clock.
"""

import asyncio
import logging
import random

from jobledger_server.domain.commands import Expire
from jobledger_server.domain.errors import JobNotFound, LimitExceeded
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import Overdue, Store, StoreError

BATCH = 100
"""Jobs looked at together: few, so that what callers ask for is not held up."""

PAUSE_SECONDS = 0.5
"""Between looks while nothing is due."""

log = logging.getLogger("jobledger.reaper")


class Reaper:
    """Ends, or gives on, the jobs whose deadline has passed."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            # Jitter, so that many servers do not look at the same moment.
            await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                while await self.reap() == BATCH:
                    pass
            except (StoreError, LimitExceeded) as error:
                # The database is away, or busy: what is due stays due.
                log.warning("expiry_scan_failed", extra={"cause": repr(error)})
            except Exception:
                # A bug, but one that must not leave every job without an end.
                log.exception("expiry_scan_failed")

    async def reap(self) -> int:
        """Do what is due, at most BATCH jobs; return how many were found."""
        due = await self._overdue()
        expiries = (self._ledger.apply(Expire(job_id=job_id)) for job_id in due.jobs)
        for outcome in await asyncio.gather(*expiries, return_exceptions=True):
            # A job that was deleted meanwhile is no error.
            if isinstance(outcome, BaseException) and not isinstance(outcome, JobNotFound):
                raise outcome
        return len(due.jobs)

    async def _overdue(self) -> Overdue:
        """Poll for what is due, and record whether the database answers."""
        try:
            due = await self._store.overdue(limit=BATCH)
        except StoreError:
            self._ledger.outages.failed()
            raise
        self._ledger.outages.answered(due.now)
        return due
