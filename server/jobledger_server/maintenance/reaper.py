"""The reaper: fails or requeues the jobs whose deadline has passed.

Every server runs one, without a leader. Several reapers may find the same job: the decision
is made under the job's lock and by the database's clock, like every other decision.
"""

import asyncio
import logging

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Expire
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.whenever import whenever
from jobledger_server.store import Store
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.reaper")


class Reaper:
    """Expires overdue jobs.

    `wanted` is set where there are some.
    """

    def __init__(self, store: Store, ledger: Ledger, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._ledger = ledger
        self._batch = tuning.reap_batch
        self.wanted = asyncio.Event()

    async def run(self) -> None:
        """Expire whenever it is wanted, until cancelled."""

        async def step() -> bool:
            return await self.reap() == self._batch

        # The jobs stay overdue until the lookout sees them again.
        await whenever(self.wanted, step, log, "expiry_scan_failed")

    async def reap(self) -> int:
        """Expire some overdue jobs; return how many were found."""
        overdue = await self._store.overdue(limit=self._batch)
        self._ledger.outages.answered(overdue.now)
        expiries = [Expire(job_id=job_id) for job_id in overdue.jobs]
        for outcome in await self._ledger.submit(expiries, SERVICE):
            # A job may have been deleted since the query.
            if isinstance(outcome, Exception) and not isinstance(outcome, JobNotFound):
                raise outcome
        return len(overdue.jobs)
