"""The reaper: fails or requeues the jobs whose deadline has passed.

Every server runs one, without a leader. Several reapers may find the same job: the decision
is made under the job's lock and by the database's clock, like every other decision.
"""

import asyncio
import logging
import random

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Expire
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import Overdue, Store, StoreError
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.reaper")


class Reaper:
    """Polls for overdue jobs and expires them."""

    def __init__(self, store: Store, ledger: Ledger, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._ledger = ledger
        self._tuning = tuning

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            # Jitter, so that many servers do not poll at the same moment.
            await asyncio.sleep(self._tuning.reap_seconds * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                while await self.reap() == self._tuning.reap_batch:
                    pass
            except StoreError as error:
                # The jobs stay overdue until the next poll.
                log.warning("expiry_scan_failed", extra={"cause": repr(error)})
            except Exception:
                # A bug, but one that must not stop the reaper.
                log.exception("expiry_scan_failed")

    async def reap(self) -> int:
        """Expire some overdue jobs; return how many were found."""
        overdue = await self._overdue()
        expiries = [Expire(job_id=job_id) for job_id in overdue.jobs]
        for outcome in await self._ledger.submit(expiries, SERVICE):
            # A job may have been deleted since the query.
            if isinstance(outcome, Exception) and not isinstance(outcome, JobNotFound):
                raise outcome
        return len(overdue.jobs)

    async def _overdue(self) -> Overdue:
        """Find overdue jobs, and record whether the database answers."""
        try:
            overdue = await self._store.overdue(limit=self._tuning.reap_batch)
        except StoreError:
            self._ledger.outages.failed()
            raise
        self._ledger.outages.answered(overdue.now)
        return overdue
