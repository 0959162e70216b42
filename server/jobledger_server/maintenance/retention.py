"""Retention: removes jobs that ended long ago, and forgets deletions that nobody asks for any more.

On every server alike, without a leader: what is due is decided under the job's
lock, by the database's clock.
"""

import asyncio
import logging
import random

from jobledger_server.domain.commands import Purge
from jobledger_server.domain.errors import JobNotFound, LimitExceeded
from jobledger_server.domain.job import Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import Store, StoreError

BATCH = 100
"""Jobs removed together: few, so that what callers ask for is not held up."""

DELETIONS = 1000
"""Deletions forgotten together."""

PAUSE_SECONDS = 60.0
"""Between looks while nothing is due."""

REST_SECONDS = 0.1
"""Between batches while something is: old jobs can wait, callers cannot."""

log = logging.getLogger("jobledger.retention")


class Retention:
    """Removes jobs that ended longer than `jobs` ago (None: never), and what is left of them."""

    def __init__(
        self, store: Store, ledger: Ledger, *, jobs: Micros | None, deletions: Micros
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._jobs = jobs
        self._deletions = deletions

    async def run(self) -> None:
        """Look until cancelled."""
        pause = REST_SECONDS
        while True:
            # Jitter, so that many servers do not look at the same moment.
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311
            pause = PAUSE_SECONDS
            try:
                if await self.purge_some():
                    pause = REST_SECONDS
            except (StoreError, LimitExceeded) as error:
                # The database is away, or busy: what is due stays due.
                log.warning("retention_scan_failed", extra={"cause": repr(error)})
            except Exception:
                log.exception("retention_scan_failed")

    async def purge_some(self) -> bool:
        """Remove some of what is due; return whether there may be more."""
        removed = await self._purge(self._jobs) if self._jobs is not None else 0
        compacted = await self._store.compact_deletions(self._deletions, limit=DELETIONS)
        if removed or compacted:
            log.info("old_jobs_purged", extra={"jobs": removed, "deletions": compacted})
        return removed == BATCH or compacted == DELETIONS

    async def _purge(self, age: Micros) -> int:
        old = await self._store.find_purgeable(age, limit=BATCH)
        removals = (self._ledger.apply(Purge(job_id=job_id, age=age)) for job_id in old)
        for outcome in await asyncio.gather(*removals, return_exceptions=True):
            # A job that was deleted meanwhile, by another server perhaps, is no error.
            if isinstance(outcome, BaseException) and not isinstance(outcome, JobNotFound):
                raise outcome
        return len(old)
