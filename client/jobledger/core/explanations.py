"""Why a job waits, as immutable Python values."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from jobledger.core.conversion import from_timestamp
from jobledger.core.models import Job, JobView
from jobledger.core.queues import Pause
from jobledger.v1 import queue_service_pb2


class WaitKind(StrEnum):
    """What keeps a job from being started. Each member equals its name."""

    UNKNOWN = "UNKNOWN"
    """A reason that this version of the client does not know."""
    NO_WORKER = "NO_WORKER"
    """See NoWorker."""
    TYPE_PAUSED = "TYPE_PAUSED"
    """See TypePaused."""
    KEY_PAUSED = "KEY_PAUSED"
    """See KeyPaused."""
    CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT"
    """See LimitReached."""
    SCHEDULED = "SCHEDULED"
    """See Scheduled."""
    QUEUED = "QUEUED"
    """See Queued."""
    GROUP = "GROUP"
    """See WaitsForItsJobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitReason:
    """One reason why a job waits. `kind` says which; each kind but UNKNOWN has its own class."""

    kind: WaitKind = WaitKind.UNKNOWN
    """What keeps the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoWorker(WaitReason):
    """No worker asked for jobs of its type in the last 30 seconds."""

    kind: WaitKind = field(default=WaitKind.NO_WORKER, init=False)
    job_type: str
    """The type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypePaused(WaitReason):
    """Its type is paused."""

    kind: WaitKind = field(default=WaitKind.TYPE_PAUSED, init=False)
    job_type: str
    """The type."""
    pause: Pause
    """Since when, by whom and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPaused(WaitReason):
    """Its concurrency key is paused."""

    kind: WaitKind = field(default=WaitKind.KEY_PAUSED, init=False)
    concurrency_key: str
    """The key that is paused: the job's, or the part before its `:`."""
    pause: Pause
    """Since when, by whom and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached(WaitReason):
    """The limit of its concurrency key is reached."""

    kind: WaitKind = field(default=WaitKind.CONCURRENCY_LIMIT, init=False)
    concurrency_key: str
    """The job's key."""
    running: int
    """Jobs with this key that a worker holds."""
    max_running: int
    """How many may be held."""
    holder_job_ids: tuple[str, ...]
    """Up to 10 of these jobs, the oldest first. An owner is told its own only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled(WaitReason):
    """It is not due yet."""

    kind: WaitKind = field(default=WaitKind.SCHEDULED, init=False)
    schedule_time: datetime
    """When it will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(WaitReason):
    """It may be claimed, and others go first."""

    kind: WaitKind = field(default=WaitKind.QUEUED, init=False)
    ahead: int
    """Older jobs of its tenant, type and priority, which go before it; counted up to 1000."""
    capped: bool
    """Whether there are more than `ahead` says."""
    higher_priority: int
    """Jobs of its type with a higher priority that may be claimed."""
    tenants: int
    """Tenants with jobs of its type and priority that may be claimed, its own among them: its
    tenant gets one of so many starts. Counted up to 1000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsForItsJobs(WaitReason):
    """It is a group, which ends with its jobs."""

    kind: WaitKind = field(default=WaitKind.GROUP, init=False)
    open: int
    """Jobs of it that have not ended."""
    sealed: bool
    """Whether no job can be added any more. Until then it does not end."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A job, and why it waits."""

    job: Job
    """The job when it was read, in the view BASIC."""
    reasons: tuple[WaitReason, ...]
    """Everything that keeps it from being started now. Empty if it does not wait: it is held or
    terminal."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.ExplainJobResponse) -> Self:
        """Convert the message."""
        job = Job.from_proto(message.job, JobView.BASIC)
        return cls(job, tuple(map(_reason, message.reasons)))


def _reason(message: queue_service_pb2.WaitReason) -> WaitReason:
    match message.WhichOneof("reason"):
        case "no_worker":
            return NoWorker(job_type=message.no_worker.job_type)
        case "paused":
            pause = Pause.from_proto(message.paused.pause)
            key = message.paused.concurrency_key
            if key:
                return KeyPaused(concurrency_key=key, pause=pause)
            return TypePaused(job_type=message.paused.job_type, pause=pause)
        case "concurrency_limit":
            limit = message.concurrency_limit
            return LimitReached(
                concurrency_key=limit.concurrency_key,
                running=limit.running,
                max_running=limit.max_running,
                holder_job_ids=tuple(limit.holder_job_ids),
            )
        case "scheduled":
            return Scheduled(schedule_time=from_timestamp(message.scheduled.schedule_time))
        case "queued":
            queued = message.queued
            return Queued(
                ahead=queued.ahead,
                capped=queued.capped,
                higher_priority=queued.higher_priority,
                tenants=queued.tenants,
            )
        case "group":
            return WaitsForItsJobs(open=message.group.open, sealed=message.group.sealed)
    return WaitReason()
