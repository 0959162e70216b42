"""Converts what a worker reports of a job to commands, by one set of rules for calls and for Work.

Raises InvalidRequest. `attempt` is None for any attempt.
"""

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from jobledger.v1 import asset_pb2, job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.commands import (
    AppendOutput,
    ChangeStatus,
    LinkAsset,
    Release,
    Report,
)
from jobledger_server.domain.job import AssetLink, JobError, JobId, JobStatus
from jobledger_server.domain.leases import SERVICE_REASONS
from jobledger_server.domain.limits import (
    MAX_ASSET_NAME_CHARACTERS,
    MAX_ASSET_TYPE_CHARACTERS,
    MAX_ASSETS,
    MAX_CHECKPOINT_BYTES,
    MAX_DELAY_SECONDS,
    MAX_ERROR_MESSAGE_CHARACTERS,
    MAX_ETAG_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_OUTPUT_DATA_BYTES,
    MAX_PROGRESS,
    MAX_STORAGE_PATH_CHARACTERS,
)
from jobledger_server.domain.output import DEFAULT_CONTENT_TYPE
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker


def report(check: Checker, update: pb.ProgressUpdate, job_id: JobId, attempt: int | None) -> Report:
    return Report(
        job_id=job_id,
        attempt=attempt,
        progress=progress(check, update),
        progress_message=progress_message(check, update),
        checkpoint=check.struct("checkpoint", update.checkpoint, MAX_CHECKPOINT_BYTES),
        number=check.at_least_zero("report_number", update.report_number),
    )


def progress(check: Checker, update: pb.ProgressUpdate) -> int | None:
    if not update.HasField("progress"):
        return None
    return check.number("progress", update.progress, 0, MAX_PROGRESS)


def progress_message(check: Checker, update: pb.ProgressUpdate) -> str | None:
    if not update.HasField("progress_message"):
        return None
    return check.text("progress_message", update.progress_message, MAX_MESSAGE_CHARACTERS)


def link_asset(
    check: Checker,
    update: pb.AssetUpdate,
    url_schemes: Collection[str],
    job_id: JobId,
    attempt: int | None,
) -> LinkAsset:
    return LinkAsset(
        job_id=job_id,
        attempt=attempt,
        link=_link(check.within("asset."), update.asset, url_schemes),
        request_id=fields.request_id(check, update.request_id),
    )


def finish(
    check: Checker,
    update: pb.FinishUpdate,
    url_schemes: Collection[str],
    job_id: JobId,
    attempt: int | None,
    *,
    target: JobStatus | None,
) -> ChangeStatus:
    """Return the change to a terminal status, with the outcome that an update has.

    `target` is None if the check has refused it.
    """
    failed = update.HasField("error")
    if target is JobStatus.FAILED and not failed:
        check.add("error", "is required for FAILED")
    if target is JobStatus.COMPLETED and failed:
        check.add("error", "is not allowed for COMPLETED")
    if target is not None and target is not JobStatus.FAILED and update.retryable:
        check.add("retryable", f"is not allowed for {target.value}")
    if update.HasField("retry_delay") and not update.retryable:
        check.add("retry_delay", "needs retryable")
    return ChangeStatus(
        job_id=job_id,
        target=target or JobStatus.FAILED,
        attempt=attempt,
        result=check.struct("result", update.result),
        error=_job_error(check, update.error) if failed else None,
        error_details=check.struct("error.details", update.error.details) if failed else None,
        assets=_links(check, update.assets, url_schemes),
        retryable=update.retryable,
        retry_delay=fields.optional_duration(check, update, "retry_delay", 0, MAX_DELAY_SECONDS),
    )


def release(check: Checker, update: pb.ReleaseUpdate, job_id: JobId, attempt: int) -> Release:
    delay = check.duration("delay", update.delay, 0, MAX_DELAY_SECONDS)
    return Release(job_id=job_id, attempt=attempt, delay=delay)


def append_output(
    check: Checker,
    update: pb.OutputUpdate | pb.AppendOutputRequest,
    job_id: JobId,
    attempt: int,
) -> AppendOutput:
    if not update.data:
        check.add("data", "is required")
    check.at_most("data", update.data, MAX_OUTPUT_DATA_BYTES, of="bytes")
    return AppendOutput(
        job_id=job_id,
        attempt=attempt,
        data=update.data,
        stream=check.stream_name("stream", update.stream),
        content_type=check.content_type("content_type", update.content_type)
        or DEFAULT_CONTENT_TYPE,
        number=check.at_least_zero("number", update.number),
    )


def _job_error(check: Checker, error: job_pb2.JobError) -> JobError:
    if not error.message:
        check.add("error.message", "is required")
    if error.reason in SERVICE_REASONS:
        check.add("error.reason", "is given by the service only")
    return JobError(
        reason=check.reason("error.reason", error.reason) if error.reason else "UNKNOWN",
        message=check.text("error.message", error.message, MAX_ERROR_MESSAGE_CHARACTERS),
    )


def _links(
    check: Checker, assets: Sequence[asset_pb2.NewAsset], url_schemes: Collection[str]
) -> tuple[AssetLink, ...]:
    if not check.at_most("assets", assets, MAX_ASSETS):
        return ()
    return tuple(
        _link(check.within(f"assets[{i}]."), asset, url_schemes) for i, asset in enumerate(assets)
    )


def _link(check: Checker, asset: asset_pb2.NewAsset, url_schemes: Collection[str]) -> AssetLink:
    if not asset.url and not asset.storage_path:
        check.add("url", "is required if storage_path is empty")
    if asset.url:
        check.url("url", asset.url, url_schemes)
    path = asset.storage_path
    name = check.name("name", asset.name, MAX_ASSET_NAME_CHARACTERS, required=False)
    return AssetLink(
        asset_type=check.name("asset_type", asset.asset_type, MAX_ASSET_TYPE_CHARACTERS),
        url=asset.url,
        storage_path=check.name("storage_path", path, MAX_STORAGE_PATH_CHARACTERS, required=False),
        file_size=check.at_least_zero("file_size", asset.file_size),
        name=name or _default_name(asset),
        sha256=check.sha256("sha256", asset.sha256),
        etag=check.name("etag", asset.etag, MAX_ETAG_CHARACTERS, required=False),
    )


def _default_name(asset: asset_pb2.NewAsset) -> str:
    """Return the last part of the path of an asset's URL, or of its storage path, or its type."""
    try:
        path = urlsplit(asset.url).path
    except ValueError:
        path = ""  # not a URL: it was refused
    parts = (each.rstrip("/").rpartition("/")[2] for each in (path, asset.storage_path))
    # The end of a long one, which has the extension.
    return next(filter(None, parts), asset.asset_type)[-MAX_ASSET_NAME_CHARACTERS:]
