"""The audit log: which identity changed which job, with what outcome, and who was denied.

It has no parameters, results or tokens. Lines are queued like all lines of the log, so no
call waits for them.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Create,
    CreateAll,
    Delete,
    Expire,
    JobCommand,
    LinkAsset,
    Purge,
    Release,
    Report,
)
from jobledger_server.domain.job import Job, is_id
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Answer, Ledger
from jobledger_server.rpc.access.permissions import PERMISSIONS
from jobledger_server.rpc.status import reason_of

log = logging.getLogger("jobledger.audit")

OK = "OK"

CHANGES: dict[type, str | None] = {
    Create: "create",
    CreateAll: "create",
    Cancel: "cancel",
    Delete: "delete",
    ChangeStatus: "change_status",
    LinkAsset: "link_asset",
    Release: "release",
    # Reports are far too many, and change no state.
    Report: None,
    # The service's own.
    Expire: None,
    Purge: None,
}
"""The names of commands in the audit log. None: it has none of these."""


class Commands(Protocol):
    """What services need of the ledger. See `Ledger`."""

    async def apply(self, command: Create | JobCommand) -> Decision: ...

    def put(self, commands: Sequence[tuple[JobCommand, Answer]]) -> None: ...

    async def create_all(self, command: CreateAll) -> list[Job]: ...

    async def apply_all(self, commands: Sequence[Report | Purge]) -> Sequence[Decision]: ...


class AuditedLedger:
    """The ledger, with a line in the audit log for each change that a caller makes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def apply(self, command: Create | JobCommand) -> Decision:
        """See `Ledger`."""
        change = CHANGES[type(command)]
        if change is None:
            return await self._ledger.apply(command)
        try:
            decision = await self._ledger.apply(command)
        except Exception as error:
            audit(change, _named(command), error)
            raise
        audit(change, [decision.job.id])
        return decision

    def put(self, commands: Sequence[tuple[JobCommand, Answer]]) -> None:
        """See `Ledger`."""
        self._ledger.put([(each, partial(_audit, each, answer)) for each, answer in commands])

    async def create_all(self, command: CreateAll) -> list[Job]:
        """See `Ledger`."""
        try:
            jobs = await self._ledger.create_all(command)
        except Exception as error:
            audit("create", [], error)
            raise
        audit("create", [job.id for job in jobs])
        return jobs

    async def apply_all(self, commands: Sequence[Report | Purge]) -> Sequence[Decision]:
        """See `Ledger`. Heartbeats and purges are not in the audit log."""
        return await self._ledger.apply_all(commands)


def audit(change: str, jobs: Sequence[str], error: BaseException | None = None) -> None:
    """Log a change of jobs by the current call's caller, or that it was refused."""
    permissions = PERMISSIONS.get()
    if permissions is not None:
        outcome = OK if error is None else reason_of(error)
        facts = {"caller": permissions.identity.name, "change": change, "jobs": jobs}
        log.info("change", extra=facts | {"outcome": outcome})


def audit_denial(method: str, caller: str, error: Exception) -> None:
    """Log that a caller was denied a call. The log limits the rate of these for each caller."""
    facts = {"caller": caller, "method": method, "outcome": reason_of(error), "count": 1}
    log.warning("denied", extra=facts)


def _audit(command: JobCommand, answer: Answer, outcome: Decision | BaseException) -> None:
    """Pass an answer on, and audit it. Called in the context of the caller."""
    change = CHANGES[type(command)]
    if change is not None and not isinstance(outcome, asyncio.CancelledError):
        audit(change, _named(command), None if isinstance(outcome, Decision) else outcome)
    answer(outcome)


def _named(command: Create | JobCommand) -> Sequence[str]:
    """Return the job that a command names. What is no id is not logged: it can be anything."""
    return [] if isinstance(command, Create) or not is_id(command.job_id) else [command.job_id]
