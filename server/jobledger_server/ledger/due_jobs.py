"""Makes scheduled jobs ready whose time has come.

A transaction of its own, apart from the batches of commands: no caller waits for it, and a batch
that had many of these jobs would keep the others' next commands waiting for as many again.
"""

from collections.abc import Sequence

from jobledger_server.domain.job import Job
from jobledger_server.domain.queues import make_ready
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.store import Store


async def make_due_ready(store: Store, known: KnownLimits, *, most: int) -> Sequence[Job]:
    """Make at most so many due jobs ready; return them as they are then.

    Those whose keys are probably at their limits are blocked instead.
    """
    async with store.transaction() as transaction:
        due = await transaction.find_due(limit=most)
        now = await transaction.now()
        decisions = [make_ready(job, now, full=known.is_full(job.concurrency_key)) for job in due]
        if decisions:
            await transaction.append(decisions, last=True)
    return [decision.job for decision in decisions]
