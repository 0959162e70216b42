"""Job, Asset, Transition: what the service stores. Immutable; a change makes a new value."""

import enum
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NewType

from msgspec import Struct, field
from msgspec.structs import fields

from jobledger_server.domain.children import Children

JobId = NewType("JobId", str)
"""A UUIDv7 in its 36-character form, so that ids sort by creation time."""

AssetId = NewType("AssetId", str)
"""A UUIDv7 in its 36-character form."""

Instant = NewType("Instant", int)
"""Microseconds since the Unix epoch, UTC, by the database server's clock."""

Micros = NewType("Micros", int)
"""A duration in microseconds."""

MICROS_PER_SECOND = 1_000_000
"""Microseconds in a second."""

Payload = NewType("Payload", bytes)
"""A serialized google.protobuf.Struct with sorted keys, so that equal bytes mean equal
content. Opaque: no decision depends on its content, and it is never empty: an empty Struct is
none."""


_LABEL_BYTES = 200
"""Memory that a label takes besides its characters."""


def _text_bytes(text: str) -> int:
    # A character takes at most 4 bytes, and 4 more once the text was encoded: Python keeps that.
    return len(text) if text.isascii() else 8 * len(text)


_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_id(text: str) -> bool:
    """Whether the text may be the id of a job or an asset: a UUID in the form of this service."""
    return _ID.fullmatch(text) is not None


ID_AHEAD = Micros(10 * MICROS_PER_SECOND)
"""The time of an id is less than this after the time at which it was made, and never before."""


def first_id(instant: Instant) -> JobId:
    """Return a lower bound of the ids of all jobs created at this time or later."""
    millis = f"{max(0, instant // 1000):012x}"
    return JobId(f"{millis[:8]}-{millis[8:]}-7000-8000-000000000000")


class JobStatus(enum.Enum):
    """The five states. `state_machine.TRANSITIONS` has the legal transitions."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"

    # Members are singletons, and Enum's own __hash__ is slow: it is written in Python.
    __hash__ = object.__hash__


class Phase(enum.IntEnum):
    """What a job that is not terminal is doing."""

    READY = 0
    """It waits in its queue, and may be claimed."""

    BLOCKED = 1
    """It waits for a free slot of its concurrency key."""

    SCHEDULED = 2
    """It waits for its time."""

    HELD = 3
    """A worker holds it."""

    WAITING = 4
    """It waits for other jobs: a group, for its children."""

    # As above.
    __hash__ = int.__hash__


class Silent(enum.IntEnum):
    """What the creator of a job may leave unsaid, so that the defaults of its type apply.

    Each is one bit of `Job.silent`.
    """

    RETRY_POLICY = 1
    QUEUE_TIMEOUT = 2
    RUN_TIMEOUT = 4
    STALL_TIMEOUT = 8
    PRIORITY = 16


class UnknownPhase(enum.Enum):
    """A phase that only newer servers know: see `decisions.decide`."""

    UNKNOWN = "UNKNOWN"


AnyPhase = Phase | UnknownPhase | None
"""None in a terminal job."""


DEFAULT_PRIORITY = 5
"""The priority of a job, unless its creator sets another one."""


class JobError(Struct, frozen=True):
    """Why a job failed, or what is missing from a partial one. Its details are a payload.

    `reason` is UPPER_SNAKE_CASE for programs. `message` is for people and never empty.
    """

    reason: str
    message: str


class Payloads(Struct, frozen=True):
    """The large content of a job, which is stored and read apart from it.

    `parameters` come with the creation, a `checkpoint` with a report, `result` and
    `error_details` with the end. A checkpoint has at most 64 KiB, each other at most 256 KiB.
    """

    parameters: Payload | None = None
    checkpoint: Payload | None = None
    result: Payload | None = None
    error_details: Payload | None = None

    @property
    def outcome_bytes(self) -> int:
        """Bytes of what comes with the end."""
        return len(self.result or b"") + len(self.error_details or b"")


NO_PAYLOADS = Payloads()
"""The payloads of a job that has none."""


DEFAULT_MAX_ATTEMPTS = 3
"""How many attempts of a job may be used up, unless its creator sets another number."""

DEFAULT_INITIAL_BACKOFF = Micros(MICROS_PER_SECOND)
"""The pause before the first retry, unless the creator sets another one."""

DEFAULT_MAX_BACKOFF = Micros(5 * 60 * MICROS_PER_SECOND)
"""The longest pause before a retry, unless the creator sets another one."""

DEFAULT_BACKOFF_MULTIPLIER = 2.0
"""How many times as long each pause is as the one before, unless the creator sets another one."""


CANCELLED = "CANCELLED"
"""The reason of a job that ended because its cancellation was requested. Workers cannot send it."""


DEFAULT_QUEUE_TIMEOUT = Micros(7 * 24 * 3600 * MICROS_PER_SECOND)
"""How long a job may wait for a worker, unless its creator sets another timeout."""


class Content(Struct, frozen=True, kw_only=True):
    """What a job has from its creation on, and its rerun too. See `Job` for the fields.

    A job and the command that creates it have each of these fields. It is copied and compared by
    their names, so a new one is written here and in `Job`, and nowhere else in the domain. Payloads
    are apart.
    """

    user_id: str
    job_type: str
    labels: Mapping[str, str] = field(default_factory=dict)
    silent: int = 0
    max_attempts: int = 0
    initial_backoff: Micros = DEFAULT_INITIAL_BACKOFF
    max_backoff: Micros = DEFAULT_MAX_BACKOFF
    backoff_multiplier: float = DEFAULT_BACKOFF_MULTIPLIER
    queue_timeout: Micros = DEFAULT_QUEUE_TIMEOUT
    stall_timeout: Micros | None = None
    run_timeout: Micros | None = None
    priority: int = DEFAULT_PRIORITY
    fairness_key: str = ""
    concurrency_key: str = ""
    unique_key: str = ""
    refuse_output: bool = False
    retention: Micros | None = None


CONTENT = Content.__struct_fields__
"""The names of what a job has from its creation on."""


NO_STREAMS: Mapping[str, str] = {}


class Job(Struct, frozen=True, gc=False):
    """A long-running job, as of one `version`, without its payloads.

    A PROCESSING job is leased by a worker while it has a `lease_expire_time`. Without one
    it waits for a worker, as a QUEUED job does, and is claimed not before its `schedule_time`,
    which its creator set, or its `retry_time`, which is set while it pauses before its next
    attempt. `releases` counts the attempts that were released and so not used up,
    `quick_releases` those since the last one that was not quick; see `leases.release`.
    `last_error` is that of the latest attempt that ended without ending the job.
    `outcome_digest` is a digest of the report that finished the job,
    by which a retry of that report is detected; it is None if the service finished the job.
    `traceparent` is the creator's trace context, which each attempt continues.
    `updates` is how often its owner has changed it, which is before its start only.
    `attempt_time` is when the current attempt started, `progress_time` is then or when its worker
    last reported something new. `report_number` is that of the attempt's latest numbered report.
    `parameters_bytes`, `checkpoint_bytes` and `outcome_bytes` are the sizes of its payloads; 0
    means that there are none. `asset_bytes` are those of the texts of its assets. `origin_job_id`
    is the job that this one runs again. `phase` is None in a terminal job; while nobody holds the
    job, it changes without a new version. A job counts for the tenant `fairness_key`, for its owner
    if that is empty. For `concurrency_key` and `unique_key`, see queues.py and `decisions.create`.

    `retention` is how long it is kept when it has ended; None leaves that to the service.
    `max_attempts` is 0 if neither its creator nor the defaults of its type set a policy. `silent`
    has the bits of what its creator left unsaid. `started_by_id` says that a worker started the
    current or the latest attempt by the job's id, without a claim: see `leases.has_attempts_left`.

    `group_id` is the group that it belongs to. A job with `children` is a group: no worker runs it.
    Until it is sealed its `queue_expire_time` is when that is done for it.

    `output_streams` are the streams of its output with their content types. A new one is no new
    version. With `refuse_output`, output that is too much is refused, and old output is kept.

    The columns of the table `jobs` are in the order of these fields. What a report changes is
    together, and so is what an end changes: PostgreSQL logs an update as the bytes from the first
    to the last that differ.
    """

    id: JobId
    user_id: str
    job_type: str
    create_time: Instant
    queue_timeout: Micros
    update_time: Instant
    version: int = 1
    progress_time: Instant | None = None
    stall_expire_time: Instant | None = None
    lease_expire_time: Instant | None = None
    progress: int = 0
    report_number: int = 0
    checkpoint_bytes: int = 0
    progress_message: str = ""
    asset_count: int = 0
    asset_bytes: int = 0
    status: JobStatus = JobStatus.QUEUED
    phase: AnyPhase = Phase.READY
    updates: int = 0
    children: Children | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    releases: int = 0
    quick_releases: int = 0
    started_by_id: bool = False
    worker_id: str = ""
    request_id: str = ""
    traceparent: str = ""
    origin_job_id: JobId | None = None
    group_id: JobId | None = None
    schedule_time: Instant | None = None
    retry_time: Instant | None = None
    start_time: Instant | None = None
    attempt_time: Instant | None = None
    complete_time: Instant | None = None
    lease_duration: Micros | None = None
    queue_expire_time: Instant | None = None
    stall_timeout: Micros | None = None
    run_timeout: Micros | None = None
    run_expire_time: Instant | None = None
    cancel_request_time: Instant | None = None
    cancel_reason: str = ""
    outcome_digest: bytes | None = None
    outcome_bytes: int = 0
    parameters_bytes: int = 0
    silent: int = 0
    max_attempts: int = 0
    initial_backoff: Micros = DEFAULT_INITIAL_BACKOFF
    max_backoff: Micros = DEFAULT_MAX_BACKOFF
    backoff_multiplier: float = DEFAULT_BACKOFF_MULTIPLIER
    priority: int = DEFAULT_PRIORITY
    fairness_key: str = ""
    concurrency_key: str = ""
    unique_key: str = ""
    refuse_output: bool = False
    retention: Micros | None = None
    output_streams: Mapping[str, str] = NO_STREAMS
    last_error: JobError | None = None
    error: JobError | None = None

    @property
    def tenant(self) -> str:
        """The tenant that the job is counted for."""
        return self.fairness_key or self.user_id

    @property
    def attempts_allowed(self) -> int:
        """How many attempts may be used up, as its creator said or by default."""
        return self.max_attempts or DEFAULT_MAX_ATTEMPTS

    @property
    def content_bytes(self) -> int:
        """An upper bound of what callers have put into the job, in memory or in a message."""
        # The tenant is a text of its own if it is the owner, and the actor of a transition is one.
        texts = [*_texts_of(self), self.tenant, self.worker_id]
        texts += (*self.labels, *self.labels.values())
        texts += [error.message for error in (self.last_error, self.error) if error is not None]
        if self.output_streams:
            texts += (*self.output_streams, *self.output_streams.values())
        joined = "".join(texts)
        size = len(joined) if joined.isascii() else sum(map(_text_bytes, texts))
        return size + _LABEL_BYTES * len(self.labels)

    @property
    def payload_bytes(self) -> int:
        """Bytes of its payloads."""
        return self.parameters_bytes + self.checkpoint_bytes + self.outcome_bytes

    @property
    def leased(self) -> bool:
        """Whether a worker holds a lease of the job."""
        return self.lease_expire_time is not None

    @property
    def due_time(self) -> Instant:
        """When it was first due: its creation, or the time that it is scheduled for."""
        return max(self.create_time, self.schedule_time or self.create_time)

    @property
    def cancelled(self) -> bool:
        """Whether it ended because its cancellation was requested."""
        return self.error is not None and self.error.reason == CANCELLED


REPORT_FIELDS = (
    "update_time",
    "version",
    "progress_time",
    "stall_expire_time",
    "lease_expire_time",
    "progress",
    "report_number",
    "checkpoint_bytes",
    "progress_message",
    "asset_count",
    "asset_bytes",
)
"""The fields of a job that a report or a new asset changes."""

_values_of = attrgetter(*CONTENT)
_texts_of = attrgetter(*(each.name for each in fields(Job) if each.type is str))


def content_of(origin: Content | Job) -> dict[str, Any]:
    """Return what a job has from its creation on, of the job or of the command that creates it."""
    return dict(zip(CONTENT, _values_of(origin), strict=True))


class AttemptOutcome(enum.Enum):
    """How an attempt ended."""

    COMPLETED = "COMPLETED"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    STALLED = "STALLED"
    RELEASED = "RELEASED"
    RETRIED = "RETRIED"

    __hash__ = object.__hash__


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt to run a job.

    Only attempts that ended without ending their job are stored. The last one is a part of the
    job; see `leases.last_attempt`. It has no `outcome` and no `end_time` while it runs.
    """

    job_id: JobId
    number: int
    worker_id: str
    start_time: Instant
    progress: int
    end_time: Instant | None = None
    outcome: AttemptOutcome | None = None
    error: JobError | None = None


class AssetLink(Struct, frozen=True):
    """An asset as a caller describes it. `sha256` and `etag` are empty if it gave none."""

    asset_type: str
    url: str
    storage_path: str
    file_size: int
    name: str
    sha256: str = ""
    etag: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """Where the file is."""
        return self.url, self.storage_path

    @property
    def text_bytes(self) -> int:
        """Bytes of its texts, in a message."""
        texts = self.asset_type + self.url + self.storage_path + self.name
        return len((texts + self.sha256 + self.etag).encode())


class Asset(Struct, frozen=True, kw_only=True):
    """An asset that is linked to its job, by its `attempt`. See `assets.link`.

    Its name is empty if a later attempt has replaced it.
    """

    id: AssetId
    job_id: JobId
    link: AssetLink
    create_time: Instant
    attempt: int
    request_id: str = ""


class Transition(Struct, frozen=True, kw_only=True):
    """One transition of a job. Append-only.

    `version` and `attempt` are the job's after the transition.
    """

    job_id: JobId
    from_status: JobStatus
    to_status: JobStatus
    version: int
    attempt: int
    actor: str
    reason: str
    time: Instant
