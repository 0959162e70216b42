"""Request building: what the caller gave, and what the client knows by itself."""

import os
import socket
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import JobError, JobStatus
from jobledger.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    CancelJobRequest,
    CreateJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    ListAssetsRequest,
    ListJobsRequest,
    ListTransitionsRequest,
    WatchJobRequest,
    WatchJobsRequest,
)
from jobledger.v1.worker_service_pb2 import (
    ClaimJobsRequest,
    CreateAssetRequest,
    MarkCompletedRequest,
    MarkFailedRequest,
    MarkPartialRequest,
    ReleaseJobRequest,
    ReportProgressRequest,
    TransitionJobRequest,
    UpdateProgressRequest,
)
from jobledger_client._json import JsonObject, to_struct
from jobledger_client._new_job import NewJob

JobStatusValue: TypeAlias = "JobStatus.ValueType"
Seconds: TypeAlias = float | timedelta

MAX_BATCH: Final = 1000


class Requests:
    """Builds the request of each call; ValueError where none can be built.

    The server alone knows the rules of fields. Only what a message cannot hold
    is refused here.
    """

    def __init__(self, user_id: str | None) -> None:
        self._user_id = user_id
        # The same for all calls of one client: a start that is repeated after a
        # lost answer is recognised by it.
        host = "".join(filter(str.isprintable, socket.gethostname()))[:80]
        self.worker_id = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def create_job(
        self,
        job_type: str,
        parameters: JsonObject | None,
        *,
        labels: Mapping[str, str] | None,
        request_id: str | None,
        max_attempts: int,
        queue_timeout: Seconds | None,
        run_timeout: Seconds | None,
        user_id: str | None,
    ) -> CreateJobRequest:
        job = NewJob(
            job_type,
            parameters,
            labels=labels,
            request_id=request_id,
            max_attempts=max_attempts,
            queue_timeout=queue_timeout,
            run_timeout=run_timeout,
        )
        return _creation(job, user_id=self._owner(user_id))

    def create_jobs(self, jobs: Iterable[NewJob], user_id: str | None) -> BatchCreateJobsRequest:
        owner = self._owner(user_id)
        requests = [_creation(job, f"jobs[{place}].") for place, job in enumerate(jobs)]
        if len(requests) > MAX_BATCH:
            # More calls would not be all or none.
            raise ValueError(f"jobs: {len(requests)} are more than {MAX_BATCH}")
        return BatchCreateJobsRequest(user_id=owner, requests=requests)

    def get_job(self, job_id: str, user_id: str | None) -> GetJobRequest:
        return GetJobRequest(job_id=job_id, user_id=self._owner(user_id))

    def list_jobs(
        self,
        *,
        statuses: Iterable[JobStatusValue],
        job_types: Iterable[str],
        labels: Mapping[str, str] | None,
        created_after: datetime | None,
        created_before: datetime | None,
        page_size: int,
        user_id: str | None,
    ) -> ListJobsRequest:
        return ListJobsRequest(
            user_id=self._owner(user_id),
            statuses=statuses,
            job_types=job_types,
            labels=labels,
            created_after=_timestamp(created_after, "created_after"),
            created_before=_timestamp(created_before, "created_before"),
            page_size=page_size,
        )

    def watch_job(self, job_id: str, after_version: int, user_id: str | None) -> WatchJobRequest:
        return WatchJobRequest(
            job_id=job_id, user_id=self._owner(user_id), after_version=after_version
        )

    def watch_jobs(
        self,
        *,
        job_types: Iterable[str],
        labels: Mapping[str, str] | None,
        resume_token: str,
        user_id: str | None,
        all_users: bool,
    ) -> WatchJobsRequest:
        if all_users and user_id is not None:
            raise ValueError("user_id: does not go with all_users")
        owner = "" if all_users else self._owner(user_id)
        if not owner and not all_users:
            # On the wire this would mean everybody; nobody may ask so by mistake.
            raise ValueError("user_id: is empty; all_users asks for everybody's jobs")
        return WatchJobsRequest(
            user_id=owner, job_types=job_types, labels=labels, resume_token=resume_token
        )

    def cancel_job(self, job_id: str, reason: str, user_id: str | None) -> CancelJobRequest:
        return CancelJobRequest(job_id=job_id, user_id=self._owner(user_id), reason=reason)

    def delete_job(self, job_id: str, user_id: str | None) -> DeleteJobRequest:
        return DeleteJobRequest(job_id=job_id, user_id=self._owner(user_id))

    def list_assets(self, job_id: str, page_size: int, user_id: str | None) -> ListAssetsRequest:
        return ListAssetsRequest(job_id=job_id, user_id=self._owner(user_id), page_size=page_size)

    def list_transitions(
        self, job_id: str, page_size: int, user_id: str | None
    ) -> ListTransitionsRequest:
        return ListTransitionsRequest(
            job_id=job_id, user_id=self._owner(user_id), page_size=page_size
        )

    def claim_jobs(
        self,
        job_types: Iterable[str],
        *,
        max_jobs: int,
        lease_duration: Seconds,
        wait: Seconds,
        worker_id: str | None,
    ) -> ClaimJobsRequest:
        return ClaimJobsRequest(
            worker_id=self.worker_id if worker_id is None else worker_id,
            job_types=job_types,
            max_jobs=max_jobs,
            lease_duration=_duration(lease_duration, "lease_duration"),
            wait=_duration(wait, "wait"),
        )

    def release_job(self, job_id: str, attempt: int) -> ReleaseJobRequest:
        return ReleaseJobRequest(job_id=job_id, attempt=attempt)

    def transition_job(
        self,
        job_id: str,
        target_status: JobStatusValue,
        *,
        attempt: int | None = None,
        expected_version: int | None = None,
        progress: int | None = None,
        progress_message: str | None = None,
        result: JsonObject | None = None,
        error: str | JobError | None = None,
        reason: str | None = None,
        assets: Iterable[Asset] = (),
        lease_duration: Seconds | None = None,
        worker_id: str | None = None,
    ) -> TransitionJobRequest:
        return TransitionJobRequest(
            job_id=job_id,
            target_status=target_status,
            attempt=attempt,
            expected_version=expected_version,
            progress=progress,
            progress_message=progress_message,
            result=to_struct(result, "result"),
            error=_job_error(error, reason),
            assets=assets,
            lease_duration=_duration(lease_duration, "lease_duration"),
            worker_id=self.worker_id if worker_id is None else worker_id,
        )

    def update_progress(
        self,
        job_id: str,
        progress: int | None,
        progress_message: str | None,
        attempt: int | None,
    ) -> UpdateProgressRequest:
        return UpdateProgressRequest(
            job_id=job_id, attempt=attempt, progress=progress, progress_message=progress_message
        )

    @staticmethod
    def report_progress(
        job_id: str, progress: int | None, progress_message: str | None, attempt: int | None
    ) -> ReportProgressRequest:
        return ReportProgressRequest(
            job_id=job_id, attempt=attempt, progress=progress, progress_message=progress_message
        )

    def mark_completed(
        self,
        job_id: str,
        result: JsonObject | None,
        assets: Iterable[Asset],
        attempt: int | None,
    ) -> MarkCompletedRequest:
        return MarkCompletedRequest(
            job_id=job_id, attempt=attempt, result=to_struct(result, "result"), assets=assets
        )

    def mark_partial(
        self,
        job_id: str,
        *,
        result: JsonObject | None,
        error: str | JobError | None,
        reason: str | None,
        assets: Iterable[Asset],
        attempt: int | None,
    ) -> MarkPartialRequest:
        return MarkPartialRequest(
            job_id=job_id,
            attempt=attempt,
            result=to_struct(result, "result"),
            error=_job_error(error, reason),
            assets=assets,
        )

    def mark_failed(
        self,
        job_id: str,
        *,
        error: str | JobError,
        reason: str | None,
        result: JsonObject | None,
        assets: Iterable[Asset],
        attempt: int | None,
    ) -> MarkFailedRequest:
        return MarkFailedRequest(
            job_id=job_id,
            attempt=attempt,
            result=to_struct(result, "result"),
            error=_job_error(error, reason),
            assets=assets,
        )

    def create_asset(
        self,
        job_id: str,
        *,
        asset_type: str,
        url: str,
        storage_path: str,
        file_size: int,
        attempt: int | None,
        request_id: str | None,
    ) -> CreateAssetRequest:
        return CreateAssetRequest(
            job_id=job_id,
            attempt=attempt,
            asset_type=asset_type,
            url=url,
            storage_path=storage_path,
            file_size=file_size,
            request_id=_fresh(request_id),
        )

    def _owner(self, user_id: str | None) -> str:
        owner = self._user_id if user_id is None else user_id
        if owner is None:
            raise ValueError("user_id: give it to the call or to the client")
        return owner


def _creation(job: NewJob, where: str = "", *, user_id: str = "") -> CreateJobRequest:
    """Build the request for one job; `where` it stands is told with what is wrong with it."""
    return CreateJobRequest(
        user_id=user_id,
        job_type=job.job_type,
        parameters=to_struct(job.parameters, f"{where}parameters"),
        labels=job.labels,
        request_id=_fresh(job.request_id),
        max_attempts=job.max_attempts,
        queue_timeout=_duration(job.queue_timeout, f"{where}queue_timeout"),
        run_timeout=_duration(job.run_timeout, f"{where}run_timeout"),
    )


def _fresh(request_id: str | None) -> str:
    """Names the request: without a name a retry could do its work twice."""
    return str(uuid.uuid4()) if request_id is None else request_id


def _job_error(error: str | JobError | None, reason: str | None) -> JobError | None:
    if isinstance(error, str):
        return JobError(message=error, reason=reason or "")
    if reason is not None:
        raise ValueError("reason: goes with an error message, not with a JobError or none")
    return error


def _duration(value: Seconds | None, where: str) -> Duration | None:
    if value is None:
        return None
    try:
        span = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{where}: {value} seconds is not a time span") from error
    duration = Duration()
    duration.FromTimedelta(span)
    return duration


def _timestamp(moment: datetime | None, where: str) -> Timestamp | None:
    if moment is None:
        return None
    if moment.utcoffset() is None:
        raise ValueError(f"{where}: a datetime without a time zone names no moment")
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
