"""The promoter: puts jobs into their queues whose time has come.

Every server runs one, without a leader: a job that two of them find is locked by one, and passed
over by the other.
"""

import asyncio
import logging

from jobledger_server.domain.job import Phase
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.due_jobs import make_due_ready
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.whenever import whenever
from jobledger_server.store import Store
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.promoter")


class Promoter:
    """Makes scheduled jobs ready that are due.

    `wanted` is set where there are some.
    """

    def __init__(
        self, store: Store, ledger: Ledger, claim_waiters: ClaimWaiters, tuning: Tuning = Tuning()
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._waiters = claim_waiters
        self._batch = tuning.promote_batch
        self.wanted = asyncio.Event()

    async def run(self) -> None:
        """Promote whenever it is wanted, until cancelled."""

        async def step() -> bool:
            return await self.promote() == self._batch

        # What is due stays so until the lookout sees it again.
        await whenever(self.wanted, step, log, "promotion_failed")

    async def promote(self) -> int:
        """Make some jobs ready that are due; return how many were found."""
        due = await make_due_ready(self._store, self._ledger.known_limits, most=self._batch)
        for job in due:
            if job.phase is Phase.READY:
                self._waiters.hand_on(job)
        if any(job.concurrency_key for job in due):
            self._ledger.recheck.set()
        return len(due)
