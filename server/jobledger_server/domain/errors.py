"""Refusals, as facts. `rpc` alone turns them into codes and words.

DomainError
├── JobNotFound
├── IllegalTransition
├── JobTerminal
├── LeaseLost
├── VersionMismatch
└── RequestIdReused
"""

from dataclasses import dataclass
from typing import Literal

from jobledger_server.domain.job import JobId, JobStatus


class DomainError(Exception):
    """A command that is refused and changes nothing."""


@dataclass(eq=False)
class JobNotFound(DomainError):
    """There is no such job, or it is not this user's: the two are never told apart."""

    job_id: JobId


@dataclass(eq=False)
class IllegalTransition(DomainError):
    """The job's state does not allow this.

    `wanted` is the state asked for, the state needed (PROCESSING, for a report
    on a job that was not started), or `DELETED`.
    """

    job_id: JobId
    current: JobStatus
    wanted: str
    allowed: tuple[str, ...]


@dataclass(eq=False)
class JobTerminal(DomainError):
    """The job has ended, and this is not the report that ended it."""

    job_id: JobId
    current: JobStatus
    wanted: str


@dataclass(eq=False)
class LeaseLost(DomainError):
    """The caller's attempt is not the job's: another one began, or none did."""

    job_id: JobId
    attempt: int


@dataclass(eq=False)
class VersionMismatch(DomainError):
    """The job has changed since the caller looked."""

    job_id: JobId
    version: int


@dataclass(eq=False)
class RequestIdReused(DomainError):
    """The request id was used before, for the job or asset that is named here.

    `index` is the place of the creation among those of its call, where it has several.
    """

    request_id: str
    made: Literal["Job", "Asset"]
    made_id: str
    index: int | None = None


@dataclass(eq=False)
class LimitExceeded(DomainError):
    """A limit would be exceeded; `limit` names it, `value` is how much it allows.

    `scope` says whose limit it is: one caller's, or that of the whole server, where
    the same request may succeed later; or that of a single request, which is too
    large however often it is repeated.
    """

    limit: str
    value: int
    scope: Literal["caller", "server", "request"] = "server"
