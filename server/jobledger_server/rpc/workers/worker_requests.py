"""Converts requests of WorkerService to commands. Raises InvalidRequest."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from msgspec.structs import replace

from jobledger.v1 import asset_pb2, job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import (
    ChangeStatus,
    Claim,
    LinkAsset,
    Release,
    Report,
    WorkerCommand,
)
from jobledger_server.domain.job import (
    MICROS_PER_SECOND,
    AssetLink,
    JobError,
    JobId,
    JobStatus,
    Micros,
)
from jobledger_server.domain.leases import SERVICE_REASONS
from jobledger_server.domain.limits import (
    MAX_ASSET_NAME_CHARACTERS,
    MAX_ASSET_TYPE_CHARACTERS,
    MAX_ASSETS,
    MAX_CHECKPOINT_BYTES,
    MAX_CLAIM_WAIT_SECONDS,
    MAX_CLAIMED_JOBS,
    MAX_DELAY_SECONDS,
    MAX_ERROR_MESSAGE_CHARACTERS,
    MAX_ETAG_CHARACTERS,
    MAX_JOB_TYPES,
    MAX_LEASE_SECONDS,
    MAX_MESSAGE_CHARACTERS,
    MAX_PROGRESS,
    MAX_STORAGE_PATH_CHARACTERS,
    MIN_LEASE_SECONDS,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker, InvalidRequest

DEFAULT_CLAIM_LEASE = Micros(60 * MICROS_PER_SECOND)
"""The lease of a claimed job if the request has none."""

Limited = TypeVar("Limited", bound=WorkerCommand)

MarkRequest = pb.MarkCompletedRequest | pb.MarkPartialRequest | pb.MarkFailedRequest

_TARGETS: Mapping[type, JobStatus] = {
    pb.MarkCompletedRequest: JobStatus.COMPLETED,
    pb.MarkPartialRequest: JobStatus.PARTIAL,
    pb.MarkFailedRequest: JobStatus.FAILED,
}


class WorkerRequests:
    """Converts requests. `url_schemes` are the schemes that an asset's URL may have."""

    def __init__(self, url_schemes: Collection[str]) -> None:
        self._url_schemes = url_schemes

    def claim(self, request: pb.ClaimJobsRequest) -> tuple[Claim, float]:
        """Return the claim, and the seconds that it may wait for a job."""
        with Checker() as check:
            max_jobs = check.number("max_jobs", request.max_jobs, 0, MAX_CLAIMED_JOBS) or 1
            command = claim(check, request, max_jobs)
            wait = check.duration("wait", request.wait, 0, MAX_CLAIM_WAIT_SECONDS)
        return command, wait / MICROS_PER_SECOND

    def release(self, request: pb.ReleaseJobRequest) -> Release:
        with Checker() as check:
            return Release(
                job_id=fields.job_id(check, request.job_id),
                attempt=held_attempt(check, request.attempt),
                delay=delay(check, request),
            )

    def change_status(self, request: pb.TransitionJobRequest) -> ChangeStatus:
        has = request.HasField
        with Checker() as check:
            target = status(check, "target_status", request.target_status)
            attempt = None
            if target in TERMINAL:
                attempt = fence(check, request)
            elif has("attempt") or request.any_attempt:
                name = "attempt" if has("attempt") else "any_attempt"
                check.add(name, "is allowed for terminal states only")
            if has("lease_duration") and target is not None and target is not JobStatus.PROCESSING:
                check.add("lease_duration", f"is not allowed for {target.value}")
            job_id = fields.job_id(check, request.job_id)
            return replace(
                change(
                    check, request, self._url_schemes, job_id=job_id, attempt=attempt, target=target
                ),
                expected_version=request.expected_version if has("expected_version") else None,
                progress=progress(check, request),
                progress_message=progress_message(check, request),
                worker_id=fields.worker_id(check, request.worker_id, required=False),
                lease_duration=lease(check, request),
            )

    def mark(self, request: MarkRequest) -> ChangeStatus:
        with Checker() as check:
            return change(
                check,
                request,
                self._url_schemes,
                job_id=fields.job_id(check, request.job_id),
                attempt=fence(check, request),
                target=_TARGETS[type(request)],
            )

    def report(self, request: pb.UpdateProgressRequest) -> Report:
        with Checker() as check:
            job_id = fields.job_id(check, request.job_id)
            return report(check, request, job_id, fence(check, request))

    def link_asset(self, request: pb.CreateAssetRequest) -> LinkAsset:
        with Checker() as check:
            return LinkAsset(
                job_id=fields.job_id(check, request.job_id),
                attempt=fence(check, request),
                link=link(check, request, self._url_schemes),
                request_id=fields.request_id(check, request.request_id),
            )


def limited(command: Limited, caller: Caller) -> Limited:
    """Return a worker's command with its caller's limits.

    Raises InvalidRequest if the caller means any attempt and may not.
    """
    permissions = caller.permissions
    start = isinstance(command, ChangeStatus) and command.target not in TERMINAL
    if permissions.fenced and command.attempt is None and not start:
        raise InvalidRequest([("any_attempt", "is not allowed for this caller")])
    if permissions.job_types is None:
        return command
    return replace(command, job_types=permissions.job_types)


_Fenced = pb.TransitionJobRequest | pb.UpdateProgressRequest | MarkRequest | pb.CreateAssetRequest


def fence(check: Checker, request: _Fenced) -> int | None:
    """Return the attempt that a request names, or None for any attempt."""
    if not request.HasField("attempt"):
        if not request.any_attempt:
            check.add("attempt", "is required, unless any_attempt is true")
        return None
    if request.any_attempt:
        check.add("any_attempt", "is not allowed with an attempt")
    return request.attempt


def held_attempt(check: Checker, attempt: int) -> int:
    if attempt < 1:
        check.add("attempt", "is required, 1 or more")
    return attempt


def claim(check: Checker, request: pb.ClaimJobsRequest | pb.WorkHello, max_jobs: int) -> Claim:
    if not request.job_types:
        check.add("job_types", f"must have from 1 to {MAX_JOB_TYPES} entries")
    return Claim(
        worker_id=fields.worker_id(check, request.worker_id),
        job_types=fields.job_types(check, request.job_types),
        max_jobs=max_jobs,
        lease_duration=lease(check, request) or DEFAULT_CLAIM_LEASE,
    )


def report(
    check: Checker,
    request: pb.UpdateProgressRequest | pb.ProgressUpdate,
    job_id: JobId,
    attempt: int | None,
) -> Report:
    return Report(
        job_id=job_id,
        attempt=attempt,
        progress=progress(check, request),
        progress_message=progress_message(check, request),
        checkpoint=check.struct("checkpoint", request.checkpoint, MAX_CHECKPOINT_BYTES),
        number=check.at_least_zero("report_number", request.report_number),
    )


def status(check: Checker, field: str, value: int) -> JobStatus | None:
    """Return a status, or None if it was refused."""
    return next(iter(fields.statuses(check, field, [value])), None)


def change(
    check: Checker,
    request: Any,
    url_schemes: Collection[str],
    *,
    job_id: JobId,
    attempt: int | None,
    target: JobStatus | None,
) -> ChangeStatus:
    """Return the change to a status with the outcome that a request has.

    The request is one of Mark..., TransitionJob or FinishUpdate. MarkCompleted has no error, and
    only failures can be retryable.
    """
    names = request.DESCRIPTOR.fields_by_name
    failed = "error" in names and request.HasField("error")
    may_retry = "retryable" in names
    command = ChangeStatus(
        job_id=job_id,
        target=target or JobStatus.FAILED,  # refused at the end of the check
        attempt=attempt,
        result=check.struct("result", request.result),
        error=job_error(check, request.error) if failed else None,
        error_details=check.struct("error.details", request.error.details) if failed else None,
        assets=links(check, request.assets, url_schemes),
        retryable=may_retry and request.retryable,
        retry_delay=retry_delay(check, request) if may_retry else None,
    )
    if target is not None:
        _check_outcome(check, command)
    return command


def links(
    check: Checker, assets: Sequence[asset_pb2.NewAsset], url_schemes: Collection[str]
) -> tuple[AssetLink, ...]:
    if not check.at_most("assets", assets, MAX_ASSETS):
        return ()
    return tuple(
        link(check.within(f"assets[{i}]."), asset, url_schemes) for i, asset in enumerate(assets)
    )


def link(
    check: Checker,
    asset: asset_pb2.NewAsset | pb.CreateAssetRequest,
    url_schemes: Collection[str],
) -> AssetLink:
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


def _default_name(asset: asset_pb2.NewAsset | pb.CreateAssetRequest) -> str:
    """Return the last part of the path of an asset's URL, or of its storage path, or its type."""
    try:
        path = urlsplit(asset.url).path
    except ValueError:
        path = ""  # not a URL: it was refused
    parts = (each.rstrip("/").rpartition("/")[2] for each in (path, asset.storage_path))
    # The end of a long one, which has the extension.
    return next(filter(None, parts), asset.asset_type)[-MAX_ASSET_NAME_CHARACTERS:]


_Reporting = pb.TransitionJobRequest | pb.UpdateProgressRequest | pb.ProgressUpdate


def progress(check: Checker, request: _Reporting) -> int | None:
    if not request.HasField("progress"):
        return None
    return check.number("progress", request.progress, 0, MAX_PROGRESS)


def progress_message(check: Checker, request: _Reporting) -> str | None:
    if not request.HasField("progress_message"):
        return None
    return check.text("progress_message", request.progress_message, MAX_MESSAGE_CHARACTERS)


def delay(check: Checker, request: pb.ReleaseJobRequest | pb.ReleaseUpdate) -> Micros:
    return check.duration("delay", request.delay, 0, MAX_DELAY_SECONDS)


def retry_delay(
    check: Checker, request: pb.TransitionJobRequest | pb.MarkFailedRequest | pb.FinishUpdate
) -> Micros | None:
    if request.HasField("retry_delay") and not request.retryable:
        check.add("retry_delay", "needs retryable")
    return fields.optional_duration(check, request, "retry_delay", 0, MAX_DELAY_SECONDS)


def lease(
    check: Checker, request: pb.ClaimJobsRequest | pb.TransitionJobRequest | pb.WorkHello
) -> Micros | None:
    bounds = MIN_LEASE_SECONDS, MAX_LEASE_SECONDS
    return fields.optional_duration(check, request, "lease_duration", *bounds)


def job_error(check: Checker, error: job_pb2.JobError) -> JobError:
    if not error.message:
        check.add("error.message", "is required")
    if error.reason in SERVICE_REASONS:
        check.add("error.reason", "is given by the service only")
    return JobError(
        reason=check.reason("error.reason", error.reason) if error.reason else "UNKNOWN",
        message=check.text("error.message", error.message, MAX_ERROR_MESSAGE_CHARACTERS),
    )


def _check_outcome(check: Checker, command: ChangeStatus) -> None:
    """Check that the fields of the outcome fit the status that is requested."""
    target = command.target
    if target is JobStatus.FAILED and command.error is None:
        check.add("error", "is required for FAILED")
    if target is not JobStatus.FAILED and command.retryable:
        check.add("retryable", f"is not allowed for {target.value}")
    if target not in (JobStatus.FAILED, JobStatus.PARTIAL) and command.error is not None:
        check.add("error", f"is not allowed for {target.value}")
    if target is JobStatus.PROCESSING and command.result is not None:
        check.add("result", "is not allowed for PROCESSING")
    if target is JobStatus.PROCESSING and command.assets:
        check.add("assets", "is not allowed for PROCESSING: use CreateAsset")
