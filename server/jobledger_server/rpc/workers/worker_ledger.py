"""The ledger for callers of WorkerService: what each may work on, and whether it must be fenced."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from jobledger_server.domain.commands import Claim, Release, Transit, WorkerCommand
from jobledger_server.domain.job import Job, JobStatus
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.long_poll import Claims
from jobledger_server.rpc.validation import InvalidRequest

Limited = TypeVar("Limited", bound=WorkerCommand)


class AccessDenied(Exception):
    """The caller may not use this service, not act for this user, or is not known."""


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """Which types of jobs a caller may work on (None: all), and whether it must name attempts."""

    job_types: frozenset[str] | None = None
    fenced: bool = False

    def of(self, command: Limited) -> Limited:
        """Return the command with these limits. Raises InvalidRequest where it is not fenced."""
        if self.fenced and _without_fence(command):
            raise InvalidRequest([("attempt", "is required of this caller")])
        return command if self.job_types is None else replace(command, job_types=self.job_types)


UNLIMITED = WorkLimits()

WORK_LIMITS: ContextVar[WorkLimits] = ContextVar("work_limits", default=UNLIMITED)
"""The limits of who made the call that the current task serves."""


class WorkersLedger:
    """The ledger, with the limits of the current call's caller on every command.

    All of WorkerService goes through it, so that no method can leave them out.
    """

    def __init__(self, ledger: Ledger, claims: Claims) -> None:
        self._ledger = ledger
        self._claims = claims

    async def apply(self, command: WorkerCommand) -> Decision:
        """As the ledger's; raises InvalidRequest too."""
        return await self._ledger.apply(WORK_LIMITS.get().of(command))

    def put(self, command: WorkerCommand) -> asyncio.Future[Sequence[Decision]]:
        """As the ledger's; raises InvalidRequest too."""
        return self._ledger.put(WORK_LIMITS.get().of(command))

    async def claim(self, command: Claim, wait: float) -> list[Job]:
        """As that of Claims; raises AccessDenied too."""
        job_types = WORK_LIMITS.get().job_types
        if job_types is not None and not command.job_types <= job_types:
            raise AccessDenied
        return await self._claims.claim(command, wait)


def _without_fence(command: WorkerCommand) -> bool:
    if isinstance(command, Release):
        return not command.attempt
    if isinstance(command, Transit) and command.target is JobStatus.PROCESSING:
        # A start by name. With an expected version it could be the report of a running job.
        return command.attempt is None and command.expected_version is not None
    return command.attempt is None
