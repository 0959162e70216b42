# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""The calls of a worker: claim, start, report, finish, release."""

from collections.abc import Iterable
from typing import Unpack

from jobledger.core.conversion import (
    JsonObject,
    Seconds,
    build,
    to_duration,
    to_seconds,
)
from jobledger.core.models import Asset, Job, JobError, JobStatus, JobView, ProgressResult
from jobledger.core.options import CallOptions
from jobledger.core.requests import fresh_id, id_of, texts
from jobledger.core.sync.base import Calls
from jobledger.core.updates import finish_update, progress_update, release_update
from jobledger.v1.asset_pb2 import NewAsset
from jobledger.v1.worker_service_pb2 import (
    AppendOutputRequest,
    AssetUpdate,
    ClaimJobsRequest,
    CreateAssetRequest,
    HeldJob,
    MarkCompletedRequest,
    MarkFailedRequest,
    MarkPartialRequest,
    ReleaseJobRequest,
    TransitionJobRequest,
    UpdateProgressRequest,
)


class WorkerCalls(Calls):
    """For workers. What a call returns is in the view BASIC, except for claimed jobs.

    `attempt` fences a call: it is refused unless it is the job's attempt. It is required, or
    `any_attempt=True` says that only one worker ever runs the job.
    """

    @property
    def worker_id(self) -> str:
        """The id of this client as a worker: host, process and eight random digits."""
        return self._identity.worker_id

    def claim_jobs(
        self,
        job_types: Iterable[str],
        *,
        max_jobs: int = 1,
        lease_duration: Seconds = 60.0,
        wait: Seconds = 0.0,
        worker_id: str | None = None,
        holding: Iterable[Job] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[Job]:
        """Claim jobs; the `attempt` of each fences the calls that follow.

        Those with the highest priority come first, of one priority the tenants in turn, of one
        tenant the oldest.

        Give `holding` with each claim, and a lost answer costs no attempt: what the worker holds
        besides was in it, and is released first. The call is then repeated automatically.
        Without it, it is not: jobs whose answer was lost are claimable again when their leases
        have expired.

        Args:
            job_types: what the worker can do, 1 to 100.
            max_jobs: 1 to 100. The answer is bounded to 3 MiB as well.
            lease_duration: seconds, or a timedelta, 5 s to 24 h: the attempt is lost unless the
                worker reports within this time.
            wait: seconds, or a timedelta, at most 60 s, to wait for a job if there is none. The
                call's timeout starts after it.
            worker_id: default: this client's `worker_id`.
            holding: all jobs of these types that the worker holds under its `worker_id`, at most
                1000; empty if it holds none. Such a worker has one claim at a time, and a
                `worker_id` of its own. Default: nothing is released.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            LimitExceeded: too many claims are waiting.
            Unavailable: no server.
        """
        held = None if holding is None else list(holding)
        request = build(
            ClaimJobsRequest,
            worker_id=self.worker_id if worker_id is None else worker_id,
            job_types=texts(job_types, "job_types"),
            max_jobs=max_jobs,
            lease_duration=to_duration(lease_duration, "lease_duration"),
            wait=to_duration(wait, "wait"),
            holding=[HeldJob(job_id=job.id, attempt=job.attempt) for job in held or ()],
            holds_none=held == [],
        )
        once = held is None
        extra = to_seconds(wait, "wait")
        answer = self._call(
            lambda service: service.worker.ClaimJobs, request, options, extra=extra, once=once
        )
        return [Job.from_proto(job) for job in answer.jobs]

    def release_job(
        self,
        job_id: str | Job,
        attempt: int,
        *,
        delay: Seconds | None = None,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Release a job unfinished: it can be claimed again, and no attempt is used up.

        Safe to repeat until a worker has claimed the job. A job that is released again and again
        within its lease waits longer each time, as its RetryPolicy says. A job whose cancellation
        was requested is FAILED / CANCELLED instead.

        Args:
            job_id: the job, or its id.
            attempt: the caller's.
            delay: seconds, or a timedelta, that the job waits at least before it can be claimed
                again, at most 365 days. Default: none.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: there is no such job.
            IllegalTransition: the job was not started.
            JobTerminal: the job is terminal.
            LeaseLost: the job has another attempt.
        """
        request = build(
            ReleaseJobRequest,
            job_id=id_of(job_id),
            attempt=attempt,
            release=release_update(delay),
        )
        answer = self._call(lambda service: service.worker.ReleaseJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def start_job(
        self,
        job_id: str | Job,
        *,
        lease_duration: Seconds | None = None,
        worker_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Start a QUEUED job; its `attempt` fences the calls that follow.

        Args:
            job_id: the job, or its id.
            lease_duration: see `claim_jobs`. Default: 1 hour.
            worker_id: at most 128 characters; the same worker may repeat its start. Default: this
                client's `worker_id`.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: there is no such job.
            IllegalTransition: another worker has started it.
            JobNotDue: it is scheduled for later.
            Paused: its type or its concurrency key is paused.
            ConcurrencyLimitReached: as many jobs with its concurrency key are held as may be.
            JobTerminal: the job is terminal.
        """
        return self.transition_job(
            job_id,
            JobStatus.PROCESSING,
            lease_duration=lease_duration,
            worker_id=worker_id,
            **options,
        )

    def transition_job(
        self,
        job_id: str | Job,
        target_status: JobStatus,
        *,
        attempt: int | None = None,
        any_attempt: bool = False,
        expected_version: int | None = None,
        progress: int | None = None,
        progress_message: str | None = None,
        result: JsonObject | None = None,
        error: str | JobError | None = None,
        reason: str | None = None,
        assets: Iterable[Asset] = (),
        retryable: bool = False,
        retry_delay: Seconds | None = None,
        lease_duration: Seconds | None = None,
        worker_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Move a job to another status; the general form of the calls around it.

        If the answer to a call with `expected_version` that does not finish the job is lost, its
        automatic repetition raises VersionMismatch although the first one succeeded.

        Args:
            job_id: the job, or its id.
            target_status: PROCESSING to start, COMPLETED, PARTIAL or FAILED to finish.
            attempt: the caller's; to finish only.
            any_attempt: instead of `attempt`.
            expected_version: refuses the call unless it is the job's version.
            progress: percent, 0 to 100.
            progress_message: at most 512 characters.
            result: a JSON object of at most 256 KiB; to finish only.
            error: a message, or a JobError; required for FAILED, allowed for PARTIAL.
            reason: goes with an error message; UPPER_SNAKE_CASE.
            assets: at most 1000, linked in the same transaction; to finish only.
            retryable: see `mark_failed`; FAILED only.
            retry_delay: see `mark_failed`; FAILED only.
            lease_duration: see `start_job`; to start only.
            worker_id: default: this client's `worker_id`.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: there is no such job.
            IllegalTransition: the job's status does not allow it.
            JobNotDue: to be started, but it is scheduled for later.
            Paused: to be started, but its type or its concurrency key is paused.
            ConcurrencyLimitReached: to be started, but as many jobs with its concurrency key are
                held as may be.
            JobTerminal: the job is terminal.
            LeaseLost: the job has another attempt.
            VersionMismatch: the job has another version.
        """
        request = build(
            TransitionJobRequest,
            job_id=id_of(job_id),
            target_status=JobStatus(target_status).to_proto(),
            attempt=attempt,
            any_attempt=any_attempt,
            expected_version=expected_version,
            progress=progress_update(progress, progress_message),
            finish=finish_update(
                result=result,
                error=error,
                reason=reason,
                assets=assets,
                retryable=retryable,
                retry_delay=retry_delay,
            ),
            lease_duration=to_duration(lease_duration, "lease_duration"),
            worker_id=self.worker_id if worker_id is None else worker_id,
        )
        answer = self._call(lambda service: service.worker.TransitionJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def update_progress(
        self,
        job_id: str | Job,
        progress: int | None = None,
        *,
        progress_message: str | None = None,
        checkpoint: JsonObject | None = None,
        attempt: int | None = None,
        any_attempt: bool = False,
        **options: Unpack[CallOptions],
    ) -> ProgressResult:
        """Report the progress of a job, which renews its lease.

        A report on a terminal job is no error; its `applied` is false.

        Args:
            job_id: the job, or its id.
            progress: percent, 0 to 100; a lower one than before changes nothing. Default:
                unchanged.
            progress_message: at most 512 characters. Default: unchanged.
            checkpoint: where the next attempt would go on: a JSON object of at most 64 KiB, which
                replaces the one before. Default: unchanged.
            attempt: the caller's.
            any_attempt: instead of `attempt`.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: there is no such job.
            IllegalTransition: the job was not started.
            LeaseLost: the job has another attempt.
        """
        request = build(
            UpdateProgressRequest,
            job_id=id_of(job_id),
            attempt=attempt,
            any_attempt=any_attempt,
            progress=progress_update(progress, progress_message, checkpoint),
        )
        answer = self._call(lambda service: service.worker.UpdateProgress, request, options)
        return ProgressResult.from_proto(answer)

    def mark_completed(
        self,
        job_id: str | Job,
        result: JsonObject | None = None,
        *,
        assets: Iterable[Asset] = (),
        attempt: int | None = None,
        any_attempt: bool = False,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Finish a job as COMPLETED: everything was done.

        Args:
            job_id: the job, or its id.
            result: the output: a JSON object of at most 256 KiB.
            assets: at most 1000, linked in the same transaction.
            attempt: the caller's.
            any_attempt: instead of `attempt`.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: there is no such job.
            IllegalTransition: the job was not started.
            JobTerminal: the job is terminal.
            LeaseLost: the job has another attempt.
        """
        request = build(
            MarkCompletedRequest,
            job_id=id_of(job_id),
            attempt=attempt,
            any_attempt=any_attempt,
            finish=finish_update(result=result, assets=assets),
        )
        answer = self._call(lambda service: service.worker.MarkCompleted, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def mark_partial(
        self,
        job_id: str | Job,
        result: JsonObject | None = None,
        *,
        error: str | JobError | None = None,
        reason: str | None = None,
        assets: Iterable[Asset] = (),
        attempt: int | None = None,
        any_attempt: bool = False,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Finish a job as PARTIAL: some of it was done.

        Args:
            job_id: the job, or its id.
            result: what was done: a JSON object of at most 256 KiB.
            error: what was not: a message of 1 to 4096 characters, or a JobError.
            reason: goes with an error message; UPPER_SNAKE_CASE, at most 63 characters.
            assets: at most 1000, linked in the same transaction.
            attempt: the caller's.
            any_attempt: instead of `attempt`.
            **options: see CallOptions.

        Raises:
            JobledgerError: as in `mark_completed`.
        """
        request = build(
            MarkPartialRequest,
            job_id=id_of(job_id),
            attempt=attempt,
            any_attempt=any_attempt,
            finish=finish_update(result=result, error=error, reason=reason, assets=assets),
        )
        answer = self._call(lambda service: service.worker.MarkPartial, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def mark_failed(
        self,
        job_id: str | Job,
        error: str | JobError,
        *,
        reason: str | None = None,
        result: JsonObject | None = None,
        assets: Iterable[Asset] = (),
        retryable: bool = False,
        retry_delay: Seconds | None = None,
        attempt: int | None = None,
        any_attempt: bool = False,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Finish a job as FAILED: it was not done. With `retryable` it may be tried again.

        Args:
            job_id: the job, or its id.
            error: why: a message of 1 to 4096 characters, or a JobError.
            reason: goes with an error message; UPPER_SNAKE_CASE, at most 63 characters.
            result: what is known in spite of the failure: a JSON object of at most 256 KiB.
            assets: at most 1000, linked in the same transaction.
            retryable: another attempt may succeed. If its RetryPolicy leaves one, the job is not
                FAILED: it waits for it, with this error as `last_error` and without `result`.
            retry_delay: seconds, or a timedelta, before the next attempt, at most 365 days. Needs
                `retryable`. Default: the pause that its RetryPolicy says.
            attempt: the caller's.
            any_attempt: instead of `attempt`.
            **options: see CallOptions.

        Raises:
            JobledgerError: as in `mark_completed`.
        """
        request = build(
            MarkFailedRequest,
            job_id=id_of(job_id),
            attempt=attempt,
            any_attempt=any_attempt,
            finish=finish_update(
                result=result,
                error=error,
                reason=reason,
                assets=assets,
                retryable=retryable,
                retry_delay=retry_delay,
            ),
        )
        answer = self._call(lambda service: service.worker.MarkFailed, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def create_asset(
        self,
        job_id: str | Job,
        asset_type: str,
        *,
        url: str = "",
        storage_path: str = "",
        file_size: int = 0,
        name: str = "",
        sha256: str = "",
        etag: str = "",
        attempt: int | None = None,
        any_attempt: bool = False,
        request_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Asset:
        """Link an asset to a PROCESSING job.

        Args:
            job_id: the job, or its id.
            asset_type: 1 to 50 characters, for instance a media type.
            url: where it is; this or `storage_path` is required.
            storage_path: where it is, for programs that share a storage.
            file_size: bytes.
            name: unique within the job, at most 255 characters. Default: the last part of the path
                of `url`, or of `storage_path`, or `asset_type`.
            sha256: the digest of its content, 64 hexadecimal digits. Default: none.
            etag: the entity tag that its store gave it, at most 255 characters. Default: none.
            attempt: the caller's.
            any_attempt: instead of `attempt`.
            request_id: 1 to 128 characters. The same id with the same content returns the asset
                that exists. Default: a new one for each call.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: there is no such job.
            IllegalTransition: the job was not started.
            JobTerminal: the job is terminal.
            LeaseLost: the job has another attempt.
            RequestIdReused: the request id was used with other content.
            AssetNameTaken: the attempt linked another asset of this name.
            MessageTooLarge: the job would have too many assets, or too many bytes of them.
        """
        asset = build(
            NewAsset,
            asset_type=asset_type,
            url=url,
            storage_path=storage_path,
            file_size=file_size,
            name=name,
            sha256=sha256,
            etag=etag,
        )
        request = build(
            CreateAssetRequest,
            job_id=id_of(job_id),
            attempt=attempt,
            any_attempt=any_attempt,
            asset=build(AssetUpdate, asset=asset, request_id=request_id or fresh_id()),
        )
        answer = self._call(lambda service: service.worker.CreateAsset, request, options)
        return Asset.from_proto(answer.asset)

    def append_output(
        self,
        job_id: str | Job,
        attempt: int,
        data: str | bytes,
        *,
        stream: str = "",
        content_type: str = "",
        number: int = 0,
        **options: Unpack[CallOptions],
    ) -> int:
        """Append to a stream of the job's output; return the offset after it.

        The job itself does not change. The call renews the lease, and is progress.

        Args:
            job_id: the job, or its id.
            attempt: the caller's.
            data: 1 byte to 64 KiB; a text is sent as UTF-8.
            stream: at most 64 letters, digits, `.`, `_` and `-`. By convention `log` has what the
                program says of itself. Default: the stream without a name.
            content_type: what the stream is, if this is its first append: a media type of at most
                128 characters. Default: `text/plain; charset=utf-8`.
            number: 1 for the first append of the attempt to the stream, and 1 more for each later
                one. Then the call may be repeated, which appends once. Default (0): it is not
                repeated automatically.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: there is no such job.
            IllegalTransition: the job was not started.
            JobTerminal: the job is terminal.
            LeaseLost: the job has another attempt.
            OutputGap: a number before this one is left out.
            LimitExceeded: the owner, or all, have appended too many bytes in the last seconds.
            MessageTooLarge: the job would have too many streams, or too much output although it was
                created with `refuse_output`.
        """
        request = build(
            AppendOutputRequest,
            job_id=id_of(job_id),
            attempt=attempt,
            data=data.encode() if isinstance(data, str) else data,
            stream=stream,
            content_type=content_type,
            number=number,
        )
        answer = self._call(
            lambda service: service.worker.AppendOutput, request, options, once=not number
        )
        return answer.next_offset
