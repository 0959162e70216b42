"""The promoter: puts jobs into their queues that may go on, and wakes claims that wait for them.

A scheduled job goes on when its time comes, a blocked one when its concurrency key has a free slot.
Every server runs a promoter, without a leader. The claims that wait at other servers are woken too:
each promoter asks how many jobs are ready, whoever made them so: when a server says that there are
some, and regularly. So it also makes up for a wake-up that was lost, and for a server that died
before it looked.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence

from jobledger_server.domain.job import Phase
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.due_jobs import make_due_ready
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.unblocking import unblock
from jobledger_server.store import QueueNews, Store, StoreError
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.promoter")


class Promoter:
    """Polls for jobs that may go on, and for jobs that waiting claims may have."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        claim_waiters: ClaimWaiters,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._waiters = claim_waiters
        self._tuning = tuning
        self._looked_at = ""  # the concurrency key after which others are looked at next

    async def run(self) -> None:
        """Poll until cancelled, and at once when the ledger asks for it."""
        loop = asyncio.get_running_loop()
        while True:
            # Jitter, so that many servers do not poll at the same moment.
            pause = self._tuning.promote_seconds * random.uniform(0.75, 1.25)  # noqa: S311
            begin = loop.time()
            try:
                if await self.step():  # there is more to do
                    # As long as the step took: others have half of the database's time.
                    pause = min(pause, loop.time() - begin)
            except StoreError as error:
                # What there is to do stays so until the next poll.
                log.warning("promotion_failed", extra={"cause": repr(error)})
            except Exception:
                # A bug, but one that must not stop the promoter.
                log.exception("promotion_failed")
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Wait, but look at concurrency keys as soon as one may have a free slot."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._ledger.recheck.wait()
            except TimeoutError:
                return
            try:
                if await self.unblock():
                    return
            except StoreError as error:
                log.warning("promotion_failed", extra={"cause": repr(error)})
            except Exception:
                log.exception("promotion_failed")

    async def follow(self) -> None:
        """Look whenever another server says that jobs are ready, until cancelled."""
        while True:
            await self._waiters.ready_elsewhere.wait()
            self._waiters.ready_elsewhere.clear()
            try:
                for part in self._awaited():
                    await self._look(part)
            except StoreError as error:
                # The next regular poll looks again.
                log.warning("promotion_failed", extra={"cause": repr(error)})
            except Exception:
                log.exception("promotion_failed")

    async def step(self) -> bool:
        """Do what there is to do; return whether there is more."""
        more = False
        for number, part in enumerate(self._awaited() or [[]]):
            news = await self._look(part)
            if number == 0 and news.due:
                more = await self.promote() == self._tuning.promote_batch
            if number == 0 and news.recheck:
                more |= await self.unblock()
        return more

    def _awaited(self) -> Sequence[Sequence[str]]:
        """Return the types that claims here wait for, in parts for one query each."""
        names, size = list(self._waiters.awaited()), self._tuning.awaited_types
        return [names[i : i + size] for i in range(0, len(names), size)]

    async def _look(self, job_types: Sequence[str]) -> QueueNews:
        """Wake claims for the jobs of these types that are ready; return what else is new."""
        news = await self._store.queue_news(job_types)
        if news.config_version != self._ledger.known_limits.version:
            await self._ledger.known_limits.refresh()
        for job_type, count in news.ready.items():
            if not self._ledger.known_limits.is_paused(job_type):
                self._waiters.wake(job_type, count)
        return news

    async def promote(self) -> int:
        """Make some scheduled jobs ready that are due; return how many were found."""
        known, most = self._ledger.known_limits, self._tuning.promote_batch
        due = await make_due_ready(self._store, known, most=most)
        ready = Counter(job.job_type for job in due if job.phase is Phase.READY)
        for job_type, count in ready.items():
            self._waiters.offer(job_type, count)
        if any(job.concurrency_key for job in due):
            self._ledger.recheck.set()
        return len(due)

    async def unblock(self) -> bool:
        """Look at some concurrency keys that may have a free slot.

        They take turns: a key may have jobs to make ready for long, as their workers start them.

        Returns:
            Whether there is more to do.
        """
        self._ledger.recheck.clear()
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
