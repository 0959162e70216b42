"""The lookout: asks the database regularly what there is to do, and says so to those who do it.

Time makes jobs overdue or due, and other servers commit changes, free slots and make jobs ready.
Every server has a lookout, and all of that is one question, so that an idle server costs little. It
also makes up for a notification that was lost, and for a server that died before it acted.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.whenever import whenever
from jobledger_server.store import FeedHead, News, Store, StoreError
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.lookout")


class Lookout:
    """Looks for what there is to do.

    Args:
        store: The database.
        ledger: Is told when the database answers, and of keys that may have a free slot.
        claim_waiters: Are woken for jobs that are ready.
        overdue: Is set when the deadlines of jobs have passed.
        due: Is set when scheduled jobs are due.
        heard: Receives the feed's head, and the time of the loop at which it was asked for.
        tuning: How often it looks, and for how many types at once.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        claim_waiters: ClaimWaiters,
        *,
        overdue: asyncio.Event,
        due: asyncio.Event,
        heard: Callable[[FeedHead, float], None],
        tuning: Tuning = Tuning(),
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._waiters = claim_waiters
        self._overdue = overdue
        self._due = due
        self._heard = heard
        self._tuning = tuning

    async def run(self) -> None:
        """Look regularly until cancelled."""
        while True:
            # Jitter, so that many servers do not look at the same moment.
            await asyncio.sleep(self._tuning.look_seconds * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                await self.look()
            except StoreError as error:
                # What there is to do stays so until the next look.
                log.warning("look_failed", extra={"cause": repr(error), "count": 1})
            except Exception:
                # A bug, but one that must not stop the lookout.
                log.exception("look_failed")

    async def look(self) -> None:
        """Ask what there is to do, and say so."""
        asked_at = asyncio.get_running_loop().time()
        first, *others = self._awaited() or [[]]
        try:
            news = await self._wake(first)
        except StoreError:
            self._ledger.outages.failed()
            raise
        self._ledger.outages.answered(news.now)
        self._heard(news.head, asked_at)
        for found, wanted in (
            (news.overdue, self._overdue),
            (news.due, self._due),
            (news.recheck, self._ledger.recheck),
        ):
            if found:
                wanted.set()
        for part in others:
            await self._wake(part)

    async def follow(self) -> None:
        """Wake claims whenever another server says that jobs are ready, until cancelled.

        After each look it pauses, for longer the more queries that took, but no longer than until
        the next regular look. What is said meanwhile leads to one more look.
        """

        async def wake() -> bool:
            parts = self._awaited()
            for part in parts:
                await self._wake(part)
            pause = len(parts) * self._tuning.wake_seconds
            await asyncio.sleep(min(pause, self._tuning.look_seconds))
            return False

        await whenever(self._waiters.ready_elsewhere, wake, log, "look_failed")

    def _awaited(self) -> Sequence[Sequence[str]]:
        """Return the types that claims here wait for, in parts for one query each."""
        names, size = list(self._waiters.awaited()), self._tuning.awaited_types
        return [names[i : i + size] for i in range(0, len(names), size)]

    async def _wake(self, job_types: Sequence[str]) -> News:
        """Wake claims for the jobs of these types that are ready; return what else is new."""
        news = await self._store.news(job_types)
        if news.config_version != self._ledger.known_limits.version:
            await self._ledger.known_limits.refresh()
        for job_type, count in news.ready.items():
            if not self._ledger.known_limits.is_paused(job_type):
                self._waiters.wake(job_type, count)
        return news
