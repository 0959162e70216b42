"""Builds the message of each call from the caller's arguments.

The service alone knows the rules of fields. Refused here is what a message cannot hold, and what
Python would accept but the caller cannot have meant, such as a `str` in place of a list of them.
"""

import os
import socket
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeVar

from jobledger.core.conversion import (
    JsonObject,
    Seconds,
    build,
    to_duration,
    to_struct,
    to_timestamp,
)
from jobledger.core.models import Asset, JobError, JobStatus
from jobledger.core.new_job import NewJob
from jobledger.v1 import asset_pb2, job_pb2
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
    TransitionJobRequest,
    UpdateProgressRequest,
)

MAX_BATCH: Final = 1000
"""Jobs that one call can create."""

_Value = TypeVar("_Value")


class Requests:
    """Builds the requests of one client.

    Each method raises a TypeError or a ValueError that names the argument.
    """

    def __init__(self, user_id: str | None) -> None:
        self._user_id = None if user_id is None else text(user_id, "user_id")
        self._host = "".join(filter(str.isprintable, socket.gethostname()))[:80]
        self._random = uuid.uuid4().hex[:8]

    @property
    def worker_id(self) -> str:
        """The same for all calls of one client, so that the service can identify a repeated start.

        In a forked process the client is another worker.
        """
        return f"{self._host}-{os.getpid()}-{self._random}"

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
        stall_timeout: Seconds | None,
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
            stall_timeout=stall_timeout,
        )
        return _creation(job, self._owner(user_id))

    def create_jobs(self, jobs: Iterable[NewJob], user_id: str | None) -> BatchCreateJobsRequest:
        owner = self._owner(user_id)
        requests = []
        for index, job in enumerate(_several(jobs, "jobs")):
            if not isinstance(job, NewJob):
                raise TypeError(f"jobs[{index}]: {type(job).__name__} is not a NewJob")
            try:
                requests.append(_creation(job))
            except (TypeError, ValueError) as error:
                raise type(error)(f"jobs[{index}].{error}") from None
        if len(requests) > MAX_BATCH:
            # More calls would not be all or none.
            raise ValueError(f"jobs: {len(requests)} are more than {MAX_BATCH}")
        return build(BatchCreateJobsRequest, user_id=owner, requests=requests)

    def get_job(self, job_id: str, user_id: str | None) -> GetJobRequest:
        return build(GetJobRequest, job_id=text(job_id, "job_id"), user_id=self._owner(user_id))

    def list_jobs(
        self,
        *,
        statuses: Iterable[JobStatus],
        job_types: Iterable[str],
        labels: Mapping[str, str] | None,
        created_after: datetime | None,
        created_before: datetime | None,
        page_size: int,
        user_id: str | None,
        all_users: bool,
    ) -> ListJobsRequest:
        return build(
            ListJobsRequest,
            user_id=self._owner_or_all(user_id, all_users=all_users),
            statuses=[status_value(each, "statuses") for each in _several(statuses, "statuses")],
            job_types=texts(job_types, "job_types"),
            labels=_labels(labels),
            created_after=to_timestamp(created_after, "created_after"),
            created_before=to_timestamp(created_before, "created_before"),
            page_size=page_size,
        )

    def watch_job(self, job_id: str, after_version: int, user_id: str | None) -> WatchJobRequest:
        return build(
            WatchJobRequest,
            job_id=text(job_id, "job_id"),
            user_id=self._owner(user_id),
            after_version=after_version,
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
        return build(
            WatchJobsRequest,
            user_id=self._owner_or_all(user_id, all_users=all_users),
            job_types=texts(job_types, "job_types"),
            labels=_labels(labels),
            resume_token=text(resume_token, "resume_token"),
        )

    def cancel_job(self, job_id: str, reason: str, user_id: str | None) -> CancelJobRequest:
        return build(
            CancelJobRequest,
            job_id=text(job_id, "job_id"),
            user_id=self._owner(user_id),
            reason=reason,
        )

    def delete_job(self, job_id: str, user_id: str | None) -> DeleteJobRequest:
        return build(DeleteJobRequest, job_id=text(job_id, "job_id"), user_id=self._owner(user_id))

    def list_assets(self, job_id: str, page_size: int, user_id: str | None) -> ListAssetsRequest:
        return build(
            ListAssetsRequest,
            job_id=text(job_id, "job_id"),
            user_id=self._owner(user_id),
            page_size=page_size,
        )

    def list_transitions(
        self, job_id: str, page_size: int, user_id: str | None
    ) -> ListTransitionsRequest:
        return build(
            ListTransitionsRequest,
            job_id=text(job_id, "job_id"),
            user_id=self._owner(user_id),
            page_size=page_size,
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
        return build(
            ClaimJobsRequest,
            worker_id=self.worker_id if worker_id is None else worker_id,
            job_types=texts(job_types, "job_types"),
            max_jobs=count(max_jobs, "max_jobs"),
            lease_duration=to_duration(lease_duration, "lease_duration"),
            wait=to_duration(wait, "wait"),
        )

    def release_job(self, job_id: str, attempt: int) -> ReleaseJobRequest:
        return build(ReleaseJobRequest, job_id=text(job_id, "job_id"), attempt=attempt)

    def transition_job(
        self,
        job_id: str,
        target_status: JobStatus,
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
        return build(
            TransitionJobRequest,
            job_id=text(job_id, "job_id"),
            target_status=status_value(target_status, "target_status"),
            attempt=attempt,
            expected_version=expected_version,
            progress=progress,
            progress_message=progress_message,
            result=to_struct(result, "result"),
            error=_job_error(error, reason),
            assets=asset_messages(assets),
            lease_duration=to_duration(lease_duration, "lease_duration"),
            worker_id=self.worker_id if worker_id is None else worker_id,
        )

    def update_progress(
        self,
        job_id: str,
        progress: int | None,
        progress_message: str | None,
        attempt: int | None,
    ) -> UpdateProgressRequest:
        return build(
            UpdateProgressRequest,
            job_id=text(job_id, "job_id"),
            attempt=attempt,
            progress=progress,
            progress_message=progress_message,
        )

    def mark_completed(
        self,
        job_id: str,
        result: JsonObject | None,
        assets: Iterable[Asset],
        attempt: int | None,
    ) -> MarkCompletedRequest:
        return build(
            MarkCompletedRequest,
            job_id=text(job_id, "job_id"),
            attempt=attempt,
            result=to_struct(result, "result"),
            assets=asset_messages(assets),
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
        return build(
            MarkPartialRequest,
            job_id=text(job_id, "job_id"),
            attempt=attempt,
            result=to_struct(result, "result"),
            error=_job_error(error, reason),
            assets=asset_messages(assets),
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
        return build(
            MarkFailedRequest,
            job_id=text(job_id, "job_id"),
            attempt=attempt,
            result=to_struct(result, "result"),
            error=_job_error(error, reason),
            assets=asset_messages(assets),
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
        return build(
            CreateAssetRequest,
            job_id=text(job_id, "job_id"),
            attempt=attempt,
            asset_type=asset_type,
            url=url,
            storage_path=storage_path,
            file_size=file_size,
            request_id=_fresh(request_id),
        )

    def _owner_or_all(self, user_id: str | None, *, all_users: bool) -> str:
        """Return the owner for a request that may be about all users' jobs; empty means all."""
        if all_users and user_id is not None:
            raise ValueError("user_id: does not go with all_users")
        owner = "" if all_users else self._owner(user_id)
        if not owner and not all_users:
            # In the request this would mean all users, which must not be requested by mistake.
            raise ValueError("user_id: is empty; use all_users for everybody's jobs")
        return owner

    def _owner(self, user_id: str | None) -> str:
        owner = self._user_id if user_id is None else text(user_id, "user_id")
        if owner is None:
            raise ValueError("user_id: give it to the call or to the client")
        return owner


def _creation(job: NewJob, user_id: str = "") -> CreateJobRequest:
    return build(
        CreateJobRequest,
        user_id=user_id,
        job_type=text(job.job_type, "job_type"),
        parameters=to_struct(job.parameters, "parameters"),
        labels=_labels(job.labels),
        request_id=_fresh(job.request_id),
        max_attempts=job.max_attempts,
        queue_timeout=to_duration(job.queue_timeout, "queue_timeout"),
        run_timeout=to_duration(job.run_timeout, "run_timeout"),
        stall_timeout=to_duration(job.stall_timeout, "stall_timeout"),
    )


def _fresh(request_id: str | None) -> str:
    """Give the request an id: without one, a retry could do its work twice."""
    return str(uuid.uuid4()) if request_id is None else text(request_id, "request_id")


def _job_error(error: str | JobError | None, reason: str | None) -> job_pb2.JobError | None:
    if isinstance(error, str):
        return build(job_pb2.JobError, message=error, reason=reason or "")
    if reason is not None:
        raise ValueError("reason: goes with an error message, not with a JobError or none")
    if error is None:
        return None
    if not isinstance(error, JobError):
        raise TypeError(f"error: {type(error).__name__} is neither a str nor a JobError")
    return error.to_proto()


def text(value: str, name: str) -> str:
    """Return the value. Raises TypeError, naming the argument, unless it is a `str`."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: {type(value).__name__} is not a str")
    return value


def count(value: int, name: str) -> int:
    """Return the value. Raises TypeError or ValueError unless it is an `int` of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {type(value).__name__} is not an int")
    if value < 1:
        raise ValueError(f"{name}: {value} is less than 1")
    return value


def texts(values: Iterable[str], name: str) -> list[str]:
    """Return the values as a list.

    Raises:
        TypeError: they are one `str`, or not all of them are `str`.
    """
    return [text(value, name) for value in _several(values, name)]


def _several(values: Iterable[_Value], name: str) -> Iterable[_Value]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: {values!r} is not a list; give [{values!r}]")
    return values


def status_value(status: JobStatus, name: str) -> "job_pb2.JobStatus.ValueType":
    if not isinstance(status, JobStatus):
        raise TypeError(f"{name}: {status!r} is not a JobStatus")
    return status.to_proto()


def _labels(labels: Mapping[str, str] | None) -> Mapping[str, str] | None:
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels: {type(labels).__name__} is not a mapping")
    return {text(key, "labels"): text(value, f"labels.{key}") for key, value in labels.items()}


def asset_messages(assets: Iterable[Asset]) -> list[asset_pb2.Asset]:
    messages = []
    for asset in _several(assets, "assets"):
        if not isinstance(asset, Asset):
            raise TypeError(f"assets: {type(asset).__name__} is not an Asset")
        messages.append(asset.to_proto())
    return messages
