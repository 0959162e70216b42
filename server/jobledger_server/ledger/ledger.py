"""The ledger: applies commands with group commit and publishes the changes of each commit."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, get_args

from jobledger_server.admission.caller import SERVICE, Caller
from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.domain.commands import (
    AppendOutput,
    ChangeStatus,
    Command,
    Create,
    CreateAll,
    Expire,
    Report,
)
from jobledger_server.domain.errors import DomainError, JobNotFound, LimitExceeded, Paused
from jobledger_server.domain.job import Job, JobId, Phase
from jobledger_server.domain.output import OutputPiece, merged
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.batcher import NOTHING, Batcher
from jobledger_server.ledger.claims import Claims
from jobledger_server.ledger.groups import recount_groups
from jobledger_server.ledger.ids import IdSource
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.ledger.outages import Outages
from jobledger_server.ledger.output_rates import OutputRates
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.ledger.unblocking import unblock_freed
from jobledger_server.ledger.working_set import (
    WorkingSet,
    depends_on_settings,
    load_working_set,
)
from jobledger_server.store import (
    Change,
    ErrorKind,
    GroupsLocked,
    Outdated,
    Store,
    StoreConflict,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.ledger")
transition_log = logging.getLogger("jobledger.transition")

Outcome = Sequence[Decision] | Exception
"""What became of a command: the decisions on it, once they are durable, or why there are none.
CreateAll has a decision for each job, a claim one for each job that it started."""

Observe = Callable[[Caller, Command | Allocation, Outcome], None]
"""Called with each outcome, before the one who submitted the command gets it."""

Publish = Callable[[Sequence[Change]], None]
"""Called with the changes of each commit, before its callers are answered.

Commands and claims commit separately, so the changes of two successive commits may arrive in
the wrong order. Their sequence numbers have the right one."""

Written = Callable[[Sequence[OutputPiece]], None]
"""Called with the output of each commit, before its changes are published: an end closes the
streams of its job."""

HandOn = Callable[[Job], None]
"""Called with each blocked job that a commit made ready."""


ASSET_BYTES = 2048
"""What an asset counts besides its texts: so many that a batch of finishes with many small assets,
each of which is decided and written, is no longer than others."""


QUEUE_WEIGHT, KEY_WEIGHT = 2, 1
"""What a queue, or a concurrency key, adds to the weight of a batch that creates jobs with it. Each
queue is on pages of its own, so as many queues as jobs would make a batch several times as long."""


class Ledger:
    """Applies commands to the store. The end of its `async with` block drains it.

    Args:
        store: The database.
        publish: Receives the changes of each commit.
        written: Receives the output of each commit.
        rates: How much output is appended and stored.
        max_waiting: Commands that may wait for the database; claims likewise.
        share: The fraction of `max_waiting` that one caller may use, up to 1.
        hand_on: Called with each blocked job that a commit made ready.
        observe: Observes every outcome.
        ids: Makes the ids of jobs and assets.
        tuning: How much is committed together.
    """

    def __init__(
        self,
        store: Store,
        publish: Publish,
        *,
        written: Written = lambda _: None,
        rates: OutputRates | None = None,
        hand_on: HandOn = lambda _: None,
        max_waiting: int,
        share: float = 1.0,
        observe: Observe | None = None,
        ids: IdSource | None = None,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._store = store
        self._observe = observe
        self._publish = publish
        self._written = written
        self.rates = rates or OutputRates()
        self._hand_on = hand_on
        self._ids = ids or IdSource()
        self._tuning = tuning
        self.known_limits = KnownLimits(store, tuning)
        self.recheck = asyncio.Event()
        """Set when a blocked job may have a free slot."""
        self.cancelling: dict[JobId, JobId | None] = {}
        """Groups whose children this server is to cancel, the first one first. The children are
        cancelled from this one on, the newest first."""
        self.cancel_children = asyncio.Event()
        """Set where there are some."""
        self.outages = Outages()
        self.store_errors: dict[str, int] = dict.fromkeys(get_args(ErrorKind), 0)
        """Failed writes, by the kind of the store's error."""
        # Whether a batch queries the request ids of its creations. Nearly all are new, so it is
        # set when the database rejects a batch, and cleared when a batch with creations finds no
        # earlier job.
        self._look_up_request_ids = False
        self._batcher = Batcher(
            "commands",
            self._apply_batch,
            max_batch=tuning.command_batch,
            max_batch_bytes=tuning.command_batch_bytes,
            linger_ticks=tuning.linger_ticks,
            max_waiting=max_waiting,
            max_waiting_bytes=tuning.waiting_command_bytes,
            share=share,
            weigh=_weigh,
            measure=_content_bytes,
            touch=_counters,
            patient=_is_output,
            observe=observe,
        )
        self._claims = Claims(
            store,
            self.known_limits,
            self._committed,
            self._record_error,
            max_waiting=max_waiting,
            share=share,
            observe=observe,
            tuning=tuning,
        )
        self._exit_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._exit_stack.enter_async_context(self._batcher)
        await self._exit_stack.enter_async_context(self._claims)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit_stack.aclose()

    @property
    def tasks(self) -> tuple[asyncio.Task[None] | None, ...]:
        """The tasks that write. None before the `async with` block."""
        return tuple(batcher.task for batcher in self.batchers)

    @property
    def batchers(self) -> tuple[Batcher[Any, Any], ...]:
        """What batches commands and claims."""
        return self._batcher, self._claims.batcher

    @property
    def processed(self) -> int:
        """How many commands and claims were processed so far; CreateAll is one."""
        return int(sum(batcher.sizes.sum for batcher in self.batchers))

    def submit(
        self, commands: Sequence[Command] | Sequence[Allocation], caller: Caller
    ) -> asyncio.Future[Sequence[Outcome]]:
        """Queue commands for the next batch, or claims, and return the future of their outcomes.

        A command that is refused has its DomainError as its outcome, LimitExceeded if too
        much waits; one that could not be written a StoreError; one that came too late
        ShuttingDown. The future is cancelled if the ledger itself fails.

        Commands that are submitted together are decided in their order. So are those of one
        caller.
        """
        batcher: Batcher[Any, Sequence[Decision]] = self._batcher
        if commands and isinstance(commands[0], Allocation):
            batcher = self._claims.batcher
        try:
            return batcher.put(commands, caller)
        except (LimitExceeded, ShuttingDown) as refusal:
            if self._observe is not None:
                for command in commands:
                    self._observe(caller, command, refusal)
            refused = asyncio.get_running_loop().create_future()
            refused.set_result([refusal] * len(commands))
            return refused

    async def expire(self, *, limit: int) -> int:
        """Expire jobs whose deadline has passed; return how many were found.

        In a transaction of their own, which skips jobs that others have locked: in a batch of
        commands, the reapers of several servers would wait for each other and do the work twice.
        """
        expiries: list[Command] = []

        async def load(transaction: Transaction) -> WorkingSet:
            jobs = await transaction.find_overdue(limit=limit)
            expiries[:] = (Expire(job_id=job_id) for job_id in jobs)
            return WorkingSet(jobs, self.known_limits)

        try:
            await retry_if_stale(partial(self._commit, expiries, load))
        except (StoreConflict, Outdated):
            # A batch of commands is halved until the rejected one is alone, and decided again.
            for outcome in await self.submit(expiries, SERVICE):
                if isinstance(outcome, Exception) and not isinstance(outcome, JobNotFound):
                    raise outcome from None
        except StoreError as error:
            self._record_error(error, max(1, len(expiries)))
            raise
        return len(expiries)

    def _committed(self, changes: Sequence[Change]) -> None:
        self._publish(changes)
        for change in changes:
            for transition in change.transitions:
                transition_log.info(
                    "transition",
                    extra={
                        "job": transition.job_id,
                        "from": transition.from_status.value,
                        "to": transition.to_status.value,
                        "version": transition.version,
                        "attempt": transition.attempt,
                        "actor": transition.actor,
                    },
                )

    def _look_at_keys(
        self, decisions: Sequence[Decision], *, settled: Collection[str] = ()
    ) -> None:
        """Have somebody look at blocked jobs if the decisions may have freed a slot for one."""
        for each in decisions:
            job = each.job
            if not job.concurrency_key or job.phase is Phase.HELD:
                continue
            created_ready = job.version == 1 and job.phase is Phase.READY
            is_settled = job.concurrency_key in settled and job.phase is not Phase.BLOCKED
            if not created_ready and not is_settled:
                self.recheck.set()

    def _look_at_groups(self, decisions: Sequence[Decision]) -> None:
        """Have the children cancelled of groups that this commit has cancelled."""
        for each in decisions:
            children = each.job.children
            if children is not None and children.cancelling:
                self.cancelling.setdefault(each.job.id)
                self.cancel_children.set()

    async def _apply_batch(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """Apply a batch. Halve what a constraint rejects until the rejected command is alone."""
        outcomes: list[Outcome] = []
        parts = [commands]  # a stack with the first part on top
        while parts:
            part = parts.pop()
            try:
                outcomes += await self._apply_part(part)
            except StoreConflict as error:
                if len(part) > 1:
                    half = len(part) // 2
                    parts += part[half:], part[:half]
                else:
                    outcomes.append(error)
            except Exception as error:  # noqa: BLE001
                # The other parts may be committed, so the error is the outcome of this one.
                outcomes += [error] * len(part)
        # The commands of a part share one error object, so this counts them.
        failed = Counter(outcome for outcome in outcomes if isinstance(outcome, StoreError))
        for failure, count in failed.items():
            self._record_error(failure, count)
        return outcomes

    async def _apply_part(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """Commit the commands together.

        Raises:
            StoreConflict: A constraint rejected them, although the request ids had been queried.
        """
        try:
            return await self._commit_or_retry(commands)
        except StoreConflict:
            # Most likely a job with the same request id exists: the ids were not queried, or
            # another server created it just now. So a command that is alone is tried once more.
            if self._look_up_request_ids and len(commands) > 1:
                raise
            self._look_up_request_ids = True
            return await self._commit_or_retry(commands)

    async def _commit_or_retry(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        if self.known_limits.version < 0 and any(map(depends_on_settings, commands)):
            await retry_if_stale(self.known_limits.refresh)
        # Output is appended to what this process knows, by one statement, if that is so yet.
        look = not all(map(_is_output, commands)) or self.outages.about_now() is None
        again = False
        groups: set[JobId] = set()
        while True:
            commit = partial(
                self._commit_batch, commands, look=look or again, again=again, groups=groups
            )
            try:
                return await retry_if_stale(commit)
            except Outdated as outdated:
                again = True
                if isinstance(outdated, GroupsLocked):
                    groups.update(outdated.groups)
                if any(map(depends_on_settings, commands)):
                    await retry_if_stale(self.known_limits.refresh)

    async def _commit_batch(
        self, commands: Sequence[Command], *, look: bool, again: bool, groups: Collection[JobId]
    ) -> Sequence[Outcome]:
        look_up = self._look_up_request_ids
        found = False

        async def load(transaction: Transaction) -> WorkingSet:
            nonlocal found
            known = self.known_limits
            loaded = await load_working_set(
                transaction,
                commands,
                known,
                find_created=look_up,
                rates=self.rates,
                look=look,
                groups=groups,
            )
            found = bool(loaded.created or loaded.reruns)
            return loaded

        outcomes = await self._commit(commands, load, look=look, again=again, groups=groups)
        if look_up and any(isinstance(each, Create | CreateAll) for each in commands):
            self._look_up_request_ids = found
        return outcomes

    async def _commit(
        self,
        commands: Sequence[Command],
        load: Callable[[Transaction], Awaitable[WorkingSet]],
        *,
        look: bool = True,
        again: bool = False,
        groups: Collection[JobId] = (),
    ) -> Sequence[Outcome]:
        """Commit commands together. `load` loads what they need; it may also find them.

        It has loaded those of the `groups` that exist.

        Without a `look` they are decided by about what time it is. Raises Outdated then if it is
        time to renew a lease, which needs the database's time. And raises it where output is
        refused, unless this is done `again`: what writes nothing does not find out that it was
        decided by what another server has changed.
        """
        known = self.known_limits
        try:
            async with self._store.transaction() as transaction:
                working_set = await load(transaction)
                about = None if look else self.outages.about_now()
                now = about or await transaction.now()
                if about is None:
                    self.outages.answered(now)
                resumed_at = self.outages.resumed_at
                new_id = partial(self._ids.new_id, now)
                # Others may learn of what operators set before this is written.
                version = known.version if any(map(depends_on_settings, commands)) else None
                outcomes = [
                    working_set.decide(command, now, new_id, resumed_at) for command in commands
                ]
                # A pause may have ended at another server.
                if any(isinstance(each, Paused) for each in outcomes) and await known.refresh():
                    raise Outdated
                unblocked = await unblock_freed(
                    transaction,
                    known,
                    working_set.held,
                    working_set.jobs.keys(),
                    now,
                    tuning=self._tuning,
                )
                grouped = await recount_groups(
                    transaction, working_set.jobs, working_set.changed, now, looked_for=groups
                )
                decisions = [*_to_write([*outcomes, grouped]), *unblocked.decisions]
                if about is not None and any(decision.renewed for decision in decisions):
                    raise Outdated
                if not again and any(map(_is_refused_output, commands, outcomes)):
                    raise Outdated
                changes = []
                if decisions:
                    changes = await transaction.append(
                        decisions,
                        config_version=version,
                        settled=unblocked.settled,
                        cuts=working_set.cuts(),
                        last=True,
                    )
        except StoreUnavailable:
            self.outages.failed()
            raise
        if pieces := [each.output for each in decisions if each.output is not None]:
            for decision in decisions:
                if decision.output is not None:
                    self.rates.spend(decision.job.user_id, len(decision.output.data))
            self._written(merged(pieces))
        self._committed(changes)
        for decision in unblocked.decisions:
            self._hand_on(decision.job)
        self._look_at_keys(decisions, settled=unblocked.settled)
        self._look_at_groups(decisions)
        _log_ended_attempts(decisions)
        _log_late_reports(outcomes)
        return outcomes

    def _record_error(self, error: StoreError, commands: int) -> None:
        if not isinstance(error, StoreConflict):
            self.outages.failed()
        self.store_errors[error.kind] += 1
        level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.ERROR
        # The log limits the rate of events that have a `count`.
        fields = {"kind": error.kind, "cause": str(error), "commands": commands, "count": 1}
        log.log(level, "write_failed", extra=fields)


def _is_output(command: Command) -> bool:
    return isinstance(command, AppendOutput)


def _is_refused_output(command: Command, outcome: Outcome) -> bool:
    """Whether output is refused for what its job is, and not because it is too much."""
    refused = isinstance(outcome, DomainError) and not isinstance(outcome, LimitExceeded)
    return refused and _is_output(command)


def _weigh(command: Command) -> int:
    return len(command.creations) if isinstance(command, CreateAll) else 1


def _counters(command: Command) -> Mapping[Hashable, int]:
    """Return the counters that creations change, and how much each of them adds to a batch.

    Jobs of one queue share its row, and lie together in its index. Those of other queues are on
    other pages of the disk: four each, where a job alone is a part of one.
    """
    if isinstance(command, Create):
        return _counters_of(command)
    if isinstance(command, CreateAll):
        return dict(each for one in command.creations for each in _counters_of(one).items())
    return NOTHING


def _counters_of(creation: Create) -> Mapping[Hashable, int]:
    tenant = creation.fairness_key or creation.user_id
    queue = creation.job_type, creation.priority, tenant
    if not creation.concurrency_key:
        return {queue: QUEUE_WEIGHT}
    return {queue: QUEUE_WEIGHT, creation.concurrency_key: KEY_WEIGHT}


def _content_bytes(command: Command) -> int:
    """Return the bytes of the content that a command carries, by far the most of its memory."""
    if isinstance(command, Create):
        return len(command.parameters or b"")
    if isinstance(command, CreateAll):
        return sum(len(creation.parameters or b"") for creation in command.creations)
    if isinstance(command, Report):
        return len(command.checkpoint or b"")
    if isinstance(command, AppendOutput):
        return len(command.data)
    if isinstance(command, ChangeStatus):
        assets = sum(ASSET_BYTES + link.text_bytes for link in command.assets)
        return len(command.result or b"") + len(command.error_details or b"") + assets
    return 0


def decisions_of(outcomes: Sequence[Outcome]) -> Sequence[Decision]:
    """Return the decisions on the only command that was submitted, or raise why there are none."""
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def decision_of(outcomes: Sequence[Outcome]) -> Decision:
    """Return the only decision on the only command, or raise why there is none."""
    (decision,) = decisions_of(outcomes)
    return decision


def _to_write(outcomes: Sequence[Outcome]) -> Iterator[Decision]:
    """Return the decisions to write, in order."""
    for outcome in outcomes:
        if not isinstance(outcome, Exception):
            for decision in outcome:
                if decision.via is not None:
                    yield decision.via
                if decision.changed or decision.renewed or decision.output is not None:
                    yield decision


def _log_ended_attempts(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        ended = decision.ended
        if ended is not None and ended.outcome is not None:
            transition_log.info(
                "attempt_ended",
                extra={
                    "job": ended.job_id,
                    "attempt": ended.number,
                    "worker": ended.worker_id,
                    "outcome": ended.outcome.value,
                    "progress": ended.progress,
                },
            )


def _log_late_reports(outcomes: Sequence[Outcome]) -> None:
    decided = (outcome for outcome in outcomes if not isinstance(outcome, Exception))
    late = [each.job.id for outcome in decided for each in outcome if not each.applied]
    if late:
        log.info("late_progress_reports", extra={"count": len(late), "job": late[-1]})
