"""Errors of refused commands. They carry facts; only `rpc` turns them into codes and messages.

DomainError
├── JobNotFound
├── IllegalTransition
├── JobTerminal
├── JobStarted
├── JobNotDue
├── LeaseLost
├── VersionMismatch
├── OutputGap
├── RequestIdReused
├── UniqueKeyTaken
├── Paused
├── ConcurrencyLimitReached
├── AssetNameTaken
├── PhaseUnknown
├── IsAGroup
├── NotAGroup
├── GroupSealed
├── JobInGroup
└── LimitExceeded
"""

from dataclasses import dataclass
from typing import Literal

from jobledger_server.domain.job import AssetId, Instant, JobId, JobStatus


class DomainError(Exception):
    """A command that is refused and changes nothing."""


@dataclass(eq=False)
class JobNotFound(DomainError):
    """The job does not exist or belongs to another user: a caller cannot distinguish the two."""

    job_id: JobId


@dataclass(eq=False)
class IllegalTransition(DomainError):
    """The job's state does not allow the command.

    `target` is the requested state, or the state that the command needs (PROCESSING, for
    a report on a job that was not started), or `DELETED`.
    """

    job_id: JobId
    current: JobStatus
    target: str
    allowed: tuple[str, ...]


@dataclass(eq=False)
class JobTerminal(DomainError):
    """The job is terminal, and the command does not repeat the report that finished it."""

    job_id: JobId
    current: JobStatus
    target: str


@dataclass(eq=False)
class JobStarted(DomainError):
    """The job was started, and is not terminal: only before can it be changed."""

    job_id: JobId
    current: JobStatus


@dataclass(eq=False)
class JobNotDue(DomainError):
    """The job cannot be started before its `schedule_time`."""

    job_id: JobId
    schedule_time: Instant


@dataclass(eq=False)
class LeaseLost(DomainError):
    """The caller's attempt is not the job's `attempt`, or it lost its lease."""

    job_id: JobId
    attempt: int


@dataclass(eq=False)
class VersionMismatch(DomainError):
    """The job's `version` is not the expected one."""

    job_id: JobId
    version: int


@dataclass(eq=False)
class OutputGap(DomainError):
    """An earlier append of the attempt to the `stream` is not stored: `number` comes next."""

    job_id: JobId
    stream: str
    number: int


@dataclass(eq=False)
class RequestIdReused(DomainError):
    """The request id was used before for the named resource: with other content, or as `how` says.

    `index` is the index of the creation in a batch, or None for a single one.
    """

    request_id: str
    resource: Literal["Job", "Asset", "Webhook"]
    resource_id: str
    index: int | None = None
    how: str = "with other content"


@dataclass(eq=False)
class UniqueKeyTaken(DomainError):
    """The job with this id has the unique key and is not terminal. `index` as above."""

    unique_key: str
    job_id: JobId
    index: int | None = None


@dataclass(eq=False)
class Paused(DomainError):
    """The job's type is paused, or its concurrency key if that is not empty."""

    job_id: JobId
    job_type: str
    concurrency_key: str = ""


@dataclass(eq=False)
class ConcurrencyLimitReached(DomainError):
    """As many jobs with the job's concurrency key are held as may be."""

    job_id: JobId
    concurrency_key: str
    max_running: int


@dataclass(eq=False)
class AssetNameTaken(DomainError):
    """The same attempt has linked another asset of this name: the one with this id."""

    job_id: JobId
    name: str
    asset_id: AssetId


@dataclass(eq=False)
class PhaseUnknown(DomainError):
    """The job is in a phase that only newer servers know: one of them can do it."""

    job_id: JobId


@dataclass(eq=False)
class IsAGroup(DomainError):
    """The job is a group: no worker runs it, and it has no turn."""

    job_id: JobId


@dataclass(eq=False)
class NotAGroup(DomainError):
    """The job is no group."""

    job_id: JobId


@dataclass(eq=False)
class GroupSealed(DomainError):
    """No child is added to the group any more."""

    job_id: JobId


@dataclass(eq=False)
class JobInGroup(DomainError):
    """The job is deleted with its group only."""

    job_id: JobId
    group_id: JobId


@dataclass(eq=False)
class WebhookNotFound(DomainError):
    """There is no such webhook, or not of this user."""

    webhook_id: str


@dataclass(eq=False)
class WebhookNotHeld(DomainError):
    """The deliverer's claim on the webhook has ended."""

    webhook_id: str


@dataclass(eq=False)
class LimitExceeded(DomainError):
    """A limit would be exceeded; `limit` names it, `value` is how much it allows.

    `scope` is what the limit applies to: one caller or the whole server, so that a retry
    may succeed later, or a single request, so that a retry cannot succeed. `caller` is the
    identity of the one caller, if it has one. A retry may succeed after `retry_after` seconds.
    """

    limit: str
    value: float
    scope: Literal["caller", "server", "request"] = "server"
    caller: str = ""
    retry_after: float = 1.0
