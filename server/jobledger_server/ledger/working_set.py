"""The working set of a batch: what its commands need, loaded once and decided in memory."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from jobledger_server.domain.commands import (
    AppendOutput,
    Cancel,
    ChangeStatus,
    Command,
    Create,
    CreateAll,
    Expire,
    LinkAsset,
    Seal,
)
from jobledger_server.domain.decisions import Created, NewId, create, decide
from jobledger_server.domain.errors import DomainError, RequestIdReused, UniqueKeyTaken
from jobledger_server.domain.job import Asset, AssetLink, Instant, Job, JobId, JobStatus, Phase
from jobledger_server.domain.output import (
    NO_TAILS,
    OutputCut,
    Tails,
    after_append,
    after_cut,
    cuts,
)
from jobledger_server.domain.queues import NO_LIMITS, KeyState, Limits
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.groups import Changed, note
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.ledger.output_rates import OutputRates
from jobledger_server.store import GroupsLocked, StoreConflict, Transaction

Outcome = Sequence[Decision] | DomainError
"""The outcome of a command: one decision, or its refusal. CreateAll has one for each job."""

NONE: Mapping[str, Asset] = {}


@dataclass(slots=True)
class WorkingSet:
    """The jobs and assets of a batch. Each command sees the changes of the earlier ones."""

    jobs: dict[JobId, Job]
    known: KnownLimits

    created: dict[tuple[str, str], Created] = field(default_factory=dict)
    """By user id and request id."""

    reruns: dict[JobId, Job] = field(default_factory=dict)
    """By the id of the job that each runs again."""

    linked: dict[tuple[JobId, str], Asset] = field(default_factory=dict)
    """By job id and request id."""

    named: dict[tuple[JobId, str], Asset] = field(default_factory=dict)
    """By job id and name."""

    active: dict[tuple[str, str, str], Job] = field(default_factory=dict)
    """Jobs that are not terminal, by user id, job type and unique key."""

    keys: dict[str, KeyState] = field(default_factory=dict)
    """The states of the concurrency keys of jobs that are started, by the key."""

    held: Counter[str] = field(default_factory=Counter)
    """By concurrency key, how many more jobs are held after the commands."""

    changed: Changed = field(default_factory=dict)
    """What the commands change for the groups of their jobs."""

    outputs: dict[JobId, Tails] = field(default_factory=dict)
    """The streams of the jobs whose output is appended to."""

    rates: OutputRates = field(default_factory=OutputRates)
    """How much output owners may append."""

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
                links = links_of(command)
                job = self.jobs.get(command.job_id)
                if isinstance(command, Seal | Cancel | Expire) and self.changed.get(command.job_id):
                    # It could end a group whose counts change at the end of this commit only. In a
                    # commit of its own, which a conflict leads to, it sees them.
                    raise StoreConflict("jobs of the group have changed in the same batch")
                if job is not None and isinstance(command, AppendOutput):
                    self.rates.check(job.user_id)
                decision = decide(
                    job,
                    command,
                    now=now,
                    new_id=new_id,
                    linked=linked,
                    named=self._named(command.job_id, links) if links else NONE,
                    resumed_at=resumed_at,
                    limits=NO_LIMITS if job is None else self._limits(job, command),
                    full=job is not None and self.known.is_full(job.concurrency_key),
                    tails=self.outputs.get(command.job_id, NO_TAILS),
                    output_bytes=self.rates.job_bytes,
                )
                self._apply(job, decision)
        except DomainError as refusal:
            return refusal
        return (decision,)

    def _create(self, command: Create, now: Instant, new_id: NewId) -> Decision:
        request = (command.user_id, command.request_id)
        found = self.created.get(request)
        origin = command.origin_job_id
        if origin is not None and origin in self.reruns:
            found = self.reruns[origin], None
        unique = command.user_id, command.job_type, command.unique_key
        decision = create(
            found,
            command,
            now=now,
            new_id=new_id,
            active=self.active.get(unique) if command.unique_key else None,
            full=self.known.is_full(command.concurrency_key),
            defaults=self.known.defaults_of(command.job_type),
            group=None if command.group_id is None else self.jobs.get(command.group_id),
            siblings=self._siblings(command.group_id),
        )
        if decision.changed:
            note(self.changed, None, decision.job)
            if decision.job.children is not None:
                self.jobs[decision.job.id] = decision.job
        self._remember(command, decision)
        return decision

    def _remember(self, command: Create, decision: Decision) -> None:
        """Have repetitions of a creation find its job as it is written."""
        if decision.changed and command.unique_key:
            self.active[command.user_id, command.job_type, command.unique_key] = decision.job
        if decision.changed and command.request_id:
            request = command.user_id, command.request_id
            self.created[request] = decision.job, command.parameters
        if command.origin_job_id is not None:
            self.reruns[command.origin_job_id] = decision.job

    def _siblings(self, group_id: JobId | None) -> int:
        """Return how many jobs the commands have added to a group."""
        return 0 if group_id is None else self.changed.get(group_id, Counter()).total()

    def _create_all(self, command: CreateAll, now: Instant, new_id: NewId) -> Sequence[Decision]:
        """Decide all creations. If one is refused, undo the others."""
        before = dict(self.created), dict(self.reruns), dict(self.active), dict(self.jobs)
        changed = {group_id: counts.copy() for group_id, counts in self.changed.items()}
        decisions: list[Decision] = []
        for index, creation in enumerate(command.creations):
            if creation.group_index is not None:
                named = decisions[creation.group_index]
                if not named.changed and named.job.id not in self.jobs:
                    # A repeated call created it before, and this call adds to it.
                    raise GroupsLocked([named.job.id])
                creation = replace(creation, group_id=named.job.id)  # noqa: PLW2901
            try:
                decision = self._create(creation, now, new_id)
            except DomainError as refusal:
                self.created, self.reruns, self.active, self.jobs = before
                self.changed = changed
                if isinstance(refusal, RequestIdReused | UniqueKeyTaken):
                    refusal.index = index
                raise
            children = decision.job.children
            if children is not None and decision.changed:
                # Open for the other creations, whether or not it is sealed after them.
                open_group = replace(decision.job, children=replace(children, sealed=False))
                self.jobs[open_group.id] = open_group
            decisions.append(decision)
        decisions = [self._with_children(each) for each in decisions]
        for creation, decision in zip(command.creations, decisions, strict=True):
            self._remember(creation, decision)
        return decisions

    def _with_children(self, decision: Decision) -> Decision:
        """Return the creation of a group with its children, which the same command creates."""
        group = decision.job
        if not decision.changed or group.children is None:
            return decision
        counts = self.changed.pop(group.id, Counter())
        group = replace(group, children=replace(group.children, queued=counts.total()))
        self.jobs[group.id] = group
        return replace(decision, job=group)

    def _named(self, job_id: JobId, links: Sequence[AssetLink]) -> Mapping[str, Asset]:
        """Return the job's assets that have the names of these links."""
        pairs = ((link.name, (job_id, link.name)) for link in links)
        return {name: self.named[pair] for name, pair in pairs if pair in self.named}

    def _limits(self, job: Job, command: Command) -> Limits:
        """Return what an operator lets the job do, as far as the command depends on it."""
        if is_start(command):
            key = job.concurrency_key
            state = self.keys[key] if key else KeyState()
            return Limits(state, type_paused=self.known.is_paused(job.job_type))
        return NO_LIMITS

    def cuts(self) -> list[OutputCut]:
        """Return what to drop of the outputs, and drop it here."""
        found = [
            cut
            for job_id, tails in self.outputs.items()
            for cut in cuts(job_id, tails, self.rates.job_bytes)
        ]
        for cut in found:
            self.outputs[cut.job_id] = after_cut(self.outputs[cut.job_id], cut)
        return found

    def _apply(self, before: Job | None, decision: Decision) -> None:
        job = decision.job
        if decision.output is not None:
            self.outputs[job.id] = after_append(self.outputs[job.id], decision.output)
        if before is not None:
            note(self.changed, before, job)
        key = job.concurrency_key
        if before is not None and key:
            more = (job.phase is Phase.HELD) - (before.phase is Phase.HELD)
            self.held[key] += more
            if key in self.keys:
                self.keys[key] = self.keys[key].changed(more)
        if job.unique_key and job.phase is None:
            unique = job.user_id, job.job_type, job.unique_key
            if unique in self.active and self.active[unique].id == job.id:
                del self.active[unique]
        if decision.deleted:
            del self.jobs[decision.job.id]
            self.created.pop((decision.job.user_id, decision.job.request_id), None)
            if decision.job.origin_job_id is not None:
                self.reruns.pop(decision.job.origin_job_id, None)
            return
        self.jobs[decision.job.id] = decision.job
        for asset in (*decision.updated, *decision.assets):  # the last of a name has it
            self.named[asset.job_id, asset.link.name] = asset
            if asset.request_id:
                self.linked[asset.job_id, asset.request_id] = asset


def links_of(command: Command) -> Sequence[AssetLink]:
    """Return the assets that a command links."""
    match command:
        case LinkAsset():
            return (command.link,)
        case ChangeStatus():
            return command.assets
        case _:
            return ()


def is_start(command: Command) -> bool:
    """Whether the command starts a job by its id."""
    return isinstance(command, ChangeStatus) and command.target is JobStatus.PROCESSING


def depends_on_settings(command: Command) -> bool:
    """Whether the decision depends on what operators set."""
    return isinstance(command, Create | CreateAll) or is_start(command)


async def load_working_set(
    transaction: Transaction,
    commands: Sequence[Command],
    known: KnownLimits,
    *,
    find_created: bool,
    rates: OutputRates,
    look: bool = True,
    groups: Collection[JobId] = (),
) -> WorkingSet:
    """Load what the commands need, with at most one statement for each kind.

    Args:
        transaction: The transaction of the batch.
        commands: The batch.
        known: What this server knows of pauses and limits.
        find_created: Whether to find the jobs that were created before with the request ids
            of its creations, or reruns of the same jobs.
        rates: How much output owners may append.
        look: Whether the jobs have to be as they are now, and not as this process knows them.
        groups: Groups that the jobs of the batch belong to.
    """
    # Dicts serve as sets that keep the order.
    ids: dict[JobId, None] = dict.fromkeys(groups)
    created: dict[tuple[str, str], None] = {}
    origins: dict[JobId, None] = {}
    unique: dict[tuple[str, str, str], None] = {}
    starting: dict[JobId, None] = {}
    linking: list[ChangeStatus | LinkAsset] = []
    appending: dict[JobId, None] = {}
    for command in commands:
        if isinstance(command, Create | CreateAll):
            for each in command.creations if isinstance(command, CreateAll) else (command,):
                if each.request_id:
                    created[each.user_id, each.request_id] = None
                if each.origin_job_id is not None:
                    origins[each.origin_job_id] = None
                if each.group_id is not None:
                    ids[each.group_id] = None
                if each.unique_key:
                    unique[each.user_id, each.job_type, each.unique_key] = None
        else:
            ids[command.job_id] = None
            if is_start(command):
                starting[command.job_id] = None
            if isinstance(command, ChangeStatus | LinkAsset):
                linking.append(command)
            elif isinstance(command, AppendOutput):
                appending[command.job_id] = None
    jobs = await transaction.load_jobs(ids, look=look) if ids else {}
    # Most jobs have no assets when some are linked to them, and then there is none to look for.
    linked: dict[tuple[JobId, str], None] = {}
    named: dict[tuple[JobId, str], None] = {}
    for linker in linking:
        job = jobs.get(linker.job_id)
        if job is not None and job.asset_count:
            named |= dict.fromkeys((job.id, link.name) for link in links_of(linker))
            if isinstance(linker, LinkAsset) and linker.request_id:
                linked[job.id, linker.request_id] = None
    keys = dict.fromkeys(jobs[job_id].concurrency_key for job_id in starting if job_id in jobs)
    keys.pop("", None)
    writers = [jobs[job_id] for job_id in appending if job_id in jobs]
    active = await transaction.find_active(unique) if unique else {}
    # A repeated creation is answered with its own job, whoever has the unique key by now, so its
    # job has to be known before the key refuses it.
    find_created |= bool(unique)
    found = WorkingSet(
        jobs=jobs,
        known=known,
        created=await transaction.find_created(created) if created and find_created else {},
        reruns=await transaction.find_reruns(origins) if origins and find_created else {},
        linked=await transaction.find_linked(linked) if linked else {},
        named=await transaction.find_named(named) if named else {},
        active=active,
        outputs=await transaction.load_outputs(writers) if writers else {},
        rates=rates,
    )
    if keys:  # last, for it locks the feed
        found.keys.update(await transaction.lock_keys(keys))
    return found
