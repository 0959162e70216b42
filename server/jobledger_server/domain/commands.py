"""Commands: everything that can be asked of a job. What comes of one, `machine.decide` says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobledger_server.domain.model import AssetLink, JobError, JobId, JobStatus, Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make a job. A non-empty `request_id` makes repeating it safe."""

    user_id: str
    job_type: str
    parameters: Payload | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transit:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Report the progress of a running job, or, with neither value, that it is alive."""

    job_id: JobId
    attempt: int | None = None
    progress: int | None = None
    progress_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAsset:
    """Link an asset to a running job. A non-empty `request_id` makes repeating it safe."""

    job_id: JobId
    link: AssetLink
    attempt: int | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove a terminal job of this owner, with its assets and transitions."""

    job_id: JobId
    user_id: str


JobCommand = Transit | Report | LinkAsset | Delete
"""A command on a job that exists."""

Command = Create | JobCommand
"""Any command."""
