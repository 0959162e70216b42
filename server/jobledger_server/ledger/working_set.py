"""The working set of a batch: what its commands need, loaded once and decided in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobledger_server.domain.commands import Command, Create, CreateAll, LinkAsset
from jobledger_server.domain.decisions import Created, NewId, create, decide
from jobledger_server.domain.errors import DomainError, RequestIdReused
from jobledger_server.domain.job import Asset, Instant, Job, JobId
from jobledger_server.domain.state_machine import Decision
from jobledger_server.store import Transaction

Outcome = Sequence[Decision] | DomainError
"""The outcome of a command: one decision, or its refusal. CreateAll has one for each job."""


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """The jobs and assets of a batch. Each command sees the changes of the earlier ones."""

    jobs: dict[JobId, Job]
    created: dict[tuple[str, str], Created]
    """By user id and request id."""

    linked: dict[tuple[JobId, str], Asset]
    """By job id and request id."""

    def decide(
        self, command: Command, now: Instant, new_id: NewId, resumed_at: Instant | None
    ) -> Outcome:
        """Decide a command and apply the decision to the working set."""
        try:
            if isinstance(command, CreateAll):
                return self._create_all(command, now, new_id)
            if isinstance(command, Create):
                decision = self._create(command, now, new_id)
            else:
                linked = None
                if isinstance(command, LinkAsset) and command.request_id:
                    linked = self.linked.get((command.job_id, command.request_id))
                job = self.jobs.get(command.job_id)
                decision = decide(
                    job,
                    command,
                    now=now,
                    new_id=new_id,
                    linked=linked,
                    resumed_at=resumed_at,
                )
                self._apply(decision)
        except DomainError as refusal:
            return refusal
        return (decision,)

    def _create(self, command: Create, now: Instant, new_id: NewId) -> Decision:
        request = (command.user_id, command.request_id)
        decision = create(self.created.get(request), command, now=now, new_id=new_id)
        if command.request_id:
            self.created[request] = decision.job, command.parameters
        return decision

    def _create_all(self, command: CreateAll, now: Instant, new_id: NewId) -> Sequence[Decision]:
        """Decide all creations. If one is refused, undo the others."""
        before = dict(self.created)
        decisions = []
        for index, creation in enumerate(command.creations):
            try:
                decisions.append(self._create(creation, now, new_id))
            except RequestIdReused as refusal:
                self.created.clear()
                self.created.update(before)
                refusal.index = index
                raise
        return decisions

    def _apply(self, decision: Decision) -> None:
        if decision.deleted:
            del self.jobs[decision.job.id]
            self.created.pop((decision.job.user_id, decision.job.request_id), None)
            return
        self.jobs[decision.job.id] = decision.job
        for asset in decision.assets:
            if asset.request_id:
                self.linked[asset.job_id, asset.request_id] = asset


async def load_working_set(
    transaction: Transaction, commands: Sequence[Command], *, find_created: bool
) -> WorkingSet:
    """Load what the commands need, with at most one statement for each kind.

    Args:
        transaction: The transaction of the batch.
        commands: The batch.
        find_created: Whether to find the jobs that were created before with the request ids
            of its creations.
    """
    ids: set[JobId] = set()
    created: set[tuple[str, str]] = set()
    linked: set[tuple[JobId, str]] = set()
    for command in commands:
        if isinstance(command, Create):
            if command.request_id:
                created.add((command.user_id, command.request_id))
        elif isinstance(command, CreateAll):
            each = command.creations
            created.update((c.user_id, c.request_id) for c in each if c.request_id)
        else:
            ids.add(command.job_id)
            if isinstance(command, LinkAsset) and command.request_id:
                linked.add((command.job_id, command.request_id))
    return WorkingSet(
        jobs=await transaction.load_jobs(ids) if ids else {},
        created=await transaction.find_created(created) if created and find_created else {},
        linked=await transaction.find_linked(linked) if linked else {},
    )
