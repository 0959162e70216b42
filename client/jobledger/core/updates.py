"""Builds the updates of a job that calls and Work send alike. None where there is nothing to say.

Each function raises a TypeError or a ValueError that names the argument.
"""

from collections.abc import Iterable

from jobledger.core.conversion import JsonObject, Seconds, build, to_duration, to_struct
from jobledger.core.models import Asset, JobError
from jobledger.core.requests import job_error
from jobledger.v1.worker_service_pb2 import FinishUpdate, ProgressUpdate, ReleaseUpdate


def progress_update(
    progress: int | None, progress_message: str | None, checkpoint: JsonObject | None = None
) -> ProgressUpdate | None:
    """Report progress."""
    update = build(
        ProgressUpdate,
        progress=progress,
        progress_message=progress_message,
        checkpoint=to_struct(checkpoint, "checkpoint"),
    )
    return update if update.ListFields() else None


def finish_update(
    *,
    result: JsonObject | None,
    error: str | JobError | None = None,
    reason: str | None = None,
    assets: Iterable[Asset],
    retryable: bool = False,
    retry_delay: Seconds | None = None,
) -> FinishUpdate | None:
    """Finish a job, in the state that the call says."""
    update = build(
        FinishUpdate,
        result=to_struct(result, "result"),
        error=job_error(error, reason),
        assets=[asset.to_new_proto() for asset in assets],
        retryable=retryable,
        retry_delay=to_duration(retry_delay, "retry_delay"),
    )
    return update if update.ListFields() else None


def release_update(delay: Seconds | None) -> ReleaseUpdate | None:
    """Release a job."""
    return None if delay is None else ReleaseUpdate(delay=to_duration(delay, "delay"))
