"""Commands: everything that can be asked of a job. What comes of one, `decisions` says."""

from collections.abc import Mapping

from msgspec import Struct, field

from jobledger_server.domain.job import (
    MICROS_PER_SECOND,
    AssetLink,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
)

DEFAULT_QUEUE_TIMEOUT = Micros(7 * 24 * 3600 * MICROS_PER_SECOND)
"""How long a job may wait for a worker, where its creator does not say."""

DEFAULT_START_LEASE = Micros(3600 * MICROS_PER_SECOND)
"""The lease of a job that was started by name, where its worker does not say."""


class Create(Struct, frozen=True, kw_only=True):
    """Make a job. A non-empty `request_id` makes repeating it safe."""

    user_id: str
    job_type: str
    parameters: Payload | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    max_attempts: int = 1
    queue_timeout: Micros = DEFAULT_QUEUE_TIMEOUT
    run_timeout: Micros | None = None


class CreateAll(Struct, frozen=True):
    """Make all of these jobs, or none."""

    creations: tuple[Create, ...]


class Claim(Struct, frozen=True, kw_only=True):
    """Give this worker the oldest jobs of these types that wait for one."""

    worker_id: str
    job_types: frozenset[str]
    max_jobs: int
    lease_duration: Micros


class ChangeStatus(Struct, frozen=True, kw_only=True):
    """Move a job to `target`. `attempt` and `expected_version` are checked where given."""

    job_id: JobId
    target: JobStatus
    attempt: int | None = None
    expected_version: int | None = None
    progress: int | None = None
    progress_message: str | None = None
    result: Payload | None = None
    error: JobError | None = None
    assets: tuple[AssetLink, ...] = ()
    worker_id: str = ""
    lease_duration: Micros | None = None
    job_types: frozenset[str] | None = None


class Report(Struct, frozen=True, kw_only=True):
    """Report the progress of a running job, or, with neither value, that it is alive."""

    job_id: JobId
    attempt: int | None = None
    progress: int | None = None
    progress_message: str | None = None
    job_types: frozenset[str] | None = None


class LinkAsset(Struct, frozen=True, kw_only=True):
    """Link an asset to a running job. A non-empty `request_id` makes repeating it safe."""

    job_id: JobId
    link: AssetLink
    attempt: int | None = None
    request_id: str = ""
    job_types: frozenset[str] | None = None


class Release(Struct, frozen=True, kw_only=True):
    """Give a job back unfinished; no attempt is used up."""

    job_id: JobId
    attempt: int
    job_types: frozenset[str] | None = None


class Cancel(Struct, frozen=True, kw_only=True):
    """Cancel a job of this owner: at once if nobody holds it, else ask its worker to."""

    job_id: JobId
    user_id: str
    reason: str = ""


class Expire(Struct, frozen=True, kw_only=True):
    """Do what a job's deadline asks for, if it has passed. Anyone may say so at any time."""

    job_id: JobId


class Delete(Struct, frozen=True, kw_only=True):
    """Remove a terminal job of this owner, with its assets and transitions."""

    job_id: JobId
    user_id: str


class Purge(Struct, frozen=True, kw_only=True):
    """Remove a job that ended at least `age` ago. Anyone may say so at any time."""

    job_id: JobId
    age: Micros


WorkerCommand = ChangeStatus | Report | LinkAsset | Release
"""A worker's command on one job. Where `job_types` is given, jobs of other types do not exist."""

JobCommand = WorkerCommand | Cancel | Expire | Delete | Purge
"""A command on one job, named by its id."""

Command = Create | CreateAll | JobCommand
"""Any command but a claim, which is for whatever job is there."""
