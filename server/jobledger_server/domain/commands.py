"""Commands: every request to create or change jobs. `decisions` decides their outcomes."""

from collections.abc import Collection

from msgspec import Struct

from jobledger_server.domain.job import (
    MICROS_PER_SECOND,
    AssetLink,
    Content,
    Instant,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Phase,
)
from jobledger_server.domain.output import DEFAULT_CONTENT_TYPE

DEFAULT_START_LEASE = Micros(3600 * MICROS_PER_SECOND)
"""The lease of a job that was started by its id, unless its worker sets another one."""


class NewGroup(Struct, frozen=True):
    """What a group is created with: see `children.Children`."""

    fail_fast: bool = False
    sealed: bool = False


class Create(Content, frozen=True, kw_only=True):
    """Create a job. Idempotent if `request_id` is not empty, or if it has an `origin_job_id`.

    With an `origin_job_id` it is the rerun of that job, which is terminal and has this content,
    unless it has one already. `traceparent` is no content: a retry may belong to another trace.
    `max_attempts` is 0 if it has no policy. `silent` is what it leaves to the defaults of its type:
    these fields have the service's own defaults here.
    With a `delay` it is due so long after its creation, and has no `schedule_time`.
    If another job of this owner and type with its `unique_key` is not terminal, it is refused, or
    returns that job if it is to `return_existing`.
    With a `group` it is one, `group_id` is the group that it belongs to. In CreateAll that may be
    the job of an earlier creation, whose index is `group_index`.
    """

    parameters: Payload | None = None
    request_id: str = ""
    schedule_time: Instant | None = None
    delay: Micros | None = None
    traceparent: str = ""
    origin_job_id: JobId | None = None
    return_existing: bool = False
    group: NewGroup | None = None
    group_id: JobId | None = None
    group_index: int | None = None


class CreateAll(Struct, frozen=True):
    """Create all of these jobs, or none."""

    creations: tuple[Create, ...]


class Claim(Struct, frozen=True, kw_only=True):
    """Start attempts of jobs of these types that wait in a queue, for one worker."""

    worker_id: str
    job_types: Collection[str]
    max_jobs: int
    lease_duration: Micros


class ChangeStatus(Struct, frozen=True, kw_only=True):
    """Move a job to `target`. `attempt` and `expected_version` are checked if given.

    A `retryable` failure requeues the job if attempts are left, after `retry_delay` if given.
    """

    job_id: JobId
    target: JobStatus
    attempt: int | None = None
    expected_version: int | None = None
    progress: int | None = None
    progress_message: str | None = None
    result: Payload | None = None
    error: JobError | None = None
    error_details: Payload | None = None
    assets: tuple[AssetLink, ...] = ()
    retryable: bool = False
    retry_delay: Micros | None = None
    worker_id: str = ""
    lease_duration: Micros | None = None
    job_types: frozenset[str] | None = None


class Report(Struct, frozen=True, kw_only=True):
    """Report the progress of a running job. A report that says nothing new is a heartbeat.

    So is one whose `number`, if it has one, is not greater than that of an earlier one.
    """

    job_id: JobId
    attempt: int | None = None
    progress: int | None = None
    progress_message: str | None = None
    checkpoint: Payload | None = None
    number: int = 0
    job_types: frozenset[str] | None = None


class LinkAsset(Struct, frozen=True, kw_only=True):
    """Link an asset to a running job. Idempotent: the job has one asset of each name."""

    job_id: JobId
    link: AssetLink
    attempt: int | None = None
    request_id: str = ""
    job_types: frozenset[str] | None = None


class AppendOutput(Struct, frozen=True, kw_only=True):
    """Append to a stream of a running job's output. Idempotent by `number`, if it has one.

    It is that of the attempt and the stream.
    """

    job_id: JobId
    attempt: int
    data: bytes
    stream: str = ""
    content_type: str = DEFAULT_CONTENT_TYPE
    number: int = 0
    job_types: frozenset[str] | None = None


class Release(Struct, frozen=True, kw_only=True):
    """Release an unfinished job, so that it can be claimed again; the attempt is not used up.

    The job waits for `delay` at least.
    """

    job_id: JobId
    attempt: int
    delay: Micros = Micros(0)
    job_types: frozenset[str] | None = None


class Cancel(Struct, frozen=True, kw_only=True):
    """Cancel a job of this owner: at once if no worker leases it, else ask its worker to.

    Only in one of `statuses` and `phases`, if there are any, of this worker if it is named, and
    leased or not as `held` says, if it is set.
    """

    job_id: JobId
    user_id: str
    reason: str = ""
    statuses: frozenset[JobStatus] = frozenset()
    held: bool | None = None
    phases: frozenset[Phase] = frozenset()
    worker_id: str = ""


class Update(Struct, frozen=True, kw_only=True):
    """Change a job of this owner that is not started: its priority, or when it may start.

    What is None stays. `expected_version` is checked if given.
    """

    job_id: JobId
    user_id: str
    priority: int | None = None
    schedule_time: Instant | None = None
    expected_version: int | None = None


class Seal(Struct, frozen=True, kw_only=True):
    """Add no more children to a group of this owner. Idempotent."""

    job_id: JobId
    user_id: str


class PassOn(Struct, frozen=True, kw_only=True):
    """Note that a server cancels the children of a group, or that all are cancelled if `done`."""

    job_id: JobId
    done: bool = False


class Expire(Struct, frozen=True, kw_only=True):
    """Fail or requeue a job if its deadline has passed. Safe to apply at any time."""

    job_id: JobId


class Delete(Struct, frozen=True, kw_only=True):
    """Delete a terminal job of this owner, with its assets and transitions.

    A group stays as it is until it is `childless`, and a child unless it goes `with_group`.
    """

    job_id: JobId
    user_id: str
    childless: bool = False
    with_group: bool = False


class Purge(Struct, frozen=True, kw_only=True):
    """Delete a job that has been terminal for its own retention, or else for at least `age`.

    None keeps jobs without a retention of their own. Safe to apply at any time.
    Groups and children as for Delete: a child `with_group` is deleted whatever its age.
    """

    job_id: JobId
    age: Micros | None
    childless: bool = False
    with_group: bool = False


WorkerCommand = ChangeStatus | Report | LinkAsset | AppendOutput | Release
"""A worker's command on one job. If `job_types` is given, jobs of other types are not found."""

JobCommand = WorkerCommand | Cancel | Update | Seal | PassOn | Expire | Delete | Purge
"""A command on one job, identified by its id."""

Command = Create | CreateAll | JobCommand
"""Any command except a claim, which names no job."""
