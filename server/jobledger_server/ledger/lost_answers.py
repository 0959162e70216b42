"""Jobs of answers that did not arrive: they are released, so that no attempt is lost with them.

A worker says with a claim what it holds. What else it holds was in an answer that was lost.
"""

from collections.abc import Collection
from functools import partial

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import Claim, Release
from jobledger_server.domain.errors import DomainError, LimitExceeded
from jobledger_server.domain.job import JobId
from jobledger_server.domain.limits import MAX_CLAIMED_JOBS, MAX_SLOTS
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import Store


class LostAnswers:
    """Releases what workers hold and do not know of."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    async def release(
        self, claim: Claim, holding: Collection[tuple[JobId, int]], caller: Caller
    ) -> None:
        """Release the jobs of the claim's types that its worker holds, except those of `holding`.

        Raises LimitExceeded, ShuttingDown and StoreUnavailable.
        """
        # More than can be named, so that some of the others are among them.
        most = MAX_SLOTS + MAX_CLAIMED_JOBS
        read = partial(self._store.find_held, claim.worker_id, claim.job_types, limit=most)
        named = set(holding)
        lost = [held for held in await retry_if_stale(read) if held not in named]
        job_types = caller.permissions.job_types
        releases = [
            Release(job_id=job_id, attempt=attempt, job_types=job_types) for job_id, attempt in lost
        ]
        if not releases:
            return
        for outcome in await self._ledger.submit(releases, caller):
            # A job that was finished, or lost to another worker, meanwhile is as well.
            moved_on = isinstance(outcome, DomainError) and not isinstance(outcome, LimitExceeded)
            if isinstance(outcome, Exception) and not moved_on:
                raise outcome
