"""Calls that work on all jobs of a group: DeleteJob and RerunJob of a group.

They go through its jobs part by part. What is done stays done, so a call that ends early is
repeated, and goes on.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import Create, Delete, NewGroup, Seal
from jobledger_server.domain.errors import JobNotFound, UniqueKeyTaken
from jobledger_server.domain.job import Job, JobId, JobStatus, content_of
from jobledger_server.domain.state_machine import TERMINAL, Decision
from jobledger_server.ledger.ledger import Ledger, decision_of
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.jobs.creation_quotas import CreationQuotas
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.payloads import payloads_of
from jobledger_server.store import JobQuery, Store
from jobledger_server.tuning import Tuning


@dataclass(frozen=True, slots=True)
class Groups:
    """Deletes groups, and runs them again."""

    store: Store
    ledger: Ledger
    reads: Reads
    lists: Lists
    creations: CreationQuotas
    tuning: Tuning

    async def delete(self, group: Job, caller: Caller) -> Decision:
        """Delete a terminal group, its jobs first. Assets of these are in the feed only."""
        async for jobs in self._parts(group, TERMINAL, caller):
            commands = [
                Delete(job_id=each.id, user_id=each.user_id, with_group=True) for each in jobs
            ]
            for outcome in await self.ledger.submit(commands, caller):
                if isinstance(outcome, JobNotFound):
                    continue  # deleted since
                if isinstance(outcome, Exception):
                    raise outcome
                for decision in outcome:
                    if not decision.deleted:
                        await self.delete(decision.job, caller)
        command = Delete(job_id=group.id, user_id=group.user_id, childless=True, with_group=True)
        return decision_of(await self.ledger.submit([command], caller))

    async def rerun(
        self,
        group: Job,
        caller: Caller,
        *,
        traceparent: str,
        request_id: str = "",
        within: JobId | None = None,
    ) -> Decision:
        """Run those jobs of a terminal group again that have failed, in a new group."""
        (payloads,) = await payloads_of(self.reads, [group], caller)
        creation = Create(
            parameters=None if payloads is None else payloads.parameters,
            request_id=request_id,
            traceparent=traceparent,
            origin_job_id=group.id,
            group=NewGroup(group.children is not None and group.children.fail_fast),
            group_id=within,
            **content_of(group),
        )
        async with self.creations.creating(caller, {group.user_id: 1}):
            decision = decision_of(await self.ledger.submit([creation], caller))
        new = decision.job
        if new.children is None or new.children.sealed:
            return decision  # it is complete
        failed = frozenset({JobStatus.FAILED, JobStatus.PARTIAL})
        async for jobs in self._parts(group, failed, caller):
            await self._rerun_jobs(jobs, new.id, traceparent, caller)
        seal = Seal(job_id=new.id, user_id=new.user_id)
        sealed = decision_of(await self.ledger.submit([seal], caller))
        return Decision(job=sealed.job, changed=decision.changed)

    async def _rerun_jobs(
        self, jobs: Sequence[Job], within: JobId, traceparent: str, caller: Caller
    ) -> None:
        for each in jobs:
            if each.children is not None:
                await self.rerun(each, caller, traceparent=traceparent, within=within)
        failed = [
            each for each in jobs if each.children is None and each.status is JobStatus.FAILED
        ]
        payloads = await payloads_of(self.reads, failed, caller)
        commands = [
            Create(
                parameters=found.parameters,
                traceparent=traceparent,
                origin_job_id=job.id,
                group_id=within,
                **content_of(job),
            )
            for job, found in zip(failed, payloads, strict=True)
            if found is not None  # else it was deleted since
        ]
        if not commands:
            return
        async with self.creations.creating(caller, {commands[0].user_id: len(commands)}):
            for outcome in await self.ledger.submit(commands, caller):
                if isinstance(outcome, Exception) and not isinstance(outcome, UniqueKeyTaken):
                    raise outcome

    async def _parts(
        self, group: Job, statuses: frozenset[JobStatus], caller: Caller
    ) -> AsyncIterator[Sequence[Job]]:
        """Yield the jobs of a group in some states, part by part, the newest first."""
        query = JobQuery(user_id=None, group_id=group.id, statuses=statuses)
        before: JobId | None = None
        while True:
            async with self.lists.turn(caller):
                page = await self.store.list_jobs(query, before=before, limit=self.tuning.bulk_part)
            if page.jobs:
                yield page.jobs
            if page.next_before is None:
                return
            before = page.next_before
