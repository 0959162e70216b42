"""Requests to commands and queries. Raises InvalidRequest with every violation."""

from collections.abc import Callable, Collection, Sequence

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1 import asset_pb2, job_pb2, job_service_pb2, worker_service_pb2
from jobledger_server.domain.commands import (
    DEFAULT_QUEUE_TIMEOUT,
    Cancel,
    ChangeStatus,
    Claim,
    Create,
    CreateAll,
    Delete,
    LinkAsset,
    Release,
    Report,
)
from jobledger_server.domain.job import (
    AssetLink,
    Instant,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
)
from jobledger_server.rpc.pages import MAX_ROWS
from jobledger_server.rpc.validation import Checker
from jobledger_server.store import JobQuery
from jobledger_server.watch.feed_watch import Selection

MAX_ASSETS = 1000
MAX_CREATIONS = 1000
MAX_JOB_TYPES = 100
MAX_STATUSES = 100
DAY = 24 * 3600
YEAR = 365 * DAY

DEFAULT_CLAIM_LEASE = Micros(60_000_000)
"""The lease of a claimed job, where its worker does not say."""

STATUSES = {job_pb2.JobStatus.Value(f"JOB_STATUS_{s.value}"): s for s in JobStatus}

JobRequest = (
    job_service_pb2.GetJobRequest
    | job_service_pb2.DeleteJobRequest
    | job_service_pb2.WatchJobRequest
    | job_service_pb2.ListAssetsRequest
    | job_service_pb2.ListTransitionsRequest
)
MarkRequest = (
    worker_service_pb2.MarkCompletedRequest
    | worker_service_pb2.MarkPartialRequest
    | worker_service_pb2.MarkFailedRequest
)


class Requests:
    """Reads requests; knows the operator's own rules: which URL schemes an asset may have."""

    def __init__(self, url_schemes: Collection[str]) -> None:
        self._url_schemes = url_schemes

    def create(self, request: job_service_pb2.CreateJobRequest) -> Create:
        check = Checker()
        command = _creation(check, request, check.name("user_id", request.user_id, 128))
        check.finish()
        return command

    def create_all(self, request: job_service_pb2.BatchCreateJobsRequest) -> CreateAll:
        check = Checker()
        user_id = check.name("user_id", request.user_id, 128)
        if not 1 <= len(request.requests) <= MAX_CREATIONS:
            check.add("requests", f"must have from 1 to {MAX_CREATIONS} entries")
        creations = []
        for index, each in enumerate(request.requests[:MAX_CREATIONS]):
            if each.user_id not in ("", user_id):
                check.add(f"requests[{index}].user_id", "is another than the one of the call")
            creations.append(_creation(check.within(f"requests[{index}]."), each, user_id))
        check.finish()
        return CreateAll(tuple(creations))

    def owned_job(self, request: JobRequest) -> tuple[JobId, str]:
        """Return the job's id and the owner in whose name it is asked for."""
        check = Checker()
        job_id = check.name("job_id", request.job_id, 36)
        user_id = check.name("user_id", request.user_id, 128)
        if isinstance(request, job_service_pb2.WatchJobRequest):
            check.at_least_zero("after_version", request.after_version)
        elif isinstance(
            request, job_service_pb2.ListAssetsRequest | job_service_pb2.ListTransitionsRequest
        ):
            _check_page_size(check, request.page_size)
        check.finish()
        return JobId(job_id), user_id

    def delete(self, request: job_service_pb2.DeleteJobRequest) -> Delete:
        job_id, user_id = self.owned_job(request)
        return Delete(job_id=job_id, user_id=user_id)

    def cancel(self, request: job_service_pb2.CancelJobRequest) -> Cancel:
        check = Checker()
        command = Cancel(
            job_id=JobId(check.name("job_id", request.job_id, 36)),
            user_id=check.name("user_id", request.user_id, 128),
            reason=check.text("reason", request.reason, 512),
        )
        check.finish()
        return command

    def query(self, request: job_service_pb2.ListJobsRequest) -> JobQuery:
        check = Checker()
        statuses = _statuses(check, "statuses", request.statuses)
        _check_page_size(check, request.page_size)
        query = JobQuery(
            user_id=check.name("user_id", request.user_id, 128),
            statuses=frozenset(statuses),
            job_types=_job_types(check, request.job_types),
            labels=check.labels("labels", request.labels),
            created_after=_time(check, "created_after", request.created_after, request.HasField),
            created_before=_time(check, "created_before", request.created_before, request.HasField),
        )
        check.finish()
        return query

    def selection(self, request: job_service_pb2.WatchJobsRequest) -> Selection:
        check = Checker()
        selection = Selection(
            user_id=check.name("user_id", request.user_id, 128, required=False) or None,
            job_types=_job_types(check, request.job_types),
            labels=check.labels("labels", request.labels),
        )
        check.finish()
        return selection

    def claim(self, request: worker_service_pb2.ClaimJobsRequest) -> tuple[Claim, float]:
        """Return the claim, and how many seconds it may wait for a job."""
        check = Checker()
        if not request.job_types:
            check.add("job_types", f"must have from 1 to {MAX_JOB_TYPES} entries")
        command = Claim(
            worker_id=check.name("worker_id", request.worker_id, 128),
            job_types=_job_types(check, request.job_types),
            max_jobs=check.number("max_jobs", request.max_jobs, 0, 100) or 1,
            lease_duration=_lease(check, request) or DEFAULT_CLAIM_LEASE,
        )
        wait = check.duration("wait", request.wait, 0, 60)
        check.finish()
        return command, wait / 1_000_000

    def release(self, request: worker_service_pb2.ReleaseJobRequest) -> Release:
        check = Checker()
        command = Release(
            job_id=JobId(check.name("job_id", request.job_id, 36)), attempt=request.attempt
        )
        check.finish()
        return command

    def change_status(self, request: worker_service_pb2.TransitionJobRequest) -> ChangeStatus:
        check = Checker()
        (target,) = _statuses(check, "target_status", [request.target_status]) or [JobStatus.QUEUED]
        has = request.HasField
        command = ChangeStatus(
            job_id=JobId(check.name("job_id", request.job_id, 36)),
            target=target,
            attempt=request.attempt if has("attempt") else None,
            expected_version=request.expected_version if has("expected_version") else None,
            progress=check.number("progress", request.progress, 0, 100)
            if has("progress")
            else None,
            progress_message=check.text("progress_message", request.progress_message, 512)
            if has("progress_message")
            else None,
            result=_struct(check, "result", request.result, has),
            error=_error(check, request.error) if has("error") else None,
            assets=self._assets(check, request.assets),
            worker_id=check.name("worker_id", request.worker_id, 128, required=False),
            lease_duration=_lease(check, request),
        )
        _check_outcome(check, command)
        check.finish()
        return command

    def mark(self, request: MarkRequest) -> ChangeStatus:
        check = Checker()
        error = None
        match request:
            case worker_service_pb2.MarkCompletedRequest():
                target = JobStatus.COMPLETED
            case worker_service_pb2.MarkPartialRequest():
                target = JobStatus.PARTIAL
            case worker_service_pb2.MarkFailedRequest():
                target = JobStatus.FAILED
        if not isinstance(request, worker_service_pb2.MarkCompletedRequest):
            error = _error(check, request.error) if request.HasField("error") else None
        command = ChangeStatus(
            job_id=JobId(check.name("job_id", request.job_id, 36)),
            target=target,
            attempt=request.attempt if request.HasField("attempt") else None,
            result=_struct(check, "result", request.result, request.HasField),
            error=error,
            assets=self._assets(check, request.assets),
        )
        _check_outcome(check, command)
        check.finish()
        return command

    def report(
        self,
        request: worker_service_pb2.UpdateProgressRequest
        | worker_service_pb2.ReportProgressRequest,
    ) -> Report:
        check = Checker()
        has = request.HasField
        command = Report(
            job_id=JobId(check.name("job_id", request.job_id, 36)),
            attempt=request.attempt if has("attempt") else None,
            progress=check.number("progress", request.progress, 0, 100)
            if has("progress")
            else None,
            progress_message=check.text("progress_message", request.progress_message, 512)
            if has("progress_message")
            else None,
        )
        check.finish()
        return command

    def link_asset(self, request: worker_service_pb2.CreateAssetRequest) -> LinkAsset:
        check = Checker()
        command = LinkAsset(
            job_id=JobId(check.name("job_id", request.job_id, 36)),
            attempt=request.attempt if request.HasField("attempt") else None,
            link=self._link(check, "", request),
            request_id=check.name("request_id", request.request_id, 128, required=False),
        )
        check.finish()
        return command

    def _assets(self, check: Checker, assets: Sequence[asset_pb2.Asset]) -> tuple[AssetLink, ...]:
        if not check.at_most("assets", assets, MAX_ASSETS):
            return ()
        return tuple(self._link(check, f"assets[{i}].", asset) for i, asset in enumerate(assets))

    def _link(
        self,
        check: Checker,
        prefix: str,
        asset: asset_pb2.Asset | worker_service_pb2.CreateAssetRequest,
    ) -> AssetLink:
        if not asset.url and not asset.storage_path:
            check.add(f"{prefix}url", "is required where storage_path is empty")
        if asset.url:
            check.url(f"{prefix}url", asset.url, self._url_schemes)
        return AssetLink(
            asset_type=check.name(f"{prefix}asset_type", asset.asset_type, 50),
            url=asset.url,
            storage_path=check.name(
                f"{prefix}storage_path", asset.storage_path, 1024, required=False
            ),
            file_size=check.at_least_zero(f"{prefix}file_size", asset.file_size),
        )


def _creation(check: Checker, request: job_service_pb2.CreateJobRequest, user_id: str) -> Create:
    has = request.HasField
    return Create(
        user_id=user_id,
        job_type=check.job_type("job_type", request.job_type),
        parameters=check.struct("parameters", request.parameters) if has("parameters") else None,
        labels=check.labels("labels", request.labels),
        request_id=check.name("request_id", request.request_id, 128, required=False),
        max_attempts=check.number("max_attempts", request.max_attempts, 0, 1000) or 1,
        queue_timeout=check.duration("queue_timeout", request.queue_timeout, 1, YEAR)
        if has("queue_timeout")
        else DEFAULT_QUEUE_TIMEOUT,
        run_timeout=check.duration("run_timeout", request.run_timeout, 1, YEAR)
        if has("run_timeout")
        else None,
    )


def _job_types(check: Checker, job_types: Sequence[str]) -> frozenset[str]:
    if not check.at_most("job_types", job_types, MAX_JOB_TYPES):
        return frozenset()
    return frozenset(
        check.job_type(f"job_types[{i}]", job_type) for i, job_type in enumerate(job_types)
    )


def _check_page_size(check: Checker, size: int) -> None:
    check.number("page_size", size, 0, MAX_ROWS)


def _statuses(check: Checker, field: str, values: Sequence[int]) -> list[JobStatus]:
    if not check.at_most(field, values, MAX_STATUSES):
        return []
    statuses = []
    for value in values:
        if value in STATUSES:
            statuses.append(STATUSES[job_pb2.JobStatus.ValueType(value)])
        else:
            check.add(field, "is required" if value == 0 else f"has no value {value}")
    return statuses


def _struct(check: Checker, field: str, struct: Struct, has: Callable[..., bool]) -> Payload | None:
    return check.struct(field, struct) if has(field) else None


def _time(check: Checker, field: str, value: Timestamp, has: Callable[..., bool]) -> Instant | None:
    return check.timestamp(field, value) if has(field) else None


def _lease(
    check: Checker,
    request: worker_service_pb2.ClaimJobsRequest | worker_service_pb2.TransitionJobRequest,
) -> Micros | None:
    if not request.HasField("lease_duration"):
        return None
    return check.duration("lease_duration", request.lease_duration, 5, DAY)


def _error(check: Checker, error: job_pb2.JobError) -> JobError:
    if not error.message:
        check.add("error.message", "is required")
    return JobError(
        reason=check.reason("error.reason", error.reason) if error.reason else "UNKNOWN",
        message=check.text("error.message", error.message, 4096),
        details=check.struct("error.details", error.details) if error.HasField("details") else None,
    )


def _check_outcome(check: Checker, command: ChangeStatus) -> None:
    """Check that what is said of the outcome fits the state that is asked for."""
    target = command.target
    if target is JobStatus.FAILED and command.error is None:
        check.add("error", "is required for FAILED")
    if target not in (JobStatus.FAILED, JobStatus.PARTIAL) and command.error is not None:
        check.add("error", f"is not allowed for {target.value}")
    if target is JobStatus.PROCESSING and command.result is not None:
        check.add("result", "is not allowed for PROCESSING")
    if target is not JobStatus.PROCESSING and command.lease_duration is not None:
        check.add("lease_duration", f"is not allowed for {target.value}")
    if target is JobStatus.PROCESSING and command.assets:
        # They would be linked again by a repetition; CreateAsset has a request id for that.
        check.add("assets", "is not allowed for PROCESSING: use CreateAsset")
