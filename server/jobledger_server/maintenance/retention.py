"""Retention: purges old jobs, and compacts old deletions in the feed.

Every server runs it, without a leader. Whether to purge a job is decided under its lock, by
the database's clock.
"""

import asyncio
import logging
import random
from collections.abc import Sequence

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Purge
from jobledger_server.domain.errors import DomainError
from jobledger_server.domain.job import JobId, Micros
from jobledger_server.domain.retention import Finished
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import JobQuery, Store, StoreError
from jobledger_server.tuning import Tuning

PAUSE = 0.25
"""Pause after each batch, as a part of the time that it took."""

log = logging.getLogger("jobledger.retention")


class Retention:
    """Purges terminal jobs, and then compacts their deletions.

    Args:
        store: The database.
        ledger: Applies the purges.
        jobs: How long a job stays terminal before it is purged, unless its type has a retention of
            its own. None: indefinitely.
        deletions: How long a deletion stays in the feed.
        tuning: How often it looks, and how much it does at once.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        *,
        jobs: Micros | None,
        deletions: Micros,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._jobs = jobs
        self._deletions = deletions
        self._tuning = tuning
        self._batch = tuning.purge_least
        self._epoch = ""
        self._start_over()

    def _start_over(self) -> None:
        self._through = 0  # no job to purge is left up to this sequence number of the epoch
        self._later: list[Finished] = []  # but for these, the first to be purged first
        self._forgotten = False  # and others, of which there were too many

    async def run(self) -> None:
        """Poll until cancelled."""
        pause = 0.1
        while True:
            # Jitter, so that many servers do not poll at the same moment.
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311
            pause = self._tuning.purge_seconds
            try:
                if await self.purge_some():
                    pause = 0.0
            except StoreError as error:
                log.warning("retention_scan_failed", extra={"cause": repr(error)})
            except Exception:
                log.exception("retention_scan_failed")

    async def purge_some(self) -> bool:
        """Purge and compact some; return whether there may be more to do."""
        outlived = await self._store.find_outlived(limit=self._tuning.purge_search)
        await self._submit(outlived)
        purged, more = (0, False) if self._jobs is None else await self._purge(self._jobs)
        purged += len(outlived)
        more |= len(outlived) == self._tuning.purge_search
        most = self._tuning.compacted_deletions
        compacted = await self._store.compact_deletions(self._deletions, limit=most)
        if purged or compacted:
            log.info("old_jobs_purged", extra={"jobs": purged, "deletions": compacted})
        return more or compacted == most

    async def _purge(self, age: Micros) -> tuple[int, bool]:
        """Purge what one search finds; return how many jobs, and whether there may be more."""
        epoch = (await self._store.feed_head()).epoch
        if epoch != self._epoch:
            self._epoch = epoch
            self._start_over()
        old = await self._store.find_purgeable(
            age, after=self._through, limit=self._tuning.purge_search
        )
        due = [job_id for time, job_id in self._later if time < old.before]
        due = due[: self._tuning.purge_search]
        await self._submit([*old.jobs, *due])
        self._through = old.through
        self._remember(sorted([*self._later[len(due) :], *old.later]))
        return len(old.jobs) + len(due), old.more or len(due) == self._tuning.purge_search

    async def _submit(self, jobs: Sequence[JobId]) -> None:
        """Purge these jobs, groups with their children."""
        purges = [Purge(job_id=job_id, age=self._jobs) for job_id in jobs]
        for group_id in await self._submit_all(purges):
            await self._purge_children(group_id)
            await self._submit_all([Purge(job_id=group_id, age=self._jobs, childless=True)])

    async def _purge_children(self, group_id: JobId) -> None:
        query = JobQuery(user_id=None, group_id=group_id)
        before: JobId | None = None
        while True:
            page = await self._store.list_jobs(
                query, before=before, limit=self._tuning.purge_search
            )
            purges = [Purge(job_id=each.id, age=None, with_group=True) for each in page.jobs]
            for inner in await self._submit_all(purges):
                await self._purge_children(inner)
                last = Purge(job_id=inner, age=None, childless=True, with_group=True)
                await self._submit_all([last])
            before = page.next_before
            if before is None:
                return

    async def _submit_all(self, purges: Sequence[Purge]) -> Sequence[JobId]:
        """Purge these jobs in batches; return the groups that have to wait for their children."""
        loop = asyncio.get_running_loop()
        least, most = self._tuning.purge_least, self._tuning.purge_batch
        groups: list[JobId] = []
        processed = self._ledger.processed
        while purges:
            began = loop.time()
            part, purges = purges[: self._batch], purges[self._batch :]
            for outcome in await self._ledger.submit(part, SERVICE):
                # A job may have been deleted since the search.
                if isinstance(outcome, Exception) and not isinstance(outcome, DomainError):
                    raise outcome
                if not isinstance(outcome, Exception):
                    groups += [
                        each.job.id
                        for each in outcome
                        if each.job.children is not None and not each.deleted
                    ]
            # As many as callers had commands since the last batch: callers wait about twice as
            # long at most. The purges keep up with creations, because a job takes several commands.
            calls = self._ledger.processed - processed - len(part)
            processed += calls + len(part)
            size = max(least, calls) if calls else self._batch + least
            self._batch = min(most, size)
            # Some of the time is left to callers.
            await asyncio.sleep((loop.time() - began) * PAUSE)
        return groups

    def _remember(self, later: Sequence[Finished]) -> None:
        """Keep the jobs that were passed over, as many as may be. The rest is found again."""
        most = self._tuning.later_purges
        self._later = list(later[:most])
        self._forgotten |= len(later) > most
        if self._forgotten and not self._later:
            self._start_over()
