"""The calls that read jobs, and list what belongs to them."""

from collections.abc import Iterable
from typing import Unpack

from jobledger.core.aio.pages import AsyncPagedCalls, AsyncPager
from jobledger.core.attempts import Attempt
from jobledger.core.conversion import build
from jobledger.core.explanations import Explanation
from jobledger.core.filters import JobFilters, filter_fields
from jobledger.core.models import Asset, Job, JobView, Transition
from jobledger.core.options import DEFAULT, CallOptions, Metadata, Timeout
from jobledger.core.output import OutputPiece
from jobledger.core.requests import MAX_IDS, count, id_of, ids_of
from jobledger.errors import MessageTooLarge
from jobledger.v1.job_service_pb2 import (
    BatchGetJobsRequest,
    GetJobRequest,
    JobFilter,
    ListAssetsRequest,
    ListAttemptsRequest,
    ListJobsRequest,
    ListTransitionsRequest,
    ReadOutputRequest,
)
from jobledger.v1.queue_service_pb2 import ExplainJobRequest


class AsyncOwnerReads(AsyncPagedCalls):
    """For the owners of jobs. `user_id` is whose jobs; by default the client's own.

    `view` is how much of a job is read; see JobView.
    """

    async def get_job(
        self,
        job_id: str | Job,
        *,
        view: JobView = JobView.FULL,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Read a job.

        Args:
            job_id: the job, or its id.
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
            job_id=id_of(job_id),
            user_id=self._identity.owner(user_id),
            view=view.to_proto(),
        )
        answer = await self._call(lambda service: service.jobs.GetJob, request, options)
        return Job.from_proto(answer.job, view)

    async def get_jobs(
        self,
        job_ids: Iterable[str | Job],
        *,
        view: JobView = JobView.BASIC,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> dict[str, Job]:
        """Read some jobs; return them by their ids, in the order of `job_ids`.

        A job that the owner does not have is missing in the answer.

        Args:
            job_ids: any number of jobs, or their ids; one call reads at most 1000 of them, and
                3 MiB.
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
        left = list(dict.fromkeys(ids_of(job_ids)))
        jobs: dict[str, Job] = {}
        size = MAX_IDS
        while left:
            request.job_ids[:] = left[:size]
            try:
                answer = await self._call(
                    lambda service: service.jobs.BatchGetJobs, request, options
                )
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
        page_size: int = 0,
        page_token: str = "",
        view: JobView = JobView.BASIC,
        user_id: str | None = None,
        all_users: bool = False,
        timeout: Timeout = DEFAULT,
        metadata: Metadata = (),
        **filters: Unpack[JobFilters],
    ) -> AsyncPager[Job]:
        """List jobs, newest first. Iterate over the result, or over its `pages()`.

        Args:
            page_size: jobs read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            view: how much of them.
            user_id: the owner.
            all_users: the jobs of all users instead, if the caller may see them.
            timeout: see CallOptions; for each page.
            metadata: see CallOptions; for each page.
            **filters: see JobFilters. Default: all jobs.

        Raises:
            InvalidField: a filter breaks its rule.
            InvalidToken: `page_token` is of another list.
        """
        view = JobView(view)
        request = build(
            ListJobsRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            page_size=page_size,
            filter=build(JobFilter, **filter_fields(filters)),
            view=view.to_proto(),
        )
        return self._pages(
            lambda service: service.jobs.ListJobs,
            request,
            lambda answer: [Job.from_proto(job, view) for job in answer.jobs],
            page_token,
            {"timeout": timeout, "metadata": metadata},
        )

    async def explain_job(
        self,
        job_id: str | Job,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        **options: Unpack[CallOptions],
    ) -> Explanation:
        """Say why a job waits. An owner is told nothing of the jobs of others.

        Args:
            job_id: the job, or its id.
            user_id: its owner.
            all_users: whoever its owner is, if the caller is an operator.
            **options: see CallOptions.

        Raises:
            InvalidField: `job_id` is empty, or longer than the 36 characters of a UUID.
            JobNotFound: the owner has no such job.
            AccessDenied: the caller may not read the job.
        """
        owner = self._identity.owner_or_all(user_id, all_users=all_users)
        request = build(ExplainJobRequest, job_id=id_of(job_id), user_id=owner)
        answer = await self._call(lambda service: service.queues.ExplainJob, request, options)
        return Explanation.from_proto(answer)

    async def read_output(
        self,
        job_id: str | Job,
        *,
        stream: str = "",
        offset: int = 0,
        last_bytes: int | None = None,
        max_bytes: int = 0,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> OutputPiece:
        """Read a piece of what a job's workers have written, as it is now.

        It has the output of one attempt, so it may end before `max_bytes`: the next one begins at
        its `next_offset`, unless it is `up_to_date`.

        Args:
            job_id: the job, or its id.
            stream: one of the streams of the job's output. Default: the one without a name.
            offset: where the piece begins. Default: with the oldest output that is stored.
            last_bytes: begin so many bytes before the present end. Not together with `offset`.
            max_bytes: how many bytes at most, up to 1 MiB; 0 means 1 MiB.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: the owner has no such job.
            AccessDenied: the client's token is a watch token that was made without `output`.
            ValueError: both `offset` and `last_bytes` are given.
        """
        request = build(
            ReadOutputRequest,
            job_id=id_of(job_id),
            user_id=self._identity.owner(user_id),
            stream=stream,
            max_bytes=max_bytes,
        )
        if last_bytes is None:
            request.offset = count(offset, "offset", least=0)
        elif not offset:
            request.last_bytes = count(last_bytes, "last_bytes", least=0)
        else:
            raise ValueError("last_bytes: give `offset` or `last_bytes`, not both")
        answer = await self._call(lambda service: service.jobs.ReadOutput, request, options)
        return OutputPiece.from_proto(answer)

    def list_assets(
        self,
        job_id: str | Job,
        *,
        page_size: int = 0,
        page_token: str = "",
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncPager[Asset]:
        """List the assets of a job, oldest first. Iterate over the result, or its `pages()`.

        Args:
            job_id: the job, or its id.
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
        request = build(ListAssetsRequest, job_id=id_of(job_id), user_id=owner, page_size=page_size)
        return self._pages(
            lambda service: service.jobs.ListAssets,
            request,
            lambda answer: map(Asset.from_proto, answer.assets),
            page_token,
            options,
        )

    def list_transitions(
        self,
        job_id: str | Job,
        *,
        page_size: int = 0,
        page_token: str = "",
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncPager[Transition]:
        """List the transitions of a job, oldest first. Iterate over the result, or its `pages()`.

        Args:
            job_id: the job, or its id.
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
        request = build(
            ListTransitionsRequest, job_id=id_of(job_id), user_id=owner, page_size=page_size
        )
        return self._pages(
            lambda service: service.jobs.ListTransitions,
            request,
            lambda answer: map(Transition.from_proto, answer.transitions),
            page_token,
            options,
        )

    def list_attempts(
        self,
        job_id: str | Job,
        *,
        page_size: int = 0,
        page_token: str = "",
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncPager[Attempt]:
        """List the attempts of a job, oldest first. Iterate over the result, or its `pages()`.

        Args:
            job_id: the job, or its id.
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
        request = build(
            ListAttemptsRequest, job_id=id_of(job_id), user_id=owner, page_size=page_size
        )
        return self._pages(
            lambda service: service.jobs.ListAttempts,
            request,
            lambda answer: map(Attempt.from_proto, answer.attempts),
            page_token,
            options,
        )
