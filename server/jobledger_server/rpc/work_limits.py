"""What a caller of WorkerService may work on, by the access file."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from jobledger_server.domain.commands import ChangeStatus, Release, WorkerCommand
from jobledger_server.domain.job import JobStatus
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


def _without_fence(command: WorkerCommand) -> bool:
    if isinstance(command, Release):
        return not command.attempt
    if isinstance(command, ChangeStatus) and command.target is JobStatus.PROCESSING:
        # A start by name. With an expected version it could be the report of a running job.
        return command.attempt is None and command.expected_version is not None
    return command.attempt is None
