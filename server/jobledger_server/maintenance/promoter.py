"""The promoter: makes jobs claimable whose time has come, and wakes the claims that wait for them.

Every server runs one, without a leader. A job that is due is promoted by one of them, and the
claims that wait at the others are woken too: each promoter asks whether there is a job for them,
whoever made it claimable. So it also makes up for a wake-up that was lost.
"""

import asyncio
import logging
import random
from collections import Counter

from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.store import Store, StoreError

BATCH = 200
"""Jobs promoted together, and claims woken: few, so that callers' commands do not wait long."""

TYPES = 100
"""Job types that one query for claimable jobs names at most."""

PROMOTE_SECONDS = 0.5
"""Interval between polls while no job is due."""

log = logging.getLogger("jobledger.promoter")


class Promoter:
    """Polls for jobs that are due, and for jobs that waiting claims may have."""

    def __init__(self, store: Store, claim_waiters: ClaimWaiters) -> None:
        self._store = store
        self._waiters = claim_waiters

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            # Jitter, so that many servers do not poll at the same moment.
            pause = PROMOTE_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311
            begin = loop.time()
            try:
                promoted = await self.promote()
                # Also between the steps for many jobs: other servers promote some of them.
                woken = await self.wake()
                if max(promoted, woken) >= BATCH:  # there are more
                    # As long as the step took: others have half of the database's time.
                    pause = min(pause, loop.time() - begin)
            except StoreError as error:
                # The jobs stay due until the next poll.
                log.warning("promotion_failed", extra={"cause": repr(error)})
            except Exception:
                # A bug, but one that must not stop the promoter.
                log.exception("promotion_failed")
            await asyncio.sleep(pause)

    async def promote(self) -> int:
        """Promote jobs that are due, at most BATCH, and wake claims; return how many they were."""
        promoted = await self._store.promote(limit=BATCH)
        for job_type, count in promoted.items():
            self._waiters.wake(job_type, count)
        return sum(promoted.values())

    async def wake(self) -> int:
        """Wake a waiting claim for each job that it may have; return how many jobs there are."""
        woken = 0
        awaited = list(self._waiters.awaited().items())
        for first in range(0, len(awaited), TYPES):
            limits = {
                job_type: min(count, BATCH) for job_type, count in awaited[first : first + TYPES]
            }
            limit = min(sum(limits.values()), BATCH)
            found = await self._store.find_claimable(limits, limit=limit)
            for job_type, count in Counter(job.job_type for job in found).items():
                self._waiters.wake(job_type, count)
            woken += len(found)
        return woken
