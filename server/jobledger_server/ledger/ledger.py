"""The ledger: applies commands with group commit and publishes the changes of each commit."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self, get_args

from jobledger_server.domain.commands import (
    ChangeStatus,
    Claim,
    Command,
    Create,
    CreateAll,
    JobCommand,
    Purge,
    Report,
)
from jobledger_server.domain.errors import DomainError, LimitExceeded
from jobledger_server.domain.job import Job
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.claims import Claims
from jobledger_server.ledger.ids import IdSource
from jobledger_server.ledger.job_sizes import JobSizes
from jobledger_server.ledger.outages import Outages
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.ledger.working_set import Outcome, load_working_set
from jobledger_server.store import (
    Change,
    Claimable,
    ErrorKind,
    Store,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)

MAX_BATCH = 512
"""Commands in a transaction: enough that the cost of the commit hardly counts, few enough that
the first of them does not wait long for the last. The commands of one message stay together."""

MAX_BATCH_BYTES = 1024 * 1024
"""Bytes of payloads in one transaction, and one message more. A small command waits for the batch
that is under way and for its own, so both are short; more would make nothing cheaper."""

log = logging.getLogger("jobledger.ledger")
transition_log = logging.getLogger("jobledger.transition")

Answer = Callable[[Decision | BaseException], None]
"""Called with the decision on a command, or with why there is none."""

Publish = Callable[[Sequence[Change]], None]
"""Called with the changes of each commit, before its callers are answered.

Commands and claims commit separately, so the changes of two successive commits may arrive in
the wrong order. Their sequence numbers have the right one."""


class Ledger:
    """Applies commands to the store. The end of its `async with` block drains it.

    Args:
        store: The database.
        publish: Receives the changes of each commit.
        max_waiting: Commands that may wait for the database, and claims likewise.
        share: The fraction of `max_waiting` that one caller may use, up to 1.
        sizes: The sizes of large jobs, if others record them too.
    """

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
        """Failed writes, by the kind of the store's error."""
        # Whether a batch queries the request ids of its creations. Nearly all are new, so it is
        # set when the database rejects a batch, and cleared when a batch with creations finds no
        # earlier job.
        self._look_up_request_ids = False
        self._batcher = Batcher(
            "commands",
            self._apply_batch,
            max_batch=MAX_BATCH,
            max_batch_bytes=MAX_BATCH_BYTES,
            max_waiting=max_waiting,
            share=share,
            weigh=_weigh,
            measure=_content_bytes,
            read_counter=self._read_counter,
        )
        self._claims = Claims(
            store, self._committed, self._record_error, max_waiting=max_waiting, share=share
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
        return self._batcher.task, self._claims.task

    @property
    def batchers(self) -> tuple[Batcher[Any, Any], ...]:
        """What batches commands and claims."""
        return self._batcher, self._claims.batcher

    @property
    def processed(self) -> int:
        """How many commands and claims were processed so far; CreateAll is one."""
        return int(sum(batcher.sizes.sum for batcher in self.batchers))

    async def apply(self, command: Create | JobCommand) -> Decision:
        """Return the decision on the command, once it is durable.

        Raises:
            DomainError: The command is refused.
            LimitExceeded: Too many commands wait. It is a DomainError too.
            StoreError: The write failed.
        """
        (decision,) = await self._batcher.submit(command)
        return decision

    def put(self, commands: Sequence[tuple[JobCommand, Answer]]) -> None:
        """Queue commands for the same batch, and call what each is given with.

        It is given the decision, once that is durable, or what `apply` raises: LimitExceeded at
        once, CancelledError if the ledger itself fails. For callers that do not wait.
        """
        answers = iter([answer for _, answer in commands])
        for part in self._parts([command for command, _ in commands]):
            waiting = list(islice(answers, len(part)))
            try:
                self._batcher.put_all(part).add_done_callback(partial(_answer_all, waiting))
            except LimitExceeded as refusal:
                for answer in waiting:
                    answer(refusal)

    async def create_all(self, command: CreateAll) -> list[Job]:
        """Return the created jobs, in the order of their creations. Raises as `apply` does."""
        return [decision.job for decision in await self._batcher.submit(command)]

    async def apply_all(self, commands: Sequence[Report | Purge]) -> Sequence[Decision]:
        """Return the decisions on those commands that are not refused, once they are durable.

        Raises as `apply` does, if it is unknown of a command whether it is refused.
        """
        parts = map(self._batcher.put_all, self._parts(commands))
        decisions: list[Decision] = []
        for outcomes in await asyncio.gather(*parts):
            for outcome in outcomes:
                if not isinstance(outcome, Exception):
                    decisions += outcome
                elif not isinstance(outcome, DomainError):
                    raise outcome
        return decisions

    def _parts(self, commands: Sequence[JobCommand]) -> Iterator[Sequence[JobCommand]]:
        """Put commands together, up to the bytes of jobs that one batch reads."""
        read_bytes = self._sizes.read_counter()
        part: list[JobCommand] = []
        size = 0
        for command in commands:
            part.append(command)
            size += read_bytes(command.job_id)
            if size >= MAX_BATCH_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part

    def claim(
        self,
        command: Claim,
        wanted: Callable[[], bool] = lambda: True,
        oldest: Claimable | None = None,
    ) -> asyncio.Future[list[Job]]:
        """Return the jobs that the worker has now leased, oldest first.

        None if the claim is not `wanted` any more when its batch begins. A claim that knows the
        `oldest` claimable job of its types needs no query. Raises as `apply` does, but
        LimitExceeded at once.
        """
        return self._claims.claim(command, wanted, oldest)

    def _committed(self, changes: Sequence[Change]) -> None:
        self._publish(changes)
        for change in changes:
            self._sizes.record(change.job)
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

    def _read_counter(self) -> Callable[[Command], int]:
        read_bytes = self._sizes.read_counter()

        def bytes_of(command: Command) -> int:
            return 0 if isinstance(command, Create | CreateAll) else read_bytes(command.job_id)

        return bytes_of

    async def _apply_batch(
        self, commands: Sequence[Command]
    ) -> Sequence[Sequence[Decision] | Exception]:
        """Apply a batch. Halve what a constraint rejects until the rejected command is alone."""
        outcomes: list[Sequence[Decision] | Exception] = []
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
        return await retry_if_stale(partial(self._commit, commands))

    async def _commit(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        look_up = self._look_up_request_ids
        try:
            async with self._store.transaction() as transaction:
                working_set = await load_working_set(transaction, commands, find_created=look_up)
                found = bool(working_set.created)
                now = await transaction.now()
                self.outages.answered(now)
                resumed_at = self.outages.resumed_at
                new_id = partial(self._ids.new_id, now)
                outcomes = [
                    working_set.decide(command, now, new_id, resumed_at) for command in commands
                ]
                decisions = list(_to_write(outcomes))
                changes = await transaction.append(decisions, last=True) if decisions else []
        except StoreUnavailable:
            self.outages.failed()
            raise
        if look_up and any(isinstance(each, Create | CreateAll) for each in commands):
            self._look_up_request_ids = found
        self._committed(changes)
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


def _weigh(command: Command) -> int:
    return len(command.creations) if isinstance(command, CreateAll) else 1


def _content_bytes(command: Command) -> int:
    """Return the bytes of the content that a command carries, by far the most of its memory."""
    if isinstance(command, Create):
        return len(command.parameters or b"")
    if isinstance(command, CreateAll):
        return sum(len(creation.parameters or b"") for creation in command.creations)
    if isinstance(command, ChangeStatus):
        details = command.error.details if command.error else None
        addresses = sum(len(link.url) + len(link.storage_path) for link in command.assets)
        return len(command.result or b"") + len(details or b"") + addresses
    return 0


def _answer_all(
    answers: Sequence[Answer], future: asyncio.Future[Sequence[Sequence[Decision] | Exception]]
) -> None:
    if future.cancelled():
        for answer in answers:
            answer(asyncio.CancelledError())
        return
    for answer, outcome in zip(answers, future.result(), strict=True):
        answer(outcome if isinstance(outcome, Exception) else outcome[0])


def _to_write(outcomes: Sequence[Outcome]) -> Iterator[Decision]:
    """Return the decisions to write, in order."""
    for outcome in outcomes:
        if not isinstance(outcome, DomainError):
            for decision in outcome:
                if decision.via is not None:
                    yield decision.via
                if decision.changed or decision.renewed:
                    yield decision


def _log_late_reports(outcomes: Sequence[Outcome]) -> None:
    decided = (outcome for outcome in outcomes if not isinstance(outcome, DomainError))
    late = [each.job.id for outcome in decided for each in outcome if not each.applied]
    if late:
        log.info("late_progress_reports", extra={"count": len(late), "job": late[-1]})
