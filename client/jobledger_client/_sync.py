"""Client: the service, for blocking code.

The twin of _async.py. Every method is one line over _requests.py and _follow.py;
a test holds the two files to the same text but for `async` and `await`.
"""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Job, JobError, JobStatus, JobTransition
from jobledger.v1.job_service_pb2 import WatchJobResponse, WatchJobsResponse
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import UpdateProgressResponse
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_client._channel import OWN_CONNECTION, WatchStubs, call_metadata, open_channel
from jobledger_client._follow import follow
from jobledger_client._json import JsonObject
from jobledger_client._new_job import NewJob
from jobledger_client._reports_sync import Reports
from jobledger_client._requests import JobStatusValue, Requests, Seconds
from jobledger_client._watch import Watch
from jobledger_client._watch_jobs import JobsWatch
from jobledger_client.errors import JobledgerError, from_rpc_error


class _Page(Protocol):
    next_page_token: str


class _PageRequest(Protocol):
    page_token: str


_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_PageRequestT = TypeVar("_PageRequestT", bound=_PageRequest)
_PageT = TypeVar("_PageT", bound=_Page)
_Item = TypeVar("_Item")


class Client:
    """Talks to one Jobledger service.

    Safe to share between threads. Close it when done:
    `with Client("jobs.example:50051", user_id="ada") as client:`.

    target: `host:port`, or any other gRPC name.
    user_id: the owner for calls that name none.
    credentials: for TLS, for instance `grpc.ssl_channel_credentials()`. Default:
        plain text.
    token: sent with each call as `authorization: Bearer ...`, in plain text
        unless there are credentials.
    timeout: seconds that one call may take, retries included. Watches have none.
    channel: one's own channel instead of target and credentials. It is not
        closed with the client, and has retries and keepalive only if it was
        made with CHANNEL_OPTIONS.

    A call that finds no server (UNAVAILABLE) is repeated up to four times within
    about four seconds; every call here but claim_jobs, which is not repeated, is
    safe to repeat. What then fails raises a JobledgerError, of the kind that
    errors.py lists. Requests that cannot be built at all raise ValueError: no
    user_id, a datetime without a time zone, a value that JSON does not know.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        user_id: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        timeout: float = 10.0,
        channel: grpc.Channel | None = None,
    ) -> None:
        self._requests = Requests(user_id)
        self._metadata = call_metadata(token)
        self._timeout = timeout
        self._owns_channel = channel is None
        self._channel = open_channel(target, credentials) if channel is None else channel
        self._closed = threading.Event()
        self._jobs = JobServiceStub(self._channel)
        self._worker = WorkerServiceStub(self._channel)
        another = partial(open_channel, target, credentials, OWN_CONNECTION)
        self._watches = WatchStubs(self._jobs, JobServiceStub, another if channel is None else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the calls under way and closes the channels. May be repeated."""
        self._closed.set()
        if self._owns_channel:
            for channel in (self._channel, *self._watches.opened):
                channel.close()

    @property
    def worker_id(self) -> str:
        """How this client names itself as a worker: host, process and eight random digits."""
        return self._requests.worker_id

    def create_job(
        self,
        job_type: str,
        parameters: JsonObject | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        max_attempts: int = 0,
        queue_timeout: Seconds | None = None,
        run_timeout: Seconds | None = None,
        user_id: str | None = None,
    ) -> Job:
        """Create a QUEUED job.

        job_type: 1 to 50 characters, letters, digits, `.`, `_` and `-`.
        parameters: the input, at most 256 KiB.
        labels: at most 32 marks of one's own.
        request_id: 1 to 128 characters; the same id with the same content gives
            the job that exists. Default: a fresh one for each call.
        max_attempts: how many attempts may be lost to expired leases, 1 to 1000;
            0, the default, leaves it to the server: 1.
        queue_timeout: seconds, or a timedelta, that the job may wait for a worker.
            Default: 7 days.
        run_timeout: seconds, or a timedelta, that it may take from its first start
            on. Default: for ever.

        Raises InvalidField, RequestIdReused.
        """
        request = self._requests.create_job(
            job_type,
            parameters,
            labels=labels,
            request_id=request_id,
            max_attempts=max_attempts,
            queue_timeout=queue_timeout,
            run_timeout=run_timeout,
            user_id=user_id,
        )
        return self._call(self._jobs.CreateJob, request).job

    def create_jobs(self, jobs: Iterable[NewJob], *, user_id: str | None = None) -> list[Job]:
        """Create many QUEUED jobs in one transaction, all or none; returns them in their order.

        jobs: at most 1000, and 1 MiB in all. No jobs: none are created.

        Raises ValueError for more than 1000, InvalidField, whose violations name the
        job (`requests[3].job_type`), RequestIdReused, whose `index` does,
        LimitExceeded.
        """
        request = self._requests.create_jobs(jobs, user_id)
        if not request.requests:
            return []
        return list(self._call(self._jobs.BatchCreateJobs, request).jobs)

    def get_job(self, job_id: str, *, user_id: str | None = None) -> Job:
        """Read a job. Raises InvalidField, JobNotFound."""
        request = self._requests.get_job(job_id, user_id)
        return self._call(self._jobs.GetJob, request).job

    def list_jobs(
        self,
        *,
        statuses: Iterable[JobStatusValue] = (),
        job_types: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 0,
        user_id: str | None = None,
    ) -> Iterator[Job]:
        """List the owner's jobs, newest first, over all pages.

        Each filter narrows the list; a job must be in one of the statuses, of
        one of the types, carry all of the labels and be created strictly between
        the two times.
        page_size: jobs fetched at a time, 0 to 1000; 0 leaves it to the server.

        Raises InvalidField.
        """
        request = self._requests.list_jobs(
            statuses=statuses,
            job_types=job_types,
            labels=labels,
            created_after=created_after,
            created_before=created_before,
            page_size=page_size,
            user_id=user_id,
        )
        return self._pages(self._jobs.ListJobs, request, lambda page: page.jobs)

    def watch(
        self,
        job_id: str,
        *,
        user_id: str | None = None,
        after_version: int = 0,
        reconnect_timeout: float | None = None,
    ) -> Generator[WatchJobResponse, None, None]:
        """Follow a job to its end, over any number of connections.

        Yields the job at once and then whenever it changed, with every
        transition in between; versions strictly increase. Ends after the
        message with the terminal state, which always comes. Progress may be
        skipped, the newest never is.

        after_version: the version of the last message seen elsewhere; only what
            is newer is yielded, or the terminal state.
        reconnect_timeout: seconds to go on trying, counted from when the
            connection broke, before the last error is raised. Default: for ever.
            An attempt under way gets at least 5 s.

        A broken or silent (45 s) stream is opened again after a random pause
        that grows to 5 s. The stream lives as long as the generator: close it
        (`contextlib.closing`) to stop early at a certain moment.

        Raises InvalidField, JobNotFound (also when the job is deleted meanwhile),
        AccessDenied, InternalError; after reconnect_timeout Unavailable and its
        like.
        """
        return follow(
            self._watches,
            lambda jobs, request: jobs.WatchJob(request, metadata=self._metadata),
            partial(
                Watch,
                self._requests.watch_job(job_id, after_version, user_id),
                reconnect_timeout=reconnect_timeout,
            ),
            self._closed,
        )

    def watch_jobs(
        self,
        *,
        job_types: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        user_id: str | None = None,
        all_users: bool = False,
        resume_token: str = "",
        on_gap: Callable[[JobledgerError], object] | None = None,
        heartbeats: bool = False,
        connect_timeout: float | None = None,
        reconnect_timeout: float | None = None,
    ) -> Generator[WatchJobsResponse, None, None]:
        """Follow many jobs, over any number of connections, without an end.

        First yields the matching jobs that have not ended, one message each, then
        a message with `synced`: what was not told by then is not there, or has
        ended. Then it yields each change in the order of the commits: `job`, its
        `transitions`, `deleted`. Versions of one job strictly increase. Progress may
        be skipped; transitions, ends and deletions never are, and none comes twice.

        job_types, labels: only jobs of one of the types, with all of the labels.
        user_id: whose jobs. Default: the client's own owner.
        all_users: everybody's jobs instead, where the caller may see them.
        resume_token: the `resume_token` of the last message that was taken in, by
            this program or its predecessor, with the same filters: goes on after
            it. What was missed comes first, then `synced`, which here says no more
            than that this was all; nothing is listed. Default: begin with a
            listing.
        on_gap: called with the error where the service refuses the token that the
            watch would go on with: a ResumeTokenExpired, because it is older than
            what the service remembers of deletions (7 days unless the operator
            sets another time), or an InvalidToken, because the database was
            restored from a backup, or because a token of one's own is damaged or
            of other filters. The jobs are then listed again, up to another `synced`.
            What it raises ends the watch.
            Default: the error is raised.
        heartbeats: yield these too: no job, but a newer token each 15 s in which
            nothing happens. For programs that keep tokens of a watch on which
            little happens, so that theirs does not expire meanwhile.
        connect_timeout: seconds to go on trying before the first message came.
            Default: as reconnect_timeout.
        reconnect_timeout: seconds to go on trying, counted from when the
            connection broke, before the last error is raised. Default: for ever.
            An attempt under way gets at least 5 s.

        A broken or silent (45 s) stream is opened again, after a random pause that
        grows to 5 s, and goes on after the last message that was yielded. The
        stream lives as long as the generator: close it (`contextlib.closing`) to
        stop early at a certain moment.

        Raises InvalidField, AccessDenied, InternalError; without on_gap
        ResumeTokenExpired and InvalidToken; after reconnect_timeout Unavailable
        and its like.
        """
        return follow(
            self._watches,
            lambda jobs, request: jobs.WatchJobs(request, metadata=self._metadata),
            partial(
                JobsWatch,
                self._requests.watch_jobs(
                    job_types=job_types,
                    labels=labels,
                    resume_token=resume_token,
                    user_id=user_id,
                    all_users=all_users,
                ),
                anew=on_gap is not None,
                heartbeats=heartbeats,
                connect_timeout=connect_timeout,
                reconnect_timeout=reconnect_timeout,
            ),
            self._closed,
            on_gap,
        )

    def wait(
        self,
        job_id: str,
        *,
        user_id: str | None = None,
        timeout: float | None = None,
        reconnect_timeout: float | None = None,
    ) -> Job:
        """Wait for the end of a job and return it as it ended.

        timeout: seconds to wait. Default: for ever.

        Raises DeadlineExceeded after timeout, and what `watch` raises.
        """
        news = follow(
            self._watches,
            lambda jobs, request: jobs.WatchJob(request, metadata=self._metadata),
            partial(
                Watch,
                self._requests.watch_job(job_id, 0, user_id),
                reconnect_timeout=reconnect_timeout,
                timeout=timeout,
            ),
            self._closed,
        )
        job = Job()
        with contextlib.closing(news):
            for message in news:
                job = message.job
        return job

    def cancel_job(self, job_id: str, reason: str = "", *, user_id: str | None = None) -> Job:
        """Ask for a job to be cancelled.

        A job that no worker holds ends at once, as FAILED with the reason CANCELLED.
        Otherwise its worker is told and ends it; after 30 s the service does. A job
        that has ended, or was cancelled before, is returned as it is.

        reason: why, for people: at most 512 characters.

        Raises InvalidField, JobNotFound.
        """
        request = self._requests.cancel_job(job_id, reason, user_id)
        return self._call(self._jobs.CancelJob, request).job

    def delete_job(self, job_id: str, *, user_id: str | None = None) -> None:
        """Delete a terminal job with its transitions and the links to its assets.

        Raises InvalidField, IllegalTransition for a job that has not ended, and
        JobNotFound: there is no such job, or the answer to a first attempt was
        lost and the automatic second one found the job gone.
        """
        request = self._requests.delete_job(job_id, user_id)
        self._call(self._jobs.DeleteJob, request)

    def list_assets(
        self, job_id: str, *, page_size: int = 0, user_id: str | None = None
    ) -> Iterator[Asset]:
        """List what a job made, oldest first, over all pages.

        page_size: assets fetched at a time, 0 to 1000; 0 leaves it to the server.

        Raises InvalidField, JobNotFound.
        """
        request = self._requests.list_assets(job_id, page_size, user_id)
        return self._pages(self._jobs.ListAssets, request, lambda page: page.assets)

    def list_transitions(
        self, job_id: str, *, page_size: int = 0, user_id: str | None = None
    ) -> Iterator[JobTransition]:
        """List the steps of a job, oldest first, over all pages.

        page_size: steps fetched at a time, 0 to 1000; 0 leaves it to the server.

        Raises InvalidField, JobNotFound.
        """
        request = self._requests.list_transitions(job_id, page_size, user_id)
        return self._pages(self._jobs.ListTransitions, request, lambda page: page.transitions)

    def claim_jobs(
        self,
        job_types: Iterable[str],
        *,
        max_jobs: int = 1,
        lease_duration: Seconds = 60.0,
        wait: Seconds = 0.0,
        worker_id: str | None = None,
    ) -> list[Job]:
        """Take the oldest jobs that wait for a worker; `attempt` of each fences the calls to come.

        job_types: the types of jobs that the worker can do, 1 to 100.
        max_jobs: at most so many, 1 to 100.
        lease_duration: seconds, or a timedelta, 5 s to 24 h: each job is this
            worker's for so long, and for so long again after each update_progress.
        wait: seconds, or a timedelta, at most 60 s, to wait for a job where there
            is none; the call may take so much longer than `timeout`.
        worker_id: the worker's name. Default: this client's `worker_id`.

        Never repeated by itself: jobs whose answer was lost come back when their
        leases expire.

        Raises InvalidField, LimitExceeded, Unavailable.
        """
        request = self._requests.claim_jobs(
            job_types,
            max_jobs=max_jobs,
            lease_duration=lease_duration,
            wait=wait,
            worker_id=worker_id,
        )
        extra = request.wait.ToTimedelta().total_seconds()
        answer = self._call(self._worker.ClaimJobs, request, extra)
        return list(answer.jobs)

    def release_job(self, job_id: str, attempt: int) -> Job:
        """Give a job back unfinished: it can be claimed at once, and no attempt is used up.

        attempt: the caller's.

        Safe to repeat until somebody has claimed the job. A job that somebody asked
        to cancel ends as FAILED / CANCELLED instead.

        Raises InvalidField, JobNotFound, IllegalTransition, JobTerminal, LeaseLost.
        """
        request = self._requests.release_job(job_id, attempt)
        return self._call(self._worker.ReleaseJob, request).job

    def start_job(
        self,
        job_id: str,
        *,
        lease_duration: Seconds | None = None,
        worker_id: str | None = None,
    ) -> Job:
        """Start a QUEUED job; `attempt` of what it returns fences the calls to come.

        lease_duration: seconds, or a timedelta, 5 s to 24 h: the job is this
            worker's for so long, and for so long again after each update_progress.
            Default: 1 hour.
        worker_id: the worker's name, at most 128 characters; the same worker may
            repeat its start. Default: this client's `worker_id`.

        Raises InvalidField, JobNotFound, IllegalTransition, JobTerminal.
        """
        request = self._requests.transition_job(
            job_id,
            JobStatus.JOB_STATUS_PROCESSING,
            lease_duration=lease_duration,
            worker_id=worker_id,
        )
        return self._call(self._worker.TransitionJob, request).job

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
    ) -> Job:
        """Move a job: the full door, of which the calls around it are the short forms.

        target_status: PROCESSING to start, COMPLETED, PARTIAL or FAILED to end.
        attempt: refuses the call unless it is the job's attempt.
        expected_version: refuses the call unless it is the job's version.
        progress: percent, 0 to 100.
        progress_message: at most 512 characters.
        result: the outcome, at most 256 KiB; terminal targets only.
        error: required for FAILED, allowed for PARTIAL: a message, or a JobError.
        reason: goes with an error message; UPPER_SNAKE_CASE.
        assets: at most 1000, linked in the same transaction; terminal targets only.
        lease_duration: as for start_job; PROCESSING only.
        worker_id: default: this client's `worker_id`.

        Where an answer was lost, the automatic repetition of a call with
        expected_version that did not end the job says VersionMismatch though the
        first one did its work.

        Raises InvalidField, JobNotFound, IllegalTransition, JobTerminal,
        LeaseLost, VersionMismatch.
        """
        request = self._requests.transition_job(
            job_id,
            target_status,
            attempt=attempt,
            expected_version=expected_version,
            progress=progress,
            progress_message=progress_message,
            result=result,
            error=error,
            reason=reason,
            assets=assets,
            lease_duration=lease_duration,
            worker_id=worker_id,
        )
        return self._call(self._worker.TransitionJob, request).job

    def update_progress(
        self,
        job_id: str,
        progress: int | None = None,
        *,
        progress_message: str | None = None,
        attempt: int | None = None,
    ) -> UpdateProgressResponse:
        """Report how far a job is; `applied` of what it returns is False where that was late.

        progress: percent, 0 to 100. Default: as it is.
        progress_message: at most 512 characters. Default: as it is.
        attempt: refuses the call unless it is the job's attempt.

        Raises InvalidField, JobNotFound, IllegalTransition for a job that was not
        started, LeaseLost.
        """
        request = self._requests.update_progress(job_id, progress, progress_message, attempt)
        return self._call(self._worker.UpdateProgress, request)

    def report_progress(self) -> Reports:
        """Open a stream for the reports of many jobs: update_progress, at less cost.

        `with client.report_progress() as reports: reports.send(job.id, 50)`.
        """
        return Reports(
            partial(self._worker.ReportProgress, metadata=self._metadata),
            self._timeout,
            self._closed,
        )

    def mark_completed(
        self,
        job_id: str,
        result: JsonObject | None = None,
        *,
        assets: Iterable[Asset] = (),
        attempt: int | None = None,
    ) -> Job:
        """End a job as COMPLETED: everything was done.

        result: the outcome, at most 256 KiB.
        assets: at most 1000, linked in the same transaction; terminal targets only.
        attempt: refuses the call unless it is the job's attempt.

        Raises InvalidField, JobNotFound, IllegalTransition, JobTerminal,
        LeaseLost.
        """
        request = self._requests.mark_completed(job_id, result, assets, attempt)
        return self._call(self._worker.MarkCompleted, request).job

    def mark_partial(
        self,
        job_id: str,
        result: JsonObject | None = None,
        *,
        error: str | JobError | None = None,
        reason: str | None = None,
        assets: Iterable[Asset] = (),
        attempt: int | None = None,
    ) -> Job:
        """End a job as PARTIAL: some of it was done.

        result: what was done, at most 256 KiB.
        error: what was not: a message of 1 to 4096 characters, or a JobError.
        reason: goes with an error message; UPPER_SNAKE_CASE, at most 63 characters.
        assets: at most 1000, linked in the same transaction; terminal targets only.
        attempt: refuses the call unless it is the job's attempt.

        Raises InvalidField, JobNotFound, IllegalTransition, JobTerminal,
        LeaseLost.
        """
        request = self._requests.mark_partial(
            job_id,
            result=result,
            error=error,
            reason=reason,
            assets=assets,
            attempt=attempt,
        )
        return self._call(self._worker.MarkPartial, request).job

    def mark_failed(
        self,
        job_id: str,
        error: str | JobError,
        *,
        reason: str | None = None,
        result: JsonObject | None = None,
        assets: Iterable[Asset] = (),
        attempt: int | None = None,
    ) -> Job:
        """End a job as FAILED: it was not done.

        error: why: a message of 1 to 4096 characters, or a JobError.
        reason: goes with an error message; UPPER_SNAKE_CASE, at most 63 characters.
        result: what is known in spite of the failure, at most 256 KiB.
        assets: at most 1000, linked in the same transaction; terminal targets only.
        attempt: refuses the call unless it is the job's attempt.

        Raises InvalidField, JobNotFound, IllegalTransition, JobTerminal,
        LeaseLost.
        """
        request = self._requests.mark_failed(
            job_id,
            error=error,
            reason=reason,
            result=result,
            assets=assets,
            attempt=attempt,
        )
        return self._call(self._worker.MarkFailed, request).job

    def create_asset(
        self,
        job_id: str,
        asset_type: str,
        *,
        url: str = "",
        storage_path: str = "",
        file_size: int = 0,
        attempt: int | None = None,
        request_id: str | None = None,
    ) -> Asset:
        """Link an asset to a PROCESSING job.

        asset_type: 1 to 50 characters, for instance a media type.
        url, storage_path: where it is; at least one of them.
        file_size: bytes.
        attempt: refuses the call unless it is the job's attempt.
        request_id: 1 to 128 characters; the same id with the same content gives
            the asset that exists. Default: a fresh one for each call.

        Raises InvalidField, JobNotFound, IllegalTransition for a job that was not
        started, JobTerminal, LeaseLost, RequestIdReused.
        """
        request = self._requests.create_asset(
            job_id,
            asset_type=asset_type,
            url=url,
            storage_path=storage_path,
            file_size=file_size,
            attempt=attempt,
            request_id=request_id,
        )
        return self._call(self._worker.CreateAsset, request).asset

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        extra: float = 0.0,
    ) -> _Response:
        try:
            return method(request, timeout=self._timeout + extra, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def _pages(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_PageRequestT, _PageT]",
        request: _PageRequestT,
        items: Callable[[_PageT], Iterable[_Item]],
    ) -> Iterator[_Item]:
        while True:
            page = self._call(method, request)
            yield from items(page)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
