"""Cancels the children of cancelled groups, one part after the other.

The server whose commit cancelled a group does it. Should it die, the group is overdue soon, and the
server whose reaper finds it goes on; see `groups.expire_group`. To cancel a child twice does
nothing.
"""

import logging

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Cancel, Command, PassOn
from jobledger_server.domain.errors import DomainError
from jobledger_server.domain.job import Job, JobStatus
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.whenever import whenever
from jobledger_server.store import JobQuery, Store
from jobledger_server.tuning import Tuning

FAIL_FAST = "another job of the group has failed"
"""Why the others are cancelled then."""

log = logging.getLogger("jobledger.groups")


class GroupCanceller:
    """Cancels the children of the groups that the ledger names."""

    def __init__(self, store: Store, ledger: Ledger, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._ledger = ledger
        self._part = tuning.cancelled_children

    async def run(self) -> None:
        """Cancel whenever the ledger names a group, until cancelled."""
        # What fails is found again by the reaper.
        await whenever(
            self._ledger.cancel_children, self.cancel_some, log, "children_not_cancelled"
        )

    async def cancel_some(self) -> bool:
        """Cancel a part of the children of one group; return whether there is more to do.

        Groups take turns, from a part on.
        """
        cancelling = self._ledger.cancelling
        if not cancelling:
            return False
        group_id = next(iter(cancelling))
        before = cancelling.pop(group_id)
        read = await self._store.read_jobs([group_id], full=False)
        if group_id not in read:
            return bool(cancelling)
        group = read[group_id].job
        open_ = frozenset({JobStatus.QUEUED, JobStatus.PROCESSING})
        query = JobQuery(user_id=None, group_id=group_id, statuses=open_)
        page = await self._store.list_jobs(query, before=before, limit=self._part)
        commands: list[Command] = [_cancellation(group, child) for child in page.jobs]
        commands.append(PassOn(job_id=group_id, done=page.next_before is None))
        for outcome in await self._ledger.submit(commands, SERVICE):
            if isinstance(outcome, Exception) and not isinstance(outcome, DomainError):
                raise outcome
        cancelling.pop(group_id, None)
        if page.next_before is not None:
            cancelling[group_id] = page.next_before
        return bool(cancelling)


def _cancellation(group: Job, child: Job) -> Cancel:
    reason = FAIL_FAST if group.cancel_request_time is None else group.cancel_reason
    return Cancel(job_id=child.id, user_id=child.user_id, reason=reason)
