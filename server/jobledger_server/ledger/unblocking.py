"""Gives free slots of a concurrency key to the blocked jobs that go next.

As many blocked jobs are made ready as slots are free, of each type: so a type without workers
cannot keep a slot. A claim decides again, under the lock, whether one is free.

The commit that frees a slot does so itself where it can. Otherwise it marks the key, and whoever
finds the mark does it; see maintenance/unblocker.py.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from jobledger_server.domain.job import Instant, Job, JobId
from jobledger_server.domain.queues import make_ready
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.store import Store, Transaction
from jobledger_server.tuning import Tuning


class Unblocked(NamedTuple):
    """Blocked jobs that a commit makes ready.

    Attributes:
        decisions: The decisions on them.
        settled: The keys that need no further look.
    """

    decisions: Sequence[Decision] = ()
    settled: Collection[str] = ()


async def unblock_freed(
    transaction: Transaction,
    known: KnownLimits,
    held: Mapping[str, int],
    others: AbstractSet[JobId],
    now: Instant,
    *,
    tuning: Tuning = Tuning(),
) -> Unblocked:
    """Make blocked jobs ready for the slots that a commit frees.

    Args:
        transaction: The transaction, with the jobs of the commit loaded.
        known: What this server knows of limits.
        held: By concurrency key, how many more jobs are held after the commit.
        others: The jobs of the commit.
        now: The database server's time.
        tuning: How many keys are looked at, and how many jobs made ready.
    """
    freed = [key for key, more in held.items() if more < 0][: tuning.unblocked_keys]
    if not freed:
        return Unblocked()
    most = tuning.unblocked_jobs
    decisions: list[Decision] = []
    settled: list[str] = []
    for key, state in (await transaction.lock_keys(freed)).items():
        free = state.changed(held[key]).free
        known.saw(key, full=not free)
        jobs, is_settled = await _next_jobs(transaction, key, free, most)
        decisions += [make_ready(job, now) for job in jobs if job.id not in others]
        if is_settled and free <= most and others.isdisjoint(job.id for job in jobs):
            settled.append(key)
    return Unblocked(decisions, settled)


async def unblock(
    store: Store, known: KnownLimits, key: str, *, most: int = Tuning().unblocked_jobs
) -> Counter[str]:
    """Make blocked jobs of a marked key ready, about `most`; return how many, by job type.

    The mark stays if more may follow, or if another transaction has locked one of them.
    """
    async with store.transaction() as transaction:
        state = (await transaction.lock_keys([key]))[key]
        known.saw(key, full=not state.free)
        now = await transaction.now()
        jobs, settled = await _next_jobs(transaction, key, state.free, most)
        if jobs:
            await transaction.append([make_ready(job, now) for job in jobs])
        ready = min(state.free, most)
        if settled or not await transaction.find_blocked_types(key, ready=ready):
            await transaction.clear_recheck(key, unblocked=state.free > ready)
    return Counter(job.job_type for job in jobs)


async def _next_jobs(
    transaction: Transaction, key: str, free: int, most: int
) -> tuple[Sequence[Job], bool]:
    """Return the blocked jobs that go next, and whether no other of them has a free slot."""
    ready = min(free, most)
    found = await transaction.find_blocked_types(key, ready=ready) if ready else []
    jobs = list[Job]()
    for each in found:
        if len(jobs) < most:
            jobs += await transaction.find_blocked(key, each.job_type, limit=ready - each.ready)
    # The usual key has jobs of one type, and as many are ready now as slots are free.
    return jobs, not found or (len(found) == 1 and len(jobs) == ready - found[0].ready)
