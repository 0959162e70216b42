"""Claims: starts attempts of claimable jobs for the workers that claim them, oldest first.

Claims have transactions of their own, so that a creation or a report never waits for more
than one short commit. Claims that arrive together are served together. One read without
locks finds claimable jobs for all of them; if there are none, which is the usual answer to
a poll, no transaction begins. The jobs are allocated to the claims by type and size, and
one transaction loads and starts exactly these jobs.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from jobledger_server.domain.leases import claim
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.allocation import Allocation, allocate
from jobledger_server.ledger.batcher import Batcher, Observe
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import Change, Claimable, Store, StoreError

MAX_BATCH = 100
"""Weight of the claims that are served together. A claim's weight is the number of its job types or
of the jobs that it requests, whichever is greater."""

USUAL_WEIGHT = 10
"""The weight of a usual claim, for the limit of waiting claims."""

PAUSE_SECONDS = 0.005
"""How much later a batch that found no job is answered, if a full one waits. Otherwise callers that
poll and find nothing, one poll after the other, would take all of the event loop."""

MAX_LOST_RACES = 3
"""After this many lost races in a row against other servers, claims are answered with no jobs."""


class Claims:
    """Serves claims. The end of its `async with` block drains it.

    Args:
        store: The database.
        committed: Called with the changes of each commit, before a claim is answered.
        failed: Called with each error of the store, and the number of claims that it fails.
        max_waiting: Claims of usual weight that may wait to be served.
        share: The fraction of it that one caller may use, up to 1.
        observe: Observes the outcome of each claim.
    """

    def __init__(
        self,
        store: Store,
        committed: Callable[[Sequence[Change]], None],
        failed: Callable[[StoreError, int], None],
        *,
        max_waiting: int,
        share: float = 1.0,
        observe: Observe[Allocation, Sequence[Decision]] | None = None,
    ) -> None:
        self._store = store
        self._committed = committed
        self._failed = failed
        # Whether other servers claim the same jobs at the moment. If they do, planned jobs are
        # often gone when they are loaded, so the transaction searches again for unlocked ones.
        self._contended = False
        self.batcher: Batcher[Allocation, Sequence[Decision]] = Batcher(
            "claims",
            self._serve,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting * USUAL_WEIGHT,
            share=share,
            weigh=_weigh,
            observe=observe,
        )

    async def __aenter__(self) -> Self:
        await self.batcher.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.batcher.__aexit__(kind, error, trace)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that claims. None before the `async with` block."""
        return self.batcher.task

    async def _serve(
        self, allocations: Sequence[Allocation]
    ) -> Sequence[Sequence[Decision] | Exception]:
        try:
            await self._fill(allocations)
        except Exception as error:  # noqa: BLE001
            if isinstance(error, StoreError):
                self._failed(error, sum(not each.decisions for each in allocations))
            # Jobs that were started before the error belong to their workers.
            return [each.decisions or error for each in allocations]
        crowded = self.batcher.held >= sum(map(_weigh, allocations)) + MAX_BATCH
        if crowded and not any(each.decisions for each in allocations):
            await asyncio.sleep(PAUSE_SECONDS)
        return [each.decisions for each in allocations]

    async def _fill(self, allocations: Sequence[Allocation]) -> None:
        lost_races = 0
        while lost_races < MAX_LOST_RACES:
            # A claim is served once it has any job, even if it requested more.
            unserved = [each for each in allocations if not each.decisions and each.wanted()]
            planned = await self._plan(unserved)
            unserved = [each for each in unserved if each.wanted()]  # some left during the read
            if not planned or not unserved:
                return
            started = await retry_if_stale(partial(self._start, unserved, planned))
            lost_races = 0 if started else lost_races + 1

    async def _plan(self, allocations: Sequence[Allocation]) -> Sequence[Claimable]:
        """Return the jobs to start, as the claims know them or a read without locks sees them."""
        known = {each.oldest.id: each.oldest for each in allocations if each.oldest is not None}
        if len(known) < len(allocations):
            known.clear()
        for each in allocations:
            each.oldest = None  # if it is gone, the next plan is a read
        if known:
            return list(known.values())
        limits: Counter[str] = Counter()
        requested = 0
        for each in allocations:
            requested += each.command.max_jobs
            for job_type in each.command.job_types:
                limits[job_type] += each.command.max_jobs
        if not requested:
            return ()
        found = await retry_if_stale(partial(self._store.find_claimable, limits, limit=requested))
        return [job for job, _ in allocate(found, allocations)]

    async def _start(self, allocations: Sequence[Allocation], planned: Sequence[Claimable]) -> bool:
        """Start the planned jobs that others have neither locked nor started.

        Returns:
            Whether any job was started.
        """
        async with self._store.transaction() as transaction:
            found = planned
            if self._contended:
                limits = Counter(job.job_type for job in planned)
                found = await transaction.find_claimable(limits, limit=len(planned))
                self._contended = found != planned
            allocated = allocate(found, allocations)
            jobs = await transaction.load_claimed([job.id for job, _ in allocated])
            self._contended |= len(jobs) < len(allocated)
            now = await transaction.now()
            decided = [
                (decision, allocation)
                for claimable, allocation in allocated
                if (found_job := jobs.get(claimable.id)) is not None
                and (decision := claim(found_job.job, allocation.command, now)) is not None
            ]
            if not decided:
                return False
            changes = await transaction.append([decision for decision, _ in decided], last=True)
        for decision, allocation in decided:
            payloads = jobs[decision.job.id].payloads
            allocation.decisions.append(replace(decision, payloads=payloads))
        self._committed(changes)
        return True


def _weigh(allocation: Allocation) -> int:
    command = allocation.command
    return max(len(command.job_types), command.max_jobs)
