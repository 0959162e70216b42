"""The ledger: commands in, one commit for all that arrive together, changes out."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, get_args

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Claim,
    Command,
    Create,
    CreateAll,
    Delete,
    JobCommand,
    LinkAsset,
)
from jobledger_server.domain.decisions import NewId, create, decide
from jobledger_server.domain.errors import DomainError, RequestIdReused
from jobledger_server.domain.job import Asset, Instant, Job, JobId
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.claims import Claims
from jobledger_server.ledger.ids import IdSource
from jobledger_server.ledger.job_sizes import JobSizes
from jobledger_server.ledger.outages import Outages
from jobledger_server.store import (
    Change,
    ErrorKind,
    Owned,
    Store,
    StoreConflict,
    StoreError,
    StoreUnavailable,
    Transaction,
)

MAX_BATCH = 512
"""Commands in one transaction: enough to make the commit's cost vanish, few
enough that the first of them does not wait long for the last."""

log = logging.getLogger("jobledger.ledger")
transition_log = logging.getLogger("jobledger.transition")

Publish = Callable[[Sequence[Change]], None]
"""Takes the changes of every commit, before any of their callers is answered.

Of two commits that follow each other at once, one by commands and one by claims, the
later may come first: their sequence numbers say in which order they belong."""

Outcome = Sequence[Decision] | DomainError
"""What came of a command: one decision, or, of a creation of many, one for each job."""


class Ledger:
    """Applies commands to the store. Used as an `async with` block; at its end it drains."""

    def __init__(
        self,
        store: Store,
        publish: Publish,
        *,
        max_waiting: int,
        share: float = 1.0,
        sizes: JobSizes | None = None,
    ) -> None:
        self._store = store
        self._sizes = JobSizes() if sizes is None else sizes
        self._publish = publish
        self._ids = IdSource()
        self.outages = Outages()
        self.store_errors: dict[str, int] = dict.fromkeys(get_args(ErrorKind), 0)
        """Writes that failed, by the kind of the store's error."""
        self._repeated = False  # whether creations are known to be repeated just now
        self._batcher = Batcher(
            "commands",
            self._apply_and_note,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            share=share,
            weigh=_weigh,
            measure=_content_bytes,
            reading=self._reading,
        )
        self._claims = Claims(
            store, self._committed, self._note, max_waiting=max_waiting, share=share
        )
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._batcher)
        await self._open.enter_async_context(self._claims)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    @property
    def tasks(self) -> tuple[asyncio.Task[None] | None, ...]:
        """The tasks that write, once the block has begun."""
        return self._batcher.task, self._claims.task

    async def apply(self, command: Create | JobCommand) -> Decision:
        """Return what came of the command, after it is durable.

        Raises DomainError where it is refused (LimitExceeded where too many wait),
        StoreUnavailable where the database is away.
        """
        (decision,) = await self._batcher.submit(command)
        return decision

    def put(self, command: JobCommand) -> asyncio.Future[Sequence[Decision]]:
        """Put a command into the next batch; the future has its one decision, or raises as `apply`.

        For those who send many without waiting for each. Raises LimitExceeded at once.
        """
        return self._batcher.put(command)

    async def create_all(self, command: CreateAll) -> list[Job]:
        """Return the jobs, in the order of their creations. Raises as `apply` does."""
        return [decision.job for decision in await self._batcher.submit(command)]

    async def claim(self, command: Claim) -> list[Job]:
        """Return the jobs that are now the worker's, oldest first. Raises as `apply` does."""
        return await self._claims.claim(command)

    def _committed(self, changes: Sequence[Change]) -> None:
        self._publish(changes)
        for change in changes:
            self._sizes.record(change.job)
            for step in change.transitions:
                transition_log.info(
                    "transition",
                    extra={
                        "job": step.job_id,
                        "from": step.from_status.value,
                        "to": step.to_status.value,
                        "version": step.version,
                        "attempt": step.attempt,
                        "actor": step.actor,
                    },
                )

    def _reading(self) -> Callable[[Command], int]:
        added = self._sizes.counting()
        return lambda each: 0 if isinstance(each, Create | CreateAll) else added(each.job_id)

    async def _apply_and_note(
        self, commands: Sequence[Command]
    ) -> Sequence[Sequence[Decision] | Exception]:
        """Apply a batch, and record what the store refused of it."""
        try:
            outcomes = await self._apply_all(commands)
        except StoreError as error:
            self._note(error, len(commands))
            raise
        failed = Counter(outcome for outcome in outcomes if isinstance(outcome, StoreError))
        for failure, count in failed.items():
            self._note(failure, count)
        return outcomes

    def _note(self, error: StoreError, commands: int) -> None:
        if not isinstance(error, StoreConflict):
            self.outages.failed()
        self.store_errors[error.kind] += 1
        level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.ERROR
        # With a count: one line a second at most of each kind.
        fields = {"kind": error.kind, "cause": str(error), "commands": commands, "count": 1}
        log.log(level, "write_failed", extra=fields)

    async def _apply_all(
        self, commands: Sequence[Command]
    ) -> Sequence[Sequence[Decision] | Exception]:
        repeated = self._repeated
        try:
            return await self._retry_if_stale(commands, repeated=repeated)
        except StoreConflict:
            if not repeated:
                # Most likely the job of a request id is there, and was not looked for.
                self._repeated = True
                return await self._apply_all(commands)
            # Another server may have been faster with the same request id: then the second
            # look finds its job. If not, one of the commands is to blame for it, and halving
            # finds which, so that its neighbours are done all the same.
            if len(commands) == 1:
                return await self._retry_if_stale(commands, repeated=True)
            half = len(commands) // 2
            return [
                *await self._apply_half(commands[:half]),
                *await self._apply_half(commands[half:]),
            ]

    async def _apply_half(
        self, commands: Sequence[Command]
    ) -> Sequence[Sequence[Decision] | Exception]:
        try:
            return await self._apply_all(commands)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is the answer of these: the other half may be committed.
            return [error] * len(commands)

    async def _retry_if_stale(
        self, commands: Sequence[Command], *, repeated: bool
    ) -> Sequence[Outcome]:
        try:
            return await self._commit(commands, repeated=repeated)
        except StoreUnavailable as error:
            self.outages.failed()
            if not error.stale:
                raise
            return await self._commit(commands, repeated=repeated)

    async def _commit(self, commands: Sequence[Command], *, repeated: bool) -> Sequence[Outcome]:
        """Do all in one transaction. Looks for the jobs of creations that may be `repeated`.

        Raises StoreConflict where one was repeated and not looked for.
        """
        async with self._store.transaction() as transaction:
            known = await _load(transaction, commands, repeated=repeated)
            found = bool(known.created)
            now = transaction.now
            self.outages.answered(now)
            resumed_at = self.outages.resumed_at
            new_id = partial(self._ids.new_id, now)
            outcomes = [known.decide(command, now, new_id, resumed_at) for command in commands]
            decisions = list(_changed(outcomes))
            changes = await transaction.append(decisions, last=True) if decisions else []
        if repeated and any(isinstance(each, Create | CreateAll) for each in commands):
            self._repeated = found  # until none is any more
        self._committed(changes)
        _log_late(outcomes)
        return outcomes


@dataclass(frozen=True, slots=True)
class _Known:
    """What a batch knows: as loaded, then as its own commands leave it, so that they chain."""

    jobs: dict[JobId, Job]
    created: dict[tuple[str, str], Job]
    linked: dict[tuple[JobId, str], Asset]

    def decide(
        self, command: Command, now: Instant, new_id: NewId, resumed_at: Instant | None
    ) -> Outcome:
        """Return what comes of a command, and know it from then on."""
        try:
            if isinstance(command, CreateAll):
                return self.create_all(command, now, new_id)
            if isinstance(command, Create):
                decision = self.create(command, now, new_id)
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
                self.remember(decision)
        except DomainError as refusal:
            return refusal
        return (decision,)

    def create(self, command: Create, now: Instant, new_id: NewId) -> Decision:
        request = (command.user_id, command.request_id)
        decision = create(self.created.get(request), command, now=now, new_id=new_id)
        if command.request_id:
            self.created[request] = decision.job
        return decision

    def create_all(self, command: CreateAll, now: Instant, new_id: NewId) -> Sequence[Decision]:
        """Decide on all; where one is refused nothing of the others stays known."""
        before = dict(self.created)
        decisions = []
        for index, creation in enumerate(command.creations):
            try:
                decisions.append(self.create(creation, now, new_id))
            except RequestIdReused as refusal:
                self.created.clear()
                self.created.update(before)
                refusal.index = index
                raise
        return decisions

    def remember(self, decision: Decision) -> None:
        if decision.deleted:
            del self.jobs[decision.job.id]
            self.created.pop((decision.job.user_id, decision.job.request_id), None)
            return
        self.jobs[decision.job.id] = decision.job
        for asset in decision.assets:
            if asset.request_id:
                self.linked[asset.job_id, asset.request_id] = asset


async def _load(transaction: Transaction, commands: Sequence[Command], *, repeated: bool) -> _Known:
    """Read what the commands are about.

    The jobs of creations' request ids only where some may be `repeated`: nearly all are new, and
    the database refuses those that are not.
    """
    ids: set[JobId] = set()
    owned: set[Owned] = set()
    created: set[tuple[str, str]] = set()
    linked: set[tuple[JobId, str]] = set()
    for command in commands:
        if isinstance(command, Create):
            if command.request_id:
                created.add((command.user_id, command.request_id))
        elif isinstance(command, CreateAll):
            each = command.creations
            created.update((c.user_id, c.request_id) for c in each if c.request_id)
        elif isinstance(command, Cancel | Delete):
            owned.add((command.job_id, command.user_id))
        else:
            ids.add(command.job_id)
            if isinstance(command, LinkAsset) and command.request_id:
                linked.add((command.job_id, command.request_id))
    return _Known(
        jobs=await transaction.load_jobs(ids, owned) if ids or owned else {},
        created=await transaction.find_created(created) if created and repeated else {},
        linked=await transaction.find_linked(linked) if linked else {},
    )


def _weigh(command: Command) -> int:
    return len(command.creations) if isinstance(command, CreateAll) else 1


def _content_bytes(command: Command) -> int:
    """Return the bytes of what a caller keeps in a job, by far the most that a command holds."""
    if isinstance(command, Create):
        return len(command.parameters or b"")
    if isinstance(command, CreateAll):
        return sum(len(creation.parameters or b"") for creation in command.creations)
    if isinstance(command, ChangeStatus):
        details = command.error.details if command.error else None
        addresses = sum(len(link.url) + len(link.storage_path) for link in command.assets)
        return len(command.result or b"") + len(details or b"") + addresses
    return 0


def _changed(outcomes: Sequence[Outcome]) -> Iterator[Decision]:
    for outcome in outcomes:
        if not isinstance(outcome, DomainError):
            for decision in outcome:
                if decision.via is not None:
                    yield decision.via
                if decision.changed:
                    yield decision


def _log_late(outcomes: Sequence[Outcome]) -> None:
    settled = (outcome for outcome in outcomes if not isinstance(outcome, DomainError))
    late = [each.job.id for outcome in settled for each in outcome if not each.applied]
    if late:
        log.info("late_progress_reports", extra={"count": len(late), "job": late[-1]})
