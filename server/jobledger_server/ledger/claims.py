"""Claims: starts attempts of ready jobs for the workers that claim them.

Claims have transactions of their own, so that a creation or a report never waits for more
than one short commit. Claims that arrive together are served together. A read without
locks finds the jobs that go next for all of them; if there are none, which is the usual answer
to a poll, no transaction begins. The jobs are allocated to the claims by type and size, and
one transaction loads and starts exactly these jobs, or takes those out of their queues whose
concurrency key is at its limit.

That is one step. A claim that got no job, although there were some, queues again for a further
step. So claims that pass over thousands of blocked jobs do not hold up the others.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.domain.queues import KeyState, block, claim_or_block
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.allocation import JOB_BYTES, Allocation, allocate
from jobledger_server.ledger.batcher import AGAIN, Batcher, Observe, Unfinished
from jobledger_server.ledger.groups import Changed, note, recount_groups
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import Change, Claimable, Outdated, Store, StoredJob, StoreError
from jobledger_server.tuning import Tuning

USUAL_WEIGHT = 10
"""The weight of a usual claim, for the limit of waiting claims."""

MAX_LOST_RACES = 3
"""After this many lost races in a row against other servers, a claim is answered with no jobs."""


class Claims:
    """Serves claims. The end of its `async with` block drains it.

    Args:
        store: The database.
        known: What this server knows of pauses and limits.
        committed: Called with the changes of each commit, before a claim is answered.
        failed: Called with each error of the store, and the number of claims that it fails.
        max_waiting: Claims of usual weight that may wait to be served.
        share: The fraction of it that one caller may use, up to 1.
        observe: Observes the outcome of each claim.
        tuning: How much is served and read together.
    """

    def __init__(
        self,
        store: Store,
        known: KnownLimits,
        committed: Callable[[Sequence[Change]], None],
        failed: Callable[[StoreError, int], None],
        *,
        max_waiting: int,
        share: float = 1.0,
        observe: Observe[Allocation, Sequence[Decision]] | None = None,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._tuning = tuning
        self._pause_seconds = tuning.claim_pause_seconds
        self._store = store
        self._known = known
        self._committed = committed
        self._failed = failed
        # Whether other servers claim the same jobs at the moment. If they do, planned jobs are
        # often gone when they are loaded, so the transaction searches again for unlocked ones.
        self._contended = False
        self._steps = 0
        self.batcher: Batcher[Allocation, Sequence[Decision]] = Batcher(
            "claims",
            self._serve,
            max_batch=tuning.claim_batch,
            linger_ticks=tuning.linger_ticks,
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
    ) -> Sequence[Sequence[Decision] | Exception | Unfinished]:
        try:
            again = await self._step(allocations)
        except Exception as error:  # noqa: BLE001
            if isinstance(error, StoreError):
                self._failed(error, sum(not each.decisions for each in allocations))
            # Jobs that were started before the error belong to their workers.
            return [each.decisions or error for each in allocations]
        crowded = self.batcher.held >= sum(map(_weigh, allocations)) + self._tuning.claim_batch
        if crowded and not again and not any(each.decisions for each in allocations):
            await asyncio.sleep(self._pause_seconds)
        return [AGAIN if each in again else each.decisions for each in allocations]

    async def _step(self, allocations: Sequence[Allocation]) -> Collection[Allocation]:
        """Search and start jobs once; return the claims that have to be served again.

        A claim is served once it has any job, even if it requested more.
        """
        if self._known.version < 0:
            await retry_if_stale(self._known.refresh)
        # That of the plan: others may learn of a pause before the jobs are started.
        version = self._known.version
        groups, later = _groups([each for each in allocations if each.wanted()])
        planned: dict[JobId, Claimable] = {}
        found: list[Allocation] = []
        for group in groups:
            jobs = await self._plan(group)
            planned.update((job.id, job) for job in jobs)
            found += group if jobs else ()
        unserved = [each for each in found if each.wanted()]  # some left during the read
        if not unserved:
            return later
        try:
            start = partial(self._start, unserved, list(planned.values()), version)
            decided, passed = await retry_if_stale(start)
        except Outdated:
            await self._known.refresh()
            return {*later, *unserved}
        self._steps += 1
        for each in unserved:
            each.tried = self._steps
            each.lost_races = 0 if decided else each.lost_races + 1
            types = each.command.job_types
            each.passed += sum(count for name, count in passed.items() if name in types)
        most = self._tuning.passed_jobs
        return {
            *later,
            *(
                each
                for each in unserved
                if not each.decisions and each.lost_races < MAX_LOST_RACES and each.passed < most
            ),
        }

    async def _plan(self, allocations: Sequence[Allocation]) -> Sequence[Claimable]:
        """Return the jobs to start, as the claims know them or a read without locks sees them.

        As many more are found as were passed over so far, so that many blocked jobs, or those of
        queues that others claim from, take few steps.
        """
        oldest = [each.oldest for each in allocations if each.oldest is not None]
        known = {job.id: job for job in oldest if not self._known.is_paused(job.job_type)}
        if len(known) < len(allocations):
            known.clear()
        for each in allocations:
            each.oldest = None  # if it is gone, the next plan is a read
        if known:
            return list(known.values())
        more = max((each.passed for each in allocations), default=0)
        most = self._tuning.passed_at_once if more else self._tuning.planned_jobs
        limits: Counter[str] = Counter()
        requested = 0
        for each in allocations:
            requested += each.command.max_jobs
            for job_type in each.command.job_types:
                if not self._known.is_paused(job_type):
                    wanted = limits[job_type] + each.command.max_jobs + more
                    limits[job_type] = min(wanted, most)
        if not requested or not limits:
            return ()
        limit = min(requested + more, most)
        # Otherwise a worker that claims jobs one by one would be given those of one type only.
        mixed = dict(random.sample(list(limits.items()), len(limits)))
        found = await retry_if_stale(partial(self._store.find_claimable, mixed, limit=limit))
        max_bytes = self._tuning.claim_batch_bytes
        if not more:
            return [job for job, _ in allocate(found, allocations, max_bytes=max_bytes)]
        size = 0
        for count, job in enumerate(found):
            size += JOB_BYTES + job.size
            if count and size > max_bytes:
                return found[:count]
        return found

    async def _start(
        self, allocations: Sequence[Allocation], planned: Sequence[Claimable], version: int
    ) -> tuple[bool, Counter[str]]:
        """Start the planned jobs that others have neither locked nor started.

        Args:
            allocations: The claims.
            planned: The jobs.
            version: The version of the pauses by which they were planned.

        Returns:
            Whether any job was started or blocked, and how many of each type were passed over:
            those that were blocked, and those that others have locked or started.
        """
        keys: dict[str, KeyState] = {}
        passed: Counter[str] = Counter()
        async with self._store.transaction() as transaction:
            found = planned
            if self._contended:
                found = await transaction.find_ready(planned)
                self._contended = {job.id for job in found} != {job.id for job in planned}
            jobs = await transaction.load_claimed([job.id for job in found])
            self._contended |= len(jobs) < len(found)
            now = await transaction.now()
            wanted = dict.fromkeys(each.job.concurrency_key for each in jobs.values())
            wanted.pop("", None)
            if wanted:
                keys = await transaction.lock_keys(wanted)
            max_bytes = self._tuning.claim_batch_bytes
            decided = _decide(found, jobs, allocations, keys, now, max_bytes=max_bytes)
            passed.update(job.job_type for job in planned if job.id not in jobs)
            if not decided:
                return False, passed
            decisions = [decision for decision, _ in decided]
            changed: Changed = {}
            for decision in decisions:
                note(changed, jobs[decision.job.id].job, decision.job)
            for grouped in await recount_groups(transaction, {}, changed, now):
                decisions += [grouped] if grouped.via is None else [grouped.via, grouped]
            changes = await transaction.append(decisions, config_version=version, last=True)
        for decision, allocation in decided:
            if allocation is None:
                passed[decision.job.job_type] += 1
            else:
                payloads = jobs[decision.job.id].payloads
                allocation.decisions.append(replace(decision, payloads=payloads))
        for key, state in keys.items():
            self._known.saw(key, full=not state.free)
        self._committed(changes)
        return True, passed


def _groups(
    allocations: Sequence[Allocation],
) -> tuple[Sequence[Sequence[Allocation]], Sequence[Allocation]]:
    """Return the claims to serve now, in groups that are planned apart, and those to serve later.

    The claims that were not tried yet are one group. Those that were may have to pass over many
    more jobs. So those of one set of types are served in one step, which waits longest, and the
    others wait for few jobs.
    """
    first = [each for each in allocations if not each.tried]
    tried = [each for each in allocations if each.tried]
    if not tried:
        return [first], ()
    types = min(tried, key=lambda each: each.tried).command.job_types
    now = [each for each in tried if each.command.job_types == types]
    return [now, first], [each for each in tried if each.command.job_types != types]


def _decide(
    found: Sequence[Claimable],
    jobs: Mapping[JobId, StoredJob],
    allocations: Sequence[Allocation],
    keys: dict[str, KeyState],
    now: Instant,
    *,
    max_bytes: int,
) -> list[tuple[Decision, Allocation | None]]:
    """Decide which jobs start, each for a claim, and which are blocked.

    A blocked job takes nothing from a claim: the next one that it may have takes its place.
    """
    decided: list[tuple[Decision, Allocation | None]] = []
    blocked = dict.fromkeys(
        each.job.id
        for each in jobs.values()
        if each.job.concurrency_key and not keys[each.job.concurrency_key].free
    )
    for job_id in blocked:
        decision = block(jobs[job_id].job)
        if decision.renewed:
            decided.append((decision, None))
    free = [job for job in found if job.id in jobs and job.id not in blocked]
    for claimable, allocation in allocate(free, allocations, max_bytes=max_bytes):
        started = claim_or_block(jobs[claimable.id].job, allocation.command, now, keys)
        if started is not None:
            decided.append((started, allocation if started.changed else None))
    return decided


def _weigh(allocation: Allocation) -> int:
    command = allocation.command
    return max(len(command.job_types), command.max_jobs)
