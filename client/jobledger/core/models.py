"""Jobs and what belongs to them, as immutable Python values.

Every call of the clients takes and returns these. `to_proto` and `from_proto` convert from and to
the messages of `jobledger.v1`. Times are aware datetimes in UTC, or None if they are not set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.core.conversion import (
    Seconds,
    build,
    from_duration,
    from_struct,
    from_timestamp,
    to_duration,
    to_struct,
    to_timestamp,
)
from jobledger.core.display_states import DisplayState
from jobledger.core.plain import plain
from jobledger.v1 import asset_pb2, job_pb2, worker_service_pb2


class JobStatus(StrEnum):
    """Where a job stands. Each member equals its name: `JobStatus.QUEUED == "QUEUED"`."""

    UNKNOWN = "UNKNOWN"
    """A status that this version of the client does not know; no service sends it today."""
    QUEUED = "QUEUED"
    """Created; no worker has claimed it yet."""
    PROCESSING = "PROCESSING"
    """A worker has started it."""
    COMPLETED = "COMPLETED"
    """Terminal: everything was done."""
    PARTIAL = "PARTIAL"
    """Terminal: some of it was done."""
    FAILED = "FAILED"
    """Terminal: it was not done."""

    @property
    def is_terminal(self) -> bool:
        """Whether a job with this status never changes again."""
        return self in _TERMINAL

    @classmethod
    def from_proto(cls, number: int) -> Self:
        """Convert a number of the enum `jobledger.v1.JobStatus`."""
        return cls(_STATUSES.get(number, "UNKNOWN"))

    def to_proto(self) -> "job_pb2.JobStatus.ValueType":
        """Convert to a number of the enum `jobledger.v1.JobStatus`."""
        return _STATUS_NUMBERS[self.value]


_TERMINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED})
_STATUSES: Final[Mapping[int, str]] = {
    number: name.removeprefix("JOB_STATUS_") for name, number in job_pb2.JobStatus.items() if number
}
_STATUS_NUMBERS: Final[Mapping[str, "job_pb2.JobStatus.ValueType"]] = {
    "UNKNOWN": job_pb2.JOB_STATUS_UNSPECIFIED,
    **{name.removeprefix("JOB_STATUS_"): number for name, number in job_pb2.JobStatus.items()},
}


class JobPhase(StrEnum):
    """What a job that is not terminal is doing. Each member equals its name."""

    READY = "READY"
    """It can be claimed."""
    BLOCKED = "BLOCKED"
    """It waits for a free slot of its `concurrency_key`."""
    SCHEDULED = "SCHEDULED"
    """It waits for its `schedule_time`."""
    HELD = "HELD"
    """A worker holds it."""
    WAITING = "WAITING"
    """It is a group, which ends with its jobs."""

    def to_proto(self) -> "job_pb2.JobPhase.ValueType":
        """Convert to a number of the enum `jobledger.v1.JobPhase`."""
        return job_pb2.JobPhase.Value(f"JOB_PHASE_{self.value}")


class JobView(StrEnum):
    """How much of a job is read. Each member equals its name: `JobView.BASIC == "BASIC"`."""

    BASIC = "BASIC"
    """Without payloads: `parameters`, `result` and the `details` of the error are None."""
    FULL = "FULL"
    """Everything."""

    @classmethod
    def from_proto(cls, number: int) -> "JobView":
        """Convert a number of the enum `jobledger.v1.JobView`."""
        return cls.FULL if number == job_pb2.JOB_VIEW_FULL else cls.BASIC

    def to_proto(self) -> "job_pb2.JobView.ValueType":
        """Convert to a number of the enum `jobledger.v1.JobView`."""
        return job_pb2.JOB_VIEW_FULL if self is JobView.FULL else job_pb2.JOB_VIEW_BASIC


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job is FAILED, or what is missing of a PARTIAL one."""

    message: str
    """For people: 1 to 4096 characters."""
    reason: str = field(default="", kw_only=True)
    """For programs: UPPER_SNAKE_CASE, at most 63 characters."""
    details: Mapping[str, Any] | None = field(default=None, kw_only=True, hash=False)
    """More facts: a JSON object of at most 256 KiB. None also in the view BASIC."""

    @classmethod
    def from_proto(cls, message: job_pb2.JobError) -> Self:
        """Convert the message."""
        details = from_struct(message.details) if message.HasField("details") else None
        return cls(message.message, reason=message.reason, details=details)

    def to_proto(self) -> job_pb2.JobError:
        """Convert to the message.

        Raises:
            ValueError: `details` is no JSON object.
        """
        return build(
            job_pb2.JobError,
            message=self.message,
            reason=self.reason,
            details=to_struct(self.details, "details"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a job is tried, and how long it waits in between.

    An attempt is used up by a lost lease, a stall or a retryable failure, not by a release. The
    pause before a retry is drawn evenly from 0.8 to 1.2 times the backoff. The fields have the
    names of gRPC's own retry policy.
    """

    max_attempts: int = 3
    """How many attempts may be used up, 1 to 1000. With 1 the job is run at most once."""
    initial_backoff: Seconds | None = None
    """Seconds, or a timedelta, before the first retry: 0.1 seconds to 24 hours. Default: 1 s."""
    max_backoff: Seconds | None = None
    """The longest backoff, at most 7 days. Default: 5 minutes, or `initial_backoff` if that is
    longer."""
    backoff_multiplier: float | None = None
    """How many times as long each backoff is as the one before, 1 to 100. Default: 2."""

    @classmethod
    def from_proto(cls, message: job_pb2.RetryPolicy) -> Self:
        """Convert the message."""
        return cls(
            max_attempts=message.max_attempts,
            initial_backoff=from_duration(message.initial_backoff),
            max_backoff=from_duration(message.max_backoff),
            backoff_multiplier=message.backoff_multiplier,
        )

    def to_proto(self) -> job_pb2.RetryPolicy:
        """Convert to the message.

        Raises:
            TypeError: a field has the wrong type; the error names it.
            ValueError: a message cannot hold a field, or `max_attempts` is 0, which the service
                would take for the default.
        """
        if self.max_attempts == 0:
            raise ValueError("max_attempts: is 0; the first attempt counts")
        return build(
            job_pb2.RetryPolicy,
            max_attempts=self.max_attempts,
            initial_backoff=to_duration(self.initial_backoff, "initial_backoff"),
            max_backoff=to_duration(self.max_backoff, "max_backoff"),
            backoff_multiplier=self.backoff_multiplier or 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What the jobs of a group do. The counts change in the commit that changes the jobs."""

    total: int
    """All its jobs."""
    queued: int
    """Those in QUEUED."""
    processing: int
    """Those in PROCESSING."""
    completed: int
    """Those in COMPLETED."""
    partial: int
    """Those in PARTIAL."""
    failed: int
    """Those in FAILED."""
    sealed: bool
    """Whether no job can be added any more; see seal_group()."""
    fail_fast: bool
    """Whether the first job that becomes FAILED cancels the others."""

    @classmethod
    def from_proto(cls, message: job_pb2.Group) -> Self:
        """Convert the message."""
        return cls(**{name: getattr(message, name) for name in _GROUP_FIELDS})

    def to_proto(self) -> job_pb2.Group:
        """Convert to the message."""
        return job_pb2.Group(**{name: getattr(self, name) for name in _GROUP_FIELDS})


_GROUP_FIELDS: Final = tuple(field.name for field in job_pb2.Group.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Job:
    """A job at one of its versions.

    Two are equal if their `id` and `version` are. Change no dict in it: it may be shared.
    """

    id: str
    """A UUID, made by the service."""
    user_id: str = ""
    """The owner."""
    job_type: str
    """What kind of work it is."""
    status: JobStatus = JobStatus.QUEUED
    """Where the job stands."""
    version: int = 1
    """Grows with each change of the job."""
    progress: int = 0
    """Percent, 0 to 100."""
    progress_message: str = ""
    """What the worker last said, for people."""
    parameters: dict[str, Any] | None = field(default_factory=dict)
    """The input: whole numbers are `int`, and it is empty if the creator gave none.

    None only if the job was read in the view BASIC, without payloads."""
    result: dict[str, Any] | None = None
    """The output; None until the job has one, and in the view BASIC: then `parameters` is None."""
    error: JobError | None = None
    """Why it is FAILED or PARTIAL."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The owner's own key-value pairs."""
    attempt: int = 0
    """0 before the first start, 1 for the first attempt. Fences the calls of workers."""
    retry_policy: RetryPolicy = RetryPolicy()
    """How often it is tried, and how long it waits in between."""
    last_error: JobError | None = None
    """Why the latest attempt ended that ended without ending the job."""
    checkpoint: dict[str, Any] | None = None
    """Where the next attempt goes on, if a worker has said so; None in the view BASIC."""
    existing: bool = False
    """Of a creation or a rerun: whether the job was there before the call, for its `request_id`,
    its `unique_key`, or because the other job was rerun before."""
    origin_job_id: str = ""
    """The job that this one runs again; empty if it is no rerun."""
    priority: int = 5
    """0 to 9. Among jobs of its type, one with a higher priority is always claimed first."""
    fairness_key: str = ""
    """The tenant that it is counted for: tenants whose jobs wait are claimed for in turn. The
    owner if the creator gave none."""
    concurrency_key: str = ""
    """What it uses that bears only so much at once; empty for none."""
    unique_key: str = ""
    """Of the owner's jobs of this type, at most one with this key is not terminal. Empty for
    none."""
    request_id: str = ""
    """The id of the request that created it. Empty for workers and for holders of watch tokens."""
    worker_id: str = ""
    """Who works on it, or did last."""
    held: bool = False
    """Whether a worker holds it."""
    cancelled: bool = False
    """Whether it ended because its cancellation was requested: it is FAILED with CANCELLED."""
    create_time: datetime | None = None
    """When it was created."""
    start_time: datetime | None = None
    """When its first attempt started."""
    update_time: datetime | None = None
    """When it last changed."""
    complete_time: datetime | None = None
    """When it reached its terminal state."""
    lease_expire_time: datetime | None = None
    """When the attempt is lost unless its worker renews the lease."""
    schedule_time: datetime | None = None
    """It is not claimed before: as its creator or update_job() said, or while it pauses before its
    next attempt."""
    queue_expire_time: datetime | None = None
    """When it is FAILED unless a worker has started it."""
    run_expire_time: datetime | None = None
    """When it is FAILED unless it has reached a terminal state."""
    stall_timeout: timedelta | None = None
    """How long an attempt may go without progress before it is lost; heartbeats do not count."""
    retention: timedelta | None = None
    """How long it is kept after its end, from the defaults of its type. None: as the operator has
    set for all jobs."""
    progress_time: datetime | None = None
    """When the attempt last made progress: it started, or reported something new."""
    cancel_request_time: datetime | None = None
    """When somebody asked to cancel it."""
    cancel_reason: str = ""
    """Why, for people."""
    traceparent: str = ""
    """The trace of its creator (W3C Trace Context), which each attempt continues."""
    output_streams: Mapping[str, str] = field(default_factory=dict)
    """The streams of output that its workers have begun, at most 8: their content types by name.
    A watch shows a new one with the next change."""
    refuse_output: bool = False
    """Whether output is refused that is more than the service keeps of a job. Otherwise the oldest
    goes."""
    group_id: str = ""
    """The group that it belongs to; empty for none."""
    group: Group | None = None
    """Set if it is a group: what its jobs do. No worker runs it, and it ends with its jobs."""

    @property
    def is_terminal(self) -> bool:
        """Whether the job never changes again."""
        return self.status.is_terminal

    @property
    def awaits_retry(self) -> bool:
        """Whether it was started and waits for its next attempt: PROCESSING, and not held."""
        return self.status is JobStatus.PROCESSING and not self.held

    @property
    def display_state(self) -> DisplayState:
        """What it does now, in one word for people; by this machine's clock, SCHEDULED ends."""
        return self.display_state_at(datetime.now(UTC))

    def display_state_at(self, now: datetime) -> DisplayState:
        """Return `display_state` at another time.

        Args:
            now: the time; with a time zone.
        """
        if self.is_terminal:
            return DisplayState.CANCELLED if self.cancelled else DisplayState(self.status.value)
        if self.status is JobStatus.UNKNOWN:
            return DisplayState.UNKNOWN
        if self.cancel_request_time is not None:
            return DisplayState.CANCELLING
        if self.status is JobStatus.QUEUED:
            is_due = self.schedule_time is None or self.schedule_time <= now
            return DisplayState.QUEUED if is_due else DisplayState.SCHEDULED
        runs = self.held or self.group is not None
        return DisplayState.RUNNING if runs else DisplayState.WAITING_FOR_RETRY

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with all fields: what `jobledger get --json` prints.

        Times are RFC 3339 in UTC, time spans seconds, as in `90s`; what is not set is None.
        """
        fields: dict[str, Any] = plain(self)
        return fields

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Job):
            return NotImplemented
        return (self.id, self.version) == (other.id, other.version)

    def __hash__(self) -> int:
        return hash((self.id, self.version))

    def __repr__(self) -> str:
        return (
            f"<Job {self.id} {self.job_type!r} {self.status.value} {self.progress} %"
            f" attempt={self.attempt} version={self.version}>"
        )

    @classmethod
    def from_proto(
        cls, message: job_pb2.Job, view: JobView = JobView.FULL, *, existing: bool = False
    ) -> Self:
        """Convert the message of a job that was read in this view; `existing` see there."""
        parameters = from_struct(message.parameters) if view is JobView.FULL else None
        fields: dict[str, Any] = {name: getattr(message, name) for name in _JOB_PLAIN}
        for descriptor, value in message.ListFields():
            if isinstance(value, Timestamp):
                fields[descriptor.name] = from_timestamp(value)
            elif isinstance(value, Duration):
                fields[descriptor.name] = from_duration(value)
        return cls(
            existing=existing,
            status=JobStatus.from_proto(message.status),
            parameters=parameters,
            result=from_struct(message.result) if message.HasField("result") else None,
            error=JobError.from_proto(message.error) if message.HasField("error") else None,
            labels=dict(message.labels),
            retry_policy=RetryPolicy.from_proto(message.retry_policy),
            last_error=JobError.from_proto(message.last_error)
            if message.HasField("last_error")
            else None,
            checkpoint=from_struct(message.checkpoint) if message.HasField("checkpoint") else None,
            output_streams={each.name: each.content_type for each in message.output_streams},
            group=Group.from_proto(message.group) if message.HasField("group") else None,
            **fields,
        )

    def to_proto(self) -> job_pb2.Job:
        """Convert to the message.

        Raises:
            ValueError: `parameters`, `result` or the error's details are no JSON objects, or a
                time has no time zone.
        """
        fields: dict[str, Any] = {
            **{name: getattr(self, name) for name in _JOB_PLAIN},
            **{name: to_timestamp(getattr(self, name), name) for name in _JOB_TIMES},
            **{name: to_duration(getattr(self, name), name) for name in _JOB_SPANS},
        }
        return job_pb2.Job(
            status=self.status.to_proto(),
            parameters=to_struct(self.parameters or None, "parameters"),
            result=to_struct(self.result, "result"),
            error=None if self.error is None else self.error.to_proto(),
            labels=self.labels,
            retry_policy=self.retry_policy.to_proto(),
            last_error=None if self.last_error is None else self.last_error.to_proto(),
            checkpoint=to_struct(self.checkpoint, "checkpoint"),
            output_streams=[
                job_pb2.OutputStream(name=name, content_type=content_type)
                for name, content_type in self.output_streams.items()
            ],
            group=None if self.group is None else self.group.to_proto(),
            **fields,
        )


def _of_type(message: type[Message]) -> tuple[str, ...]:
    """Return the names of a job's fields that are such messages."""
    fields = job_pb2.Job.DESCRIPTOR.fields
    return tuple(field.name for field in fields if field.message_type is message.DESCRIPTOR)


_JOB_TIMES: Final = _of_type(Timestamp)
_JOB_SPANS: Final = _of_type(Duration)
_JOB_PLAIN: Final = tuple(
    field.name
    for field in job_pb2.Job.DESCRIPTOR.fields
    if field.message_type is None and field.enum_type is None
)


@dataclass(frozen=True, slots=True)
class Asset:
    """Something that a job made, and where it is.

    A worker gives the first fields; the service adds the last four. The same asset again, also in a
    later attempt, changes nothing. Another one of its name is refused with AssetNameTaken, unless
    an earlier attempt linked the first: then it replaces it.
    """

    asset_type: str
    """1 to 50 characters, for instance a media type."""
    url: str = field(default="", kw_only=True)
    """Where it is; this or `storage_path` is required."""
    storage_path: str = field(default="", kw_only=True)
    """Where it is, for programs that share a storage."""
    file_size: int = field(default=0, kw_only=True)
    """Bytes."""
    name: str = field(default="", kw_only=True)
    """Its name, unique within the job: at most 255 characters. Default: the last part of the path
    of `url`, or of `storage_path`, or `asset_type`. Empty for one that a later attempt replaced."""
    sha256: str = field(default="", kw_only=True)
    """The SHA-256 digest of its content: 64 hexadecimal digits, or empty."""
    etag: str = field(default="", kw_only=True)
    """The entity tag that its store gave it: at most 255 characters."""
    id: str = field(default="", kw_only=True)
    """A UUID, made by the service."""
    job_id: str = field(default="", kw_only=True)
    """The job that made it."""
    user_id: str = field(default="", kw_only=True)
    """The job's owner."""
    create_time: datetime | None = field(default=None, kw_only=True)
    """When it was linked."""

    @classmethod
    def from_proto(cls, message: asset_pb2.Asset) -> Self:
        """Convert the message."""
        return cls(
            message.asset_type,
            url=message.url,
            storage_path=message.storage_path,
            file_size=message.file_size,
            name=message.name,
            sha256=message.sha256,
            etag=message.etag,
            id=message.id,
            job_id=message.job_id,
            user_id=message.user_id,
            create_time=from_timestamp(message.create_time)
            if message.HasField("create_time")
            else None,
        )

    def to_new_proto(self) -> asset_pb2.NewAsset:
        """Convert to the message of an asset to link: the fields that a worker gives."""
        return build(
            asset_pb2.NewAsset,
            asset_type=self.asset_type,
            url=self.url,
            storage_path=self.storage_path,
            file_size=self.file_size,
            name=self.name,
            sha256=self.sha256,
            etag=self.etag,
        )

    def to_proto(self) -> asset_pb2.Asset:
        """Convert to the message."""
        return build(
            asset_pb2.Asset,
            asset_type=self.asset_type,
            url=self.url,
            storage_path=self.storage_path,
            file_size=self.file_size,
            name=self.name,
            sha256=self.sha256,
            etag=self.etag,
            id=self.id,
            job_id=self.job_id,
            user_id=self.user_id,
            create_time=to_timestamp(self.create_time, "create_time"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step of a job from a status to another."""

    job_id: str
    """The job."""
    from_status: JobStatus
    """The status before."""
    to_status: JobStatus
    """The status from then on."""
    version: int
    """The job's version from then on."""
    attempt: int
    """The job's attempt from then on."""
    actor: str
    """What caused it: a worker's id, a user's id, `worker` or `system`."""
    reason: str
    """Why, for programs; may be empty."""
    time: datetime
    """When, by the database server's clock."""

    @classmethod
    def from_proto(cls, message: job_pb2.JobTransition) -> Self:
        """Convert the message."""
        return cls(
            job_id=message.job_id,
            from_status=JobStatus.from_proto(message.from_status),
            to_status=JobStatus.from_proto(message.to_status),
            version=message.version,
            attempt=message.attempt,
            actor=message.actor,
            reason=message.reason,
            time=from_timestamp(message.time),
        )

    def to_proto(self) -> job_pb2.JobTransition:
        """Convert to the message."""
        return job_pb2.JobTransition(
            job_id=self.job_id,
            from_status=self.from_status.to_proto(),
            to_status=self.to_status.to_proto(),
            version=self.version,
            attempt=self.attempt,
            actor=self.actor,
            reason=self.reason,
            time=to_timestamp(self.time, "time"),
        )


@dataclass(frozen=True, slots=True)
class JobChange:
    """What a watch of one job yields."""

    job: Job
    """The job as it is now. In the view FULL each one is complete."""
    transitions: tuple[Transition, ...] = ()
    """Its transitions since the change before, in order and complete."""
    heartbeat: bool = False
    """Whether nothing has changed for so long as the watch's `heartbeats` says: the job is that of
    the change before. It may have changed since if `silence` is long."""
    silence: float = 0.0
    """With `heartbeat`: seconds since the service has sent anything. It sends at least its own
    heartbeats, by default every 15 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent:
    """What a watch of many jobs yields: a change of one job, or a note about the watch."""

    job: Job | None
    """The job as it is now; None with `synced` and `heartbeat`.

    Of a deleted job only what identifies it is set. In a watch with the view FULL a job has its
    payloads in the listing, while it is QUEUED and with its transitions; otherwise its view is
    BASIC.
    """
    transitions: tuple[Transition, ...] = ()
    """Its transitions since the event of this job before, in order and complete."""
    deleted: bool = False
    """Whether the job was deleted."""
    deleted_assets: tuple[Asset, ...] = ()
    """The assets of a deleted job, oldest first: what is to be removed where they are stored. With
    those that later attempts replaced."""
    synced: bool = False
    """Whether all that was there when the watch started has been yielded."""
    heartbeat: bool = False
    """Whether nothing has changed for so long as the watch's `heartbeats` says."""
    silence: float = 0.0
    """With `heartbeat`: seconds since the service has sent anything. It sends at least its own
    heartbeats, by default every 15 s."""
    resume_token: str = ""
    """Start the next watch with it to go on after this event.

    Changes that came in one message share its token: the last of them has it, and those before it
    have the token of the message before, if there was one. A watch that starts with theirs repeats
    changes and skips none.
    """


@dataclass(frozen=True, slots=True)
class ProgressResult:
    """The service's answer to a progress report."""

    job: Job
    """The job as it is now, in the view BASIC."""
    applied: bool
    """False if the job is terminal: the report changed nothing."""
    cancel_requested: bool
    """Whether somebody asked to cancel the job: clean up and finish it."""

    @classmethod
    def from_proto(cls, message: worker_service_pb2.UpdateProgressResponse) -> Self:
        """Convert the message."""
        job = Job.from_proto(message.job, JobView.BASIC)
        return cls(job, message.applied, message.cancel_requested)
