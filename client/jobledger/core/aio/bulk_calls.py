"""The calls that change many jobs: those that match filters."""

from typing import Unpack

from jobledger.core.aio.base import AsyncCalls
from jobledger.core.bulk import MAX_STEP, BulkResult, OnProgress, run_steps_async
from jobledger.core.conversion import build
from jobledger.core.filters import JobFilters, job_filter
from jobledger.core.options import DEFAULT, Metadata, Timeout
from jobledger.v1.job_service_pb2 import CancelJobsRequest, DeleteJobsRequest, RerunJobsRequest


class AsyncBulkCalls(AsyncCalls):
    """For the owners of jobs. Each call changes the jobs that match its filters, newest first.

    It runs in steps of at most 100 jobs until all are done, and `on_progress` is called after each.
    When a step finds no server it is tried again for a minute. A call that was stopped in the
    middle can be made again: jobs that it has changed do not match any more.
    """

    async def rerun_jobs(
        self,
        *,
        validate_only: bool = False,
        jobs_per_second: float = 0.0,
        on_progress: OnProgress | None = None,
        all_jobs: bool = False,
        user_id: str | None = None,
        all_users: bool = False,
        timeout: Timeout = DEFAULT,
        metadata: Metadata = (),
        **filters: Unpack[JobFilters],
    ) -> BulkResult:
        """Run FAILED jobs again: `rerun_job` for each that matches and was not rerun yet.

        Cancelled jobs are left out unless `cancelled` or `error_reasons` names them. A job is
        passed over whose `unique_key` another one has.

        Runs until all are done, in steps of at most 100 jobs. When a step finds no server it is
        tried again for a minute. After an error, or when your program was stopped, make the same
        call again: no job is rerun twice.

        Args:
            validate_only: change nothing; the result says how many jobs match.
            jobs_per_second: schedule the new jobs so that this many may start in a second, 0.001
                to 1000. Default (0): all at once.
            on_progress: called after each step with the result so far. May be a coroutine
                function.
            all_jobs: all FAILED jobs that were not cancelled, without a filter.
            user_id: the owner.
            all_users: the jobs of all users instead, if the caller may change them.
            timeout: see CallOptions; for each step.
            metadata: see CallOptions; for each step.
            **filters: see JobFilters; at least one, or `all_jobs`. `statuses` are terminal ones,
                by default FAILED.

        Raises:
            ValueError: a filter is given, but empty.
            InvalidField: a filter breaks its rule, or neither filters nor `all_jobs` are given.
            AccessDenied: the caller may not change these jobs.
            LimitExceeded: the owner may not create more jobs now. Those before were made.
            Unavailable: no server. What was done before stays.
        """
        request = build(
            RerunJobsRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            filter=job_filter(filters),
            all=all_jobs,
            validate_only=validate_only,
            max_jobs=MAX_STEP if validate_only else 0,
            jobs_per_second=jobs_per_second,
        )
        options = self._checked({"timeout": timeout, "metadata": metadata})
        return await run_steps_async(
            lambda step: self._call(lambda service: service.jobs.RerunJobs, step, options),
            request,
            on_progress=on_progress,
            closed=self._closed,
        )

    async def cancel_jobs(
        self,
        reason: str = "",
        *,
        validate_only: bool = False,
        on_progress: OnProgress | None = None,
        all_jobs: bool = False,
        user_id: str | None = None,
        all_users: bool = False,
        timeout: Timeout = DEFAULT,
        metadata: Metadata = (),
        **filters: Unpack[JobFilters],
    ) -> BulkResult:
        """Cancel jobs: `cancel_job` for each that matches and is neither terminal nor cancelled.

        Runs until all are done, in steps of at most 100 jobs. When a step finds no server it is
        tried again for a minute. After an error, or when your program was stopped, make the same
        call again.

        Args:
            reason: why, for people: at most 512 characters.
            validate_only: change nothing; the result says how many jobs match.
            on_progress: called after each step with the result so far. May be a coroutine
                function.
            all_jobs: all jobs that are not terminal, without a filter.
            user_id: the owner.
            all_users: the jobs of all users instead, if the caller may change them.
            timeout: see CallOptions; for each step.
            metadata: see CallOptions; for each step.
            **filters: see JobFilters; at least one, or `all_jobs`. `statuses` are QUEUED and
                PROCESSING.

        Raises:
            ValueError: a filter is given, but empty.
            InvalidField: a filter breaks its rule, or neither filters nor `all_jobs` are given.
            AccessDenied: the caller may not change these jobs.
            Unavailable: no server. What was done before stays.
        """
        request = build(
            CancelJobsRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            filter=job_filter(filters),
            all=all_jobs,
            validate_only=validate_only,
            max_jobs=MAX_STEP if validate_only else 0,
            reason=reason,
        )
        options = self._checked({"timeout": timeout, "metadata": metadata})
        return await run_steps_async(
            lambda step: self._call(lambda service: service.jobs.CancelJobs, step, options),
            request,
            on_progress=on_progress,
            closed=self._closed,
        )

    async def delete_jobs(
        self,
        *,
        validate_only: bool = False,
        on_progress: OnProgress | None = None,
        all_jobs: bool = False,
        user_id: str | None = None,
        all_users: bool = False,
        timeout: Timeout = DEFAULT,
        metadata: Metadata = (),
        **filters: Unpack[JobFilters],
    ) -> BulkResult:
        """Delete terminal jobs: `delete_job` for each that matches.

        Runs until all are done, in steps of at most 100 jobs. When a step finds no server it is
        tried again for a minute. After an error, or when your program was stopped, make the same
        call again.

        Args:
            validate_only: change nothing; the result says how many jobs match.
            on_progress: called after each step with the result so far. May be a coroutine
                function.
            all_jobs: all terminal jobs, without a filter.
            user_id: the owner.
            all_users: the jobs of all users instead, if the caller may change them.
            timeout: see CallOptions; for each step.
            metadata: see CallOptions; for each step.
            **filters: see JobFilters; at least one, or `all_jobs`. `statuses` are terminal ones.

        Raises:
            ValueError: a filter is given, but empty.
            InvalidField: a filter breaks its rule, or neither filters nor `all_jobs` are given.
            AccessDenied: the caller may not change these jobs.
            Unavailable: no server. What was done before stays.
        """
        request = build(
            DeleteJobsRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            filter=job_filter(filters),
            all=all_jobs,
            validate_only=validate_only,
            max_jobs=MAX_STEP if validate_only else 0,
        )
        options = self._checked({"timeout": timeout, "metadata": metadata})
        return await run_steps_async(
            lambda step: self._call(lambda service: service.jobs.DeleteJobs, step, options),
            request,
            on_progress=on_progress,
            closed=self._closed,
        )
