"""The limits of a caller of WorkerService, from the access file."""

from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from jobledger_server.domain.commands import ChangeStatus, Release, WorkerCommand
from jobledger_server.domain.job import JobStatus
from jobledger_server.rpc.validation import InvalidRequest

Limited = TypeVar("Limited", bound=WorkerCommand)


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """A caller's limits.

    Attributes:
        job_types: The job types that it may work on, or None for all.
        fenced: It must send the attempt with each command.
    """

    job_types: frozenset[str] | None = None
    fenced: bool = False

    def of(self, command: Limited) -> Limited:
        """Return the command with these limits. Raises InvalidRequest if its attempt is missing."""
        if self.fenced and _without_fence(command):
            raise InvalidRequest([("attempt", "is required of this caller")])
        return command if self.job_types is None else replace(command, job_types=self.job_types)


UNLIMITED = WorkLimits()


def _without_fence(command: WorkerCommand) -> bool:
    if isinstance(command, Release):
        return not command.attempt
    if isinstance(command, ChangeStatus) and command.target is JobStatus.PROCESSING:
        # A start needs no attempt. With an expected version it could be a report on a running job.
        return command.attempt is None and command.expected_version is not None
    return command.attempt is None
