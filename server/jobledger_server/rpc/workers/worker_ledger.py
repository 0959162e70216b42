"""The ledger as WorkerService uses it: with the job types and the fencing of its caller."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from jobledger_server.domain.commands import ChangeStatus, Claim, Release, WorkerCommand
from jobledger_server.domain.job import Job, JobStatus
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.rpc.validation import InvalidRequest

Limited = TypeVar("Limited", bound=WorkerCommand)


class AccessDenied(Exception):
    """The caller is unknown, may not use this service, or may not act for this user."""


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """Which job types a caller may work on (None: all), and whether it must name attempts."""

    job_types: frozenset[str] | None = None
    fenced: bool = False

    def of(self, command: Limited) -> Limited:
        """Return the command with these limits. Raises InvalidRequest if it lacks its fence."""
        if self.fenced and _without_fence(command):
            raise InvalidRequest([("attempt", "is required of this caller")])
        return command if self.job_types is None else replace(command, job_types=self.job_types)


UNLIMITED = WorkLimits()

WORK_LIMITS: ContextVar[WorkLimits] = ContextVar("work_limits", default=UNLIMITED)
"""The limits of the caller whose call the current task serves."""


class WorkerLedger:
    """The ledger, with the caller's limits on every command.

    All of WorkerService goes through it, so no method can omit them.
    """

    def __init__(self, ledger: Ledger, long_poll: LongPoll) -> None:
        self._ledger = ledger
        self._long_poll = long_poll

    async def apply(self, command: WorkerCommand) -> Decision:
        """Do as the ledger does. Raises InvalidRequest too."""
        return await self._ledger.apply(WORK_LIMITS.get().of(command))

    def put(self, command: WorkerCommand) -> asyncio.Future[Sequence[Decision]]:
        """Do as the ledger does. Raises InvalidRequest too."""
        return self._ledger.put(WORK_LIMITS.get().of(command))

    async def claim(self, command: Claim, wait: float) -> list[Job]:
        """Do as LongPoll does. Raises AccessDenied too."""
        job_types = WORK_LIMITS.get().job_types
        if job_types is not None and not command.job_types <= job_types:
            raise AccessDenied
        return await self._long_poll.claim(command, wait)


def _without_fence(command: WorkerCommand) -> bool:
    if isinstance(command, Release):
        return not command.attempt
    if isinstance(command, ChangeStatus) and command.target is JobStatus.PROCESSING:
        # A start by name. With an expected version it could be the report of a running job.
        return command.attempt is None and command.expected_version is not None
    return command.attempt is None
