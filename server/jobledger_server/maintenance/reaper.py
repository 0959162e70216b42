"""The reaper: fails or requeues the jobs whose deadline has passed.

Every server runs one, without a leader. Each skips the jobs that another one has locked, so they
share the work. The decision is made under the job's lock and by the database's clock, like every
other decision.
"""

import asyncio
import logging

from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.whenever import whenever
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.reaper")


class Reaper:
    """Expires overdue jobs.

    `wanted` is set where there are some.
    """

    def __init__(self, ledger: Ledger, tuning: Tuning = Tuning()) -> None:
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
        return await self._ledger.expire(limit=self._batch)
