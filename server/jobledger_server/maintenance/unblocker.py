"""The unblocker: puts blocked jobs into their queues when their concurrency key has a free slot.

Most slots that become free are handed on in the same commit; see ledger/unblocking.py. This does
the rest. Every server has an unblocker, without a leader.
"""

import logging

from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.unblocking import unblock
from jobledger_server.maintenance.whenever import whenever
from jobledger_server.store import Store
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.promoter")


class Unblocker:
    """Looks at the concurrency keys that may have a free slot."""

    def __init__(
        self, store: Store, ledger: Ledger, claim_waiters: ClaimWaiters, tuning: Tuning = Tuning()
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._waiters = claim_waiters
        self._tuning = tuning
        self._looked_at = ""  # the concurrency key after which others are looked at next

    async def run(self) -> None:
        """Look whenever `recheck` of the ledger is set, until cancelled."""
        await whenever(self._ledger.recheck, self.unblock, log, "promotion_failed")

    async def unblock(self) -> bool:
        """Look at some concurrency keys that may have a free slot.

        They take turns: a key may have jobs to make ready for long, as their workers start them.

        Returns:
            Whether there is more to do.
        """
        limit, most = self._tuning.rechecked_keys, self._tuning.unblocked_jobs
        keys = await self._store.find_rechecks(after=self._looked_at, limit=limit)
        self._looked_at = keys[-1] if len(keys) == limit else ""
        more = len(keys) == limit
        for key in keys:
            found = await unblock(self._store, self._ledger.known_limits, key, most=most)
            more |= found.total() >= most
            for job_type, count in found.items():
                self._waiters.offer(job_type, count)
        return more
