"""What operators read and set: counts, pauses, limits and defaults, as immutable Python values."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from jobledger.core.conversion import from_duration, from_timestamp
from jobledger.core.models import JobStatus, RetryPolicy
from jobledger.v1 import queue_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of a job type or of a concurrency key."""

    pause_time: datetime
    """When it began, by the database server's clock."""
    actor: str
    """Who paused it; empty on a server that knows no callers, and for owners."""
    reason: str
    """Why, for people; may be empty."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.Pause) -> Self:
        """Convert the message."""
        return cls(
            pause_time=from_timestamp(message.pause_time),
            actor=message.actor,
            reason=message.reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJobs:
    """How many jobs ended in the same way."""

    status: JobStatus
    """The terminal status."""
    reason: str
    """The reason of their error; empty if they have none. OTHER stands for further reasons where
    a type has more than 100 of them in an hour."""
    count: int
    """How many."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.EndedJobs) -> Self:
        """Convert the message."""
        status = JobStatus.from_proto(message.status)
        return cls(status=status, reason=message.reason, count=message.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityStats:
    """The jobs of one type and priority that are not terminal; see JobTypeStats."""

    priority: int
    """The priority."""
    ready: int
    """Those that a worker may claim now."""
    blocked: int
    """Those whose concurrency limit is reached, or whose key is paused."""
    scheduled: int
    """Those that wait for their `schedule_time`."""
    held: int
    """Those that a worker holds."""
    waiting: int
    """Groups, which end with their jobs."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.PriorityStats) -> Self:
        """Convert the message."""
        return cls(
            priority=message.priority,
            ready=message.ready,
            blocked=message.blocked,
            scheduled=message.scheduled,
            held=message.held,
            waiting=message.waiting,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTypeStats:
    """How many jobs of one type there are. One that is not terminal is counted once."""

    job_type: str
    """The type."""
    ready: int
    """Those that a worker may claim now, also while the type is paused."""
    blocked: int
    """Those whose concurrency limit is reached, or whose key is paused. A job is counted here from
    the first time on that a claim passed over it."""
    scheduled: int
    """Those that wait for their `schedule_time`."""
    held: int
    """Those that a worker holds."""
    waiting: int
    """Groups, which end with their jobs."""
    oldest_wait: timedelta | None
    """How long the oldest one waits that may be claimed now, since its creation or since it became
    due. None if none waits, and for one tenant."""
    pause: Pause | None
    """Set while the type is paused."""
    polled: bool
    """Whether a worker asked for jobs of this type in the last 30 seconds."""
    ended_last_minute: tuple[EndedJobs, ...]
    """Those that ended in the last 60 seconds, in steps of 10 seconds. Empty for one tenant."""
    ended_last_hour: tuple[EndedJobs, ...]
    """Those that ended in the last hour. Empty for one tenant."""
    priorities: tuple[PriorityStats, ...]
    """The same counts by priority, the highest first."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.JobTypeStats) -> Self:
        """Convert the message."""
        return cls(
            job_type=message.job_type,
            ready=message.ready,
            blocked=message.blocked,
            scheduled=message.scheduled,
            held=message.held,
            waiting=message.waiting,
            oldest_wait=from_duration(message.oldest_wait)
            if message.HasField("oldest_wait")
            else None,
            pause=Pause.from_proto(message.pause) if message.HasField("pause") else None,
            polled=message.polled,
            ended_last_minute=tuple(map(EndedJobs.from_proto, message.ended_last_minute)),
            ended_last_hour=tuple(map(EndedJobs.from_proto, message.ended_last_hour)),
            priorities=tuple(map(PriorityStats.from_proto, message.priorities)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimit:
    """A limit, or a pause, of a concurrency key, or of all keys that begin with it and a `:`."""

    name: str
    """The key, or the part of the keys before their first `:`."""
    max_running: int | None
    """How many jobs with one such key may be held at once; None for no limit."""
    pause: Pause | None
    """Set while it is paused."""
    running: int
    """Jobs with these keys that a worker holds. Of very many keys only the first are counted."""
    blocked: int
    """Jobs with these keys that are blocked; see JobTypeStats."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.ConcurrencyLimit) -> Self:
        """Convert the message."""
        return cls(
            name=message.name,
            max_running=message.max_running if message.HasField("max_running") else None,
            pause=Pause.from_proto(message.pause) if message.HasField("pause") else None,
            running=message.running,
            blocked=message.blocked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTypeDefaults:
    """What a job of a type has where its creation says nothing. None leaves it to the service."""

    retry_policy: RetryPolicy | None = None
    """How often it is tried. A creation with a policy of its own has nothing of this one."""
    queue_timeout: timedelta | None = None
    """How long it may wait for a worker."""
    run_timeout: timedelta | None = None
    """How long it may take from its first start on."""
    stall_timeout: timedelta | None = None
    """How long an attempt may go without news."""
    priority: int | None = None
    """0 to 9."""
    retention: timedelta | None = None
    """How long it is kept when it has ended."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.JobTypeDefaults) -> Self:
        """Convert the message."""
        policy = message.retry_policy if message.HasField("retry_policy") else None
        return cls(
            retry_policy=None if policy is None else RetryPolicy.from_proto(policy),
            queue_timeout=from_duration(message.queue_timeout)
            if message.HasField("queue_timeout")
            else None,
            run_timeout=from_duration(message.run_timeout)
            if message.HasField("run_timeout")
            else None,
            stall_timeout=from_duration(message.stall_timeout)
            if message.HasField("stall_timeout")
            else None,
            priority=message.priority if message.HasField("priority") else None,
            retention=from_duration(message.retention) if message.HasField("retention") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """A job type, and the defaults that operators have set for it."""

    job_type: str
    """The type."""
    defaults: JobTypeDefaults
    """Its defaults."""

    @classmethod
    def from_proto(cls, message: queue_service_pb2.JobType) -> Self:
        """Convert the message."""
        defaults = JobTypeDefaults.from_proto(message.defaults)
        return cls(job_type=message.job_type, defaults=defaults)
