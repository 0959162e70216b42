"""Job, Asset, Transition: what the service keeps. Frozen; a change makes a new value."""

import enum
from collections.abc import Mapping
from sys import getsizeof
from typing import NewType

from msgspec import Struct, field

JobId = NewType("JobId", str)
"""A UUIDv7 in its 36-character form, so that ids order by creation time."""

AssetId = NewType("AssetId", str)
"""A UUIDv7 in its 36-character form."""

Instant = NewType("Instant", int)
"""Microseconds since the Unix epoch, UTC, by the database server's clock."""

Micros = NewType("Micros", int)
"""A duration in microseconds."""

MICROS_PER_SECOND = 1_000_000
"""Microseconds in a second."""

Payload = NewType("Payload", bytes)
"""A serialized google.protobuf.Struct with its keys in order, so that equal
bytes mean equal content. Opaque here: nothing that the service decides depends
on what a caller keeps in it."""


OVERHEAD_BYTES = 2560
"""What a job takes besides what callers keep in it: with a change, its transition, and a queue
of its owner's."""

_LABEL_BYTES = 100
"""What a label takes in its mapping."""


def first_id(instant: Instant) -> JobId:
    """Return an id that is not greater than that of any job made at this time or later."""
    millis = f"{max(0, instant // 1000):012x}"
    return JobId(f"{millis[:8]}-{millis[8:]}-7000-8000-000000000000")


class JobStatus(enum.Enum):
    """The five states. Which follows which is said in `machine.TRANSITIONS`."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"

    # There is one of each. An Enum's own hash is that of its name, by a function in Python.
    __hash__ = object.__hash__


class JobError(Struct, frozen=True):
    """Why a job failed, or what is missing from a partial one.

    `reason` is UPPER_SNAKE_CASE for programs, `message` is for people and never
    empty.
    """

    reason: str
    message: str
    details: Payload | None = None


class Job(Struct, frozen=True, kw_only=True):
    """One piece of long work, as it stood after the change that gave it its `version`.

    A PROCESSING job is held by a worker while it has a `lease_expire_time`; with
    none it waits for one, as a QUEUED job does. `releases` counts the attempts
    that were given back and so were not used up. `outcome_digest` is the fingerprint
    of the report that ended the job: a repetition of it is told from another
    report by this alone.
    """

    id: JobId
    user_id: str
    job_type: str
    create_time: Instant
    update_time: Instant
    status: JobStatus = JobStatus.QUEUED
    progress: int = 0
    progress_message: str = ""
    parameters: Payload | None = None
    result: Payload | None = None
    error: JobError | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    max_attempts: int = 1
    releases: int = 0
    worker_id: str = ""
    request_id: str = ""
    start_time: Instant | None = None
    complete_time: Instant | None = None
    lease_duration: Micros | None = None
    lease_expire_time: Instant | None = None
    queue_timeout: Micros
    queue_expire_time: Instant | None = None
    run_timeout: Micros | None = None
    run_expire_time: Instant | None = None
    cancel_request_time: Instant | None = None
    cancel_reason: str = ""
    version: int = 1
    outcome_digest: bytes | None = None

    @property
    def content_bytes(self) -> int:
        """The memory that the job takes, with a change and its transition: never less than it is.

        A character takes at most 4 bytes.
        """
        texts = len(self.user_id) + 2 * len(self.worker_id) + len(self.request_id)
        texts += len(self.progress_message) + len(self.cancel_reason)
        size = OVERHEAD_BYTES + 4 * texts + len(self.parameters or b"") + len(self.result or b"")
        if self.labels:
            for key, value in self.labels.items():
                size += _LABEL_BYTES + getsizeof(key) + getsizeof(value)
        error = self.error
        if error is not None:
            size += getsizeof(error.message) + len(error.details or b"")
        return size

    @property
    def leased(self) -> bool:
        """Whether a worker holds it."""
        return self.lease_expire_time is not None


class AssetLink(Struct, frozen=True):
    """What a caller says of an asset that it wants linked."""

    asset_type: str
    url: str
    storage_path: str
    file_size: int


class Asset(Struct, frozen=True, kw_only=True):
    """An asset as linked to its job. It never changes."""

    id: AssetId
    job_id: JobId
    user_id: str
    link: AssetLink
    create_time: Instant
    request_id: str = ""


class Transition(Struct, frozen=True, kw_only=True):
    """One step along an edge of the state machine. Append-only.

    `version` and `attempt` are the job's after the step.
    """

    job_id: JobId
    from_status: JobStatus
    to_status: JobStatus
    version: int
    attempt: int
    actor: str
    reason: str
    time: Instant
