# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""The calls of a job's owner: create, read, list, watch, cancel, delete."""

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Unpack

from jobledger.core.attempts import Attempt
from jobledger.core.conversion import JsonObject, Seconds, build, to_timestamp
from jobledger.core.feed_watch import CompletionWatch, FeedWatch
from jobledger.core.job_watch import JobWatch
from jobledger.core.merging import merge
from jobledger.core.models import Asset, FeedEvent, Job, JobChange, JobStatus, JobView, Transition
from jobledger.core.new_job import JobOptions, NewJob
from jobledger.core.options import (
    DEFAULT,
    CallOptions,
    Metadata,
    OnError,
    Timeout,
    WatchOptions,
    headers_of,
    seconds_of,
)
from jobledger.core.page import Page
from jobledger.core.requests import MAX_IDS, groups, texts
from jobledger.core.streams import Watch
from jobledger.core.sync.base import Calls
from jobledger.core.sync.completion import as_completed
from jobledger.core.sync.pages import Pager
from jobledger.errors import MessageTooLarge
from jobledger.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    BatchGetJobsRequest,
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    ListAssetsRequest,
    ListAttemptsRequest,
    ListJobsRequest,
    ListTransitionsRequest,
    WatchJobRequest,
    WatchJobsRequest,
)


class OwnerCalls(Calls):
    """For the owners of jobs. `user_id` is whose jobs; by default the client's own.

    `view` is how much of a job is read; see JobView. What a call that writes returns is in the
    view BASIC.
    """

    def create_job(
        self,
        job_type: str,
        parameters: JsonObject | None = None,
        *,
        user_id: str | None = None,
        timeout: Timeout = DEFAULT,
        metadata: Metadata = (),
        **options: Unpack[JobOptions],
    ) -> Job:
        """Create a QUEUED job.

        Args:
            job_type: 1 to 50 characters: letters, digits, `.`, `_` and `-`.
            parameters: the input: a JSON object of at most 256 KiB.
            user_id: the owner.
            timeout: see CallOptions.
            metadata: see CallOptions.
            **options: see JobOptions.

        Raises:
            InvalidField: a field breaks its rule.
            RequestIdReused: the request id was used with other content.
        """
        job = NewJob(job_type, parameters, **options)
        request = job.to_proto(self._identity.owner(user_id))
        call: CallOptions = {"timeout": timeout, "metadata": metadata}
        answer = self._call(lambda service: service.jobs.CreateJob, request, call)
        return Job.from_proto(answer.job, JobView.BASIC)

    def create_jobs(
        self,
        jobs: Iterable[NewJob],
        *,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> list[Job]:
        """Create many QUEUED jobs in one transaction, all or none; return them in their order.

        Args:
            jobs: at most 1000, and 1 MiB in all. Without any, no call is made.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: more than 1000 jobs, or its violations name the job:
                `requests[3].job_type`.
            RequestIdReused: its `index` names the job.
            MessageTooLarge: the jobs are together larger than 1 MiB.
        """
        requests = [job.to_proto() for job in jobs]
        if not requests:
            return []
        owner = self._identity.owner(user_id)
        request = build(BatchCreateJobsRequest, user_id=owner, requests=requests)
        answer = self._call(lambda service: service.jobs.BatchCreateJobs, request, options)
        return [Job.from_proto(job, JobView.BASIC) for job in answer.jobs]

    def get_job(
        self,
        job_id: str,
        *,
        view: JobView = JobView.FULL,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Read a job.

        Args:
            job_id: the job.
            view: how much of it.
            user_id: its owner.
            **options: see CallOptions.

        Raises:
            InvalidField: `job_id` is empty, or longer than the 36 characters of a UUID.
            JobNotFound: the owner has no such job.
        """
        view = JobView(view)
        request = build(
            GetJobRequest,
            job_id=job_id,
            user_id=self._identity.owner(user_id),
            view=view.to_proto(),
        )
        answer = self._call(lambda service: service.jobs.GetJob, request, options)
        return Job.from_proto(answer.job, view)

    def get_jobs(
        self,
        job_ids: Iterable[str],
        *,
        view: JobView = JobView.BASIC,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> dict[str, Job]:
        """Read some jobs; return them by their ids, in the order of `job_ids`.

        A job that the owner does not have is missing in the answer: `job_ids - jobs.keys()`.

        Args:
            job_ids: any number; one call reads at most 1000 of them, and 3 MiB.
            view: how much of them.
            user_id: their owner.
            **options: see CallOptions; for each call.

        Raises:
            InvalidField: an id is empty, or longer than the 36 characters of a UUID.
        """
        view = JobView(view)
        request = build(
            BatchGetJobsRequest, user_id=self._identity.owner(user_id), view=view.to_proto()
        )
        options = self._checked(options)
        left = list(dict.fromkeys(texts(job_ids, "job_ids")))
        jobs: dict[str, Job] = {}
        size = MAX_IDS
        while left:
            request.job_ids[:] = left[:size]
            try:
                answer = self._call(lambda service: service.jobs.BatchGetJobs, request, options)
            except MessageTooLarge:
                size = min(size, len(left)) // 2
                if not size:
                    raise
                continue
            jobs.update((job.id, Job.from_proto(job, view)) for job in answer.jobs)
            left = left[size:]
        return jobs

    def list_jobs(
        self,
        *,
        statuses: Iterable[JobStatus] = (),
        job_types: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
        view: JobView = JobView.BASIC,
        user_id: str | None = None,
        all_users: bool = False,
        **options: Unpack[CallOptions],
    ) -> Pager[Job]:
        """List jobs, newest first. Iterate over the result, or over its `pages()`.

        Args:
            statuses: only jobs with one of these. Default: all.
            job_types: only jobs of one of these. Default: all.
            labels: only jobs with all of these.
            created_after: only jobs created later.
            created_before: only jobs created earlier.
            page_size: jobs read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            view: how much of them.
            user_id: the owner.
            all_users: the jobs of all users instead, if the caller may see them.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a filter breaks its rule.
            InvalidToken: `page_token` is of another list.
        """
        view = JobView(view)
        request = build(
            ListJobsRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            statuses=[JobStatus(status).to_proto() for status in statuses],
            job_types=texts(job_types, "job_types"),
            labels=labels,
            created_after=to_timestamp(created_after, "created_after"),
            created_before=to_timestamp(created_before, "created_before"),
            page_size=page_size,
            view=view.to_proto(),
        )
        options = self._checked(options)

        def read(token: str) -> Page[Job]:
            request.page_token = token
            page = self._call(lambda service: service.jobs.ListJobs, request, options)
            jobs = tuple(Job.from_proto(job, view) for job in page.jobs)
            return Page(jobs, page.next_page_token)

        return Pager(read, page_token)

    def watch(
        self,
        job_id: str,
        *,
        after_version: int = 0,
        view: JobView = JobView.FULL,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> Watch[JobChange]:
        """Watch a job until it is terminal, over any number of connections.

        Yields the job at once and then each time it has changed, with every transition in between.
        Versions strictly increase. Progress may be skipped, but never the newest. The last change
        has the terminal status. A stream that breaks, or is silent for 45 s, is opened again after
        a random pause of up to 5 s.

        Args:
            job_id: the job.
            after_version: the version of the last change that was seen; only newer ones follow,
                or the terminal state.
            view: how much of the job.
            user_id: the owner.
            **options: see WatchOptions.

        Raises:
            InvalidField: `job_id` is empty, or longer than the 36 characters of a UUID.
            JobNotFound: the owner has no such job, or it was deleted.
            Unavailable: a timeout has passed.
            JobledgerError: any other failure that a retry cannot mend.
        """
        request = build(
            WatchJobRequest,
            job_id=job_id,
            user_id=self._identity.owner(user_id),
            after_version=after_version,
            view=JobView(view).to_proto(),
        )
        return self._watch_job(request, options)

    def watch_jobs(
        self,
        *,
        job_types: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        job_ids: Iterable[str] | None = None,
        view: JobView = JobView.BASIC,
        user_id: str | None = None,
        all_users: bool = False,
        resume_token: str = "",
        on_gap: OnError | None = None,
        heartbeats: bool = False,
        **options: Unpack[WatchOptions],
    ) -> Watch[FeedEvent]:
        """Watch many jobs, over any number of connections, until it is closed.

        First yields the matching jobs that are not terminal, then an event with `synced`, then
        each change in commit order. Versions of a job strictly increase. Progress may be skipped;
        transitions and deletions never are, and none comes twice.

        Args:
            job_types: only jobs of one of these. Default: all.
            labels: only jobs with all of these.
            job_ids: only these, 1 to 1000. Default: all.
            view: how much of the jobs; see FeedEvent.job.
            user_id: whose jobs.
            all_users: the jobs of all users instead, if the caller may see them.
            resume_token: the token of the last event that was processed, by this program or
                another, with the same filters: what was missed comes first, then `synced`.
                Changes that came in one message with that event may come again; see
                FeedEvent.resume_token. Default: start with a listing.
            on_gap: called with the error if the service refuses the token: ResumeTokenExpired if
                the changes after it were compacted (after 7 days unless the operator sets another
                time), or InvalidToken. Then the jobs are listed again, up to another `synced`.
                What it raises ends the watch. Default: the error is
                raised.
            heartbeats: yield these too: no job, but a newer token, after each 15 s without a
                change. For programs that keep the token of a quiet watch for long.
            **options: see WatchOptions.

        Raises:
            InvalidField: a filter breaks its rule.
            AccessDenied: the caller may not see these jobs.
            ResumeTokenExpired: see `on_gap`.
            InvalidToken: see `on_gap`.
            Unavailable: a timeout has passed.
            JobledgerError: any other failure that a retry cannot mend.
        """
        ids = None if job_ids is None else texts(job_ids, "job_ids")
        if ids == []:
            # In the request this would mean all jobs.
            raise ValueError("job_ids: is empty; leave it out for all jobs")
        request = build(
            WatchJobsRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            job_types=texts(job_types, "job_types"),
            labels=labels,
            job_ids=ids,
            resume_token=resume_token,
            view=JobView(view).to_proto(),
        )
        return self._watch(
            lambda service, request, headers: service.jobs.WatchJobs(request, metadata=headers),
            partial(FeedWatch, request, relist=on_gap is not None, heartbeats=heartbeats),
            options,
            on_gap=on_gap,
        )

    def wait(
        self,
        job_id: str,
        *,
        timeout: Seconds | None = None,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> Job:
        """Wait until a job is terminal; return it.

        Args:
            job_id: the job.
            timeout: seconds, or a timedelta. Default: no limit.
            user_id: the owner.
            **options: see WatchOptions.

        Raises:
            DeadlineExceeded: `timeout` has passed.
            JobledgerError: what `watch` raises.
        """
        request = build(
            WatchJobRequest,
            job_id=job_id,
            user_id=self._identity.owner(user_id),
            view=JobView.FULL.to_proto(),
        )
        watch = self._watch_job(request, options, timeout=timeout)
        with watch:
            for change in watch:
                job = change.job
        return job

    def as_completed(
        self,
        job_ids: Iterable[str],
        *,
        timeout: Seconds | None = None,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> Iterator[Job]:
        """Yield each of these jobs once it is terminal, in the order in which they finish.

        They are watched over one stream for each 1000 of them, and read in the view FULL when
        they have finished.

        Args:
            job_ids: any number; one that occurs twice is yielded once.
            timeout: seconds, or a timedelta, for all of them. Default: no limit.
            user_id: the owner.
            **options: see WatchOptions. The callbacks are called for each stream.

        Raises:
            JobNotFound: the owner has no such job, or it was deleted before it was yielded.
            DeadlineExceeded: `timeout` has passed.
            JobledgerError: what `watch_jobs` raises.
        """
        waiting = dict.fromkeys(texts(job_ids, "job_ids"))
        owner = self._identity.owner_or_all(user_id, all_users=False)
        headers = headers_of(options.get("metadata", ()))
        options = {**options, "metadata": headers}
        limit = seconds_of(timeout, "timeout")
        deadline = None if limit is None else time.monotonic() + limit

        def watch(ids: Iterable[str]) -> Watch[tuple[str, ...]]:
            request = build(WatchJobsRequest, user_id=owner, job_ids=ids)
            return self._watch(
                lambda service, request, headers: service.jobs.WatchJobs(request, metadata=headers),
                partial(CompletionWatch, request),
                options,
                timeout=limit,
            )

        def read(ids: Iterable[str]) -> dict[str, Job]:
            call: CallOptions = {"metadata": headers}
            if deadline is not None:
                left = max(deadline - time.monotonic(), 0.0)
                call["timeout"] = left if self._timeout is None else min(left, self._timeout)
            return self.get_jobs(ids, view=JobView.FULL, user_id=owner, **call)

        watches = [watch(group) for group in groups([*waiting])]
        return as_completed(merge(watches), waiting, read)

    def wait_all(
        self,
        job_ids: Iterable[str],
        *,
        timeout: Seconds | None = None,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> list[Job]:
        """Wait until all of these jobs are terminal; return them in the order of `job_ids`.

        For the arguments and exceptions see `as_completed`.
        """
        ids = texts(job_ids, "job_ids")
        jobs = {}
        for job in self.as_completed(ids, timeout=timeout, user_id=user_id, **options):
            jobs[job.id] = job
        return [jobs[job_id] for job_id in ids]

    def cancel_job(
        self,
        job_id: str,
        reason: str = "",
        *,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Request the cancellation of a job.

        A job that no worker holds is FAILED at once, with the reason CANCELLED. Otherwise its
        worker is asked to finish it; after 30 s the service does. A job that is terminal, or whose
        cancellation was requested before, is returned as it is.

        Args:
            job_id: the job.
            reason: why, for people: at most 512 characters.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: the owner has no such job.
        """
        owner = self._identity.owner(user_id)
        request = build(CancelJobRequest, job_id=job_id, user_id=owner, reason=reason)
        answer = self._call(lambda service: service.jobs.CancelJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def delete_job(
        self, job_id: str, *, user_id: str | None = None, **options: Unpack[CallOptions]
    ) -> None:
        """Delete a terminal job with its transitions and the links to its assets.

        Args:
            job_id: the job.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: `job_id` is empty, or longer than the 36 characters of a UUID.
            IllegalTransition: the job is not terminal.
            JobNotFound: the owner has no such job, or the answer to a first try was lost and the
                automatic second one found the job deleted.
        """
        request = build(DeleteJobRequest, job_id=job_id, user_id=self._identity.owner(user_id))
        self._call(lambda service: service.jobs.DeleteJob, request, options)

    def list_assets(
        self,
        job_id: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Pager[Asset]:
        """List the assets of a job, oldest first. Iterate over the result, or its `pages()`.

        Args:
            job_id: the job.
            page_size: assets read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            user_id: the owner.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a field breaks its rule.
            InvalidToken: `page_token` is of another list.
            JobNotFound: the owner has no such job.
        """
        owner = self._identity.owner(user_id)
        request = build(ListAssetsRequest, job_id=job_id, user_id=owner, page_size=page_size)
        options = self._checked(options)

        def read(token: str) -> Page[Asset]:
            request.page_token = token
            page = self._call(lambda service: service.jobs.ListAssets, request, options)
            return Page(tuple(map(Asset.from_proto, page.assets)), page.next_page_token)

        return Pager(read, page_token)

    def list_transitions(
        self,
        job_id: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Pager[Transition]:
        """List the transitions of a job, oldest first. Iterate over the result, or its `pages()`.

        Args:
            job_id: the job.
            page_size: transitions read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            user_id: the owner.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a field breaks its rule.
            InvalidToken: `page_token` is of another list.
            JobNotFound: the owner has no such job.
        """
        owner = self._identity.owner(user_id)
        request = build(ListTransitionsRequest, job_id=job_id, user_id=owner, page_size=page_size)
        options = self._checked(options)

        def read(token: str) -> Page[Transition]:
            request.page_token = token
            page = self._call(lambda service: service.jobs.ListTransitions, request, options)
            return Page(tuple(map(Transition.from_proto, page.transitions)), page.next_page_token)

        return Pager(read, page_token)

    def list_attempts(
        self,
        job_id: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Pager[Attempt]:
        """List the attempts of a job, oldest first. Iterate over the result, or its `pages()`.

        Args:
            job_id: the job.
            page_size: attempts read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            user_id: the owner.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a field breaks its rule.
            InvalidToken: `page_token` is of another list.
            JobNotFound: the owner has no such job.
        """
        owner = self._identity.owner(user_id)
        request = build(ListAttemptsRequest, job_id=job_id, user_id=owner, page_size=page_size)
        options = self._checked(options)

        def read(token: str) -> Page[Attempt]:
            request.page_token = token
            page = self._call(lambda service: service.jobs.ListAttempts, request, options)
            return Page(tuple(map(Attempt.from_proto, page.attempts)), page.next_page_token)

        return Pager(read, page_token)

    def _watch_job(
        self, request: WatchJobRequest, options: WatchOptions, *, timeout: Seconds | None = None
    ) -> Watch[JobChange]:
        return self._watch(
            lambda service, request, headers: service.jobs.WatchJob(request, metadata=headers),
            partial(JobWatch, request),
            options,
            timeout=timeout,
        )
