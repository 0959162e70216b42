# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""The calls that watch jobs, and wait for them."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Unpack

from jobledger.core.conversion import Seconds, build, to_duration
from jobledger.core.feed_watch import CompletionWatch, FeedWatch, quiet_feed
from jobledger.core.heartbeats import beats
from jobledger.core.job_watch import JobWatch, quiet_job
from jobledger.core.merging import merge
from jobledger.core.models import FeedEvent, Job, JobChange, JobStatus, JobView
from jobledger.core.open_group import OpenGroup
from jobledger.core.options import CallOptions, OnError, WatchOptions, headers_of, seconds_of
from jobledger.core.output import OutputPiece
from jobledger.core.output_watch import OutputWatch, quiet_output
from jobledger.core.requests import count, groups, id_of, ids_of, texts
from jobledger.core.streams import Watch
from jobledger.core.sync.completion import as_completed, group_completed
from jobledger.core.sync.owner_reads import OwnerReads
from jobledger.core.watch_token import WatchToken
from jobledger.v1.job_service_pb2 import (
    CreateWatchTokenRequest,
    WatchJobRequest,
    WatchJobsRequest,
    WatchOutputRequest,
)


class OwnerWatches(OwnerReads):
    """For the owners of jobs. `user_id` is whose jobs; by default the client's own.

    `view` is how much of a job is read; see JobView.
    """

    def watch(
        self,
        job_id: str | Job,
        *,
        after_version: int = 0,
        view: JobView = JobView.FULL,
        user_id: str | None = None,
        heartbeats: Seconds | None = None,
        **options: Unpack[WatchOptions],
    ) -> Watch[JobChange]:
        """Watch a job until it is terminal, over any number of connections.

        Yields the job at once and then each time it has changed, with every transition in between.
        Versions strictly increase. Progress may be skipped, but never the newest. The last change
        has the terminal status. A stream that breaks, or is silent for 45 s, is opened again after
        a random pause of up to 5 s.

        Args:
            job_id: the job, or its id.
            after_version: the version of the last change that was seen; only newer ones follow,
                or the terminal state.
            view: how much of the job.
            user_id: the owner.
            heartbeats: seconds, or a timedelta. After each so many without a change, also while
                the connection is opened again, yield one with `heartbeat` and the job of the
                change before. They begin when the service has answered. Default: none.
            **options: see WatchOptions.

        Raises:
            InvalidField: `job_id` is empty, or longer than the 36 characters of a UUID.
            JobNotFound: the owner has no such job, or it was deleted.
            Unavailable: a timeout has passed.
            JobledgerError: any other failure that a retry cannot mend.
        """
        request = build(
            WatchJobRequest,
            job_id=id_of(job_id),
            user_id=self._identity.owner(user_id),
            after_version=after_version,
            view=JobView(view).to_proto(),
        )
        return self._watch_job(request, options, heartbeats=heartbeats)

    def watch_jobs(
        self,
        *,
        job_types: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        job_ids: Iterable[str | Job] | None = None,
        group_id: str | Job = "",
        view: JobView = JobView.BASIC,
        user_id: str | None = None,
        all_users: bool = False,
        resume_token: str = "",
        on_gap: OnError | None = None,
        heartbeats: Seconds | None = None,
        **options: Unpack[WatchOptions],
    ) -> Watch[FeedEvent]:
        """Watch many jobs, over any number of connections, until it is closed.

        First yields the matching jobs that are not terminal, then an event with `synced`, then
        each change in commit order. Versions of a job strictly increase. Progress may be skipped;
        transitions and deletions never are, and none comes twice.

        Args:
            job_types: only jobs of one of these. Default: all.
            labels: only jobs with all of these.
            job_ids: only these jobs, 1 to 1000, or their ids. Default: all.
            group_id: only the jobs of this group, or of the one with this id. Default: all.
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
            heartbeats: seconds, or a timedelta. After each so many without an event, also while
                the connection is opened again, yield one with `heartbeat`: no job, but the newest
                token, which a program has to keep if its watch is quiet for long. They begin when
                the service has answered. Default: none.
            **options: see WatchOptions.

        Raises:
            InvalidField: a filter breaks its rule.
            AccessDenied: the caller may not see these jobs.
            ResumeTokenExpired: see `on_gap`.
            InvalidToken: see `on_gap`.
            Unavailable: a timeout has passed.
            JobledgerError: any other failure that a retry cannot mend.
        """
        ids = None if job_ids is None else ids_of(job_ids)
        if ids == []:
            # In the request this would mean all jobs.
            raise ValueError("job_ids: is empty; leave it out for all jobs")
        request = build(
            WatchJobsRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            job_types=texts(job_types, "job_types"),
            labels=labels,
            job_ids=ids,
            group_id=id_of(group_id, "group_id"),
            resume_token=resume_token,
            view=JobView(view).to_proto(),
        )
        return self._watch(
            lambda service, request, headers: service.jobs.WatchJobs(request, metadata=headers),
            partial(
                FeedWatch,
                request,
                relist=on_gap is not None,
                heartbeats=heartbeats is not None,
            ),
            options,
            on_gap=on_gap,
            add_heartbeats=beats(heartbeats, quiet_feed),
        )

    def output(
        self,
        job_id: str | Job,
        *,
        stream: str = "",
        after: int = 0,
        last_bytes: int | None = None,
        user_id: str | None = None,
        heartbeats: Seconds | None = None,
        **options: Unpack[WatchOptions],
    ) -> Watch[OutputPiece]:
        """Watch what a job's workers write, until nothing can follow, over any number of streams.

        Yields what is stored, then what is written, once and in order. A piece without data says
        that the caller has all that was stored, or, the last one, that the stream is closed: then
        the job is terminal. `piece.data` has bytes, `piece.text` whole characters.

        Args:
            job_id: the job, or its id.
            stream: one of the streams of the job's output. Default: the one without a name.
            after: the `next_offset` of the last piece that was processed, to go on after it.
                Default: begin with the oldest output that is stored.
            last_bytes: begin so many bytes before the present end. Not together with `after`.
            user_id: the owner.
            heartbeats: seconds, or a timedelta. After each so many without a piece, also while
                the connection is opened again, yield one with `heartbeat`. They begin when the
                service has answered. Default: none.
            **options: see WatchOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: the owner has no such job, or it was deleted.
            AccessDenied: the client's token is a watch token that was made without `output`.
            Unavailable: a timeout has passed.
            ValueError: both `after` and `last_bytes` are given.
            JobledgerError: any other failure that a retry cannot mend.
        """
        request = build(
            WatchOutputRequest,
            job_id=id_of(job_id),
            user_id=self._identity.owner(user_id),
            stream=stream,
        )
        if last_bytes is None:
            request.after_offset = count(after, "after", least=0)
        elif not after:
            request.last_bytes = count(last_bytes, "last_bytes", least=0)
        else:
            raise ValueError("last_bytes: give `after` or `last_bytes`, not both")
        return self._watch(
            lambda service, request, headers: service.jobs.WatchOutput(request, metadata=headers),
            partial(OutputWatch, request, heartbeats=heartbeats is not None),
            options,
            add_heartbeats=beats(heartbeats, quiet_output),
        )

    def create_watch_token(
        self,
        job_id: str | Job = "",
        *,
        labels: Mapping[str, str] | None = None,
        ttl: Seconds | None = None,
        output: bool = False,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> WatchToken:
        """Make a token with which a user's browser watches one job, or the jobs with some labels.

        It permits nothing else, and shows no parameters, results or checkpoints. It is sent as a
        bearer token: by the gateway, by `<jobledger-progress>`, or as this client's `token`.

        Args:
            job_id: the job, or its id. Either this or `labels` is given.
            labels: all jobs of the owner with all of these.
            ttl: seconds, or a timedelta, for which the token is valid: 1 second to 24 hours.
                Default: 1 hour.
            output: whether it may read the output of these jobs.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: neither or both of `job_id` and `labels`, or a field breaks its rule.
            JobNotFound: the owner has no such job.
        """
        request = build(
            CreateWatchTokenRequest,
            user_id=self._identity.owner(user_id),
            job_id=id_of(job_id),
            labels=labels,
            ttl=to_duration(ttl, "ttl"),
            output=output,
        )
        answer = self._call(lambda service: service.jobs.CreateWatchToken, request, options)
        return WatchToken.from_proto(answer)

    def wait(
        self,
        job_id: str | Job | OpenGroup,
        *,
        timeout: Seconds | None = None,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> Job:
        """Wait until a job is terminal; return it.

        Args:
            job_id: the job, its id, or a group.
            timeout: seconds, or a timedelta. Default: no limit.
            user_id: the owner.
            **options: see WatchOptions.

        Raises:
            DeadlineExceeded: `timeout` has passed.
            JobledgerError: what `watch` raises.
        """
        request = build(
            WatchJobRequest,
            job_id=id_of(job_id),
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
        job_ids: Iterable[str | Job] | OpenGroup | Job,
        *,
        timeout: Seconds | None = None,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> Iterator[Job]:
        """Yield each of these jobs, or of the jobs of a group, once it is terminal.

        They come in the order in which they finish. Those of a group end with the group, which is
        not yielded: also jobs that are added to it meanwhile.

        They are watched over one stream for each 1000 of them, and read in the view FULL when
        they have finished.

        Args:
            job_ids: any number of jobs, or their ids; one that occurs twice is yielded once.
                Or a group: one of `client.group`, or a job that is one.
            timeout: seconds, or a timedelta, for all of them. Default: no limit.
            user_id: the owner.
            **options: see WatchOptions. The callbacks are called for each stream.

        Raises:
            JobNotFound: the owner has no such job, or it was deleted before it was yielded.
            DeadlineExceeded: `timeout` has passed.
            JobledgerError: what `watch_jobs` raises.
        """
        if isinstance(job_ids, OpenGroup):
            job_ids = job_ids.job
        if isinstance(job_ids, Job):
            if job_ids.group is not None:
                return self._group_completed(job_ids.id, timeout, user_id, options)
            raise TypeError(f"job_ids: {job_ids!r} is no group, and no list of jobs")
        waiting = dict.fromkeys(ids_of(job_ids))
        owner = self._identity.owner_or_all(user_id, all_users=False)
        headers = headers_of(options.get("metadata", ()))
        options = {**options, "metadata": headers}
        limit = seconds_of(timeout, "timeout")

        def watch(ids: Iterable[str]) -> Watch[tuple[str, ...]]:
            request = build(WatchJobsRequest, user_id=owner, job_ids=ids)
            return self._watch(
                lambda service, request, headers: service.jobs.WatchJobs(request, metadata=headers),
                partial(CompletionWatch, request),
                options,
                timeout=limit,
            )

        def read(ids: Iterable[str], left: float | None) -> dict[str, Job]:
            call: CallOptions = {"metadata": headers}
            if left is not None:
                call["timeout"] = left if self._timeout is None else min(left, self._timeout)
            return self.get_jobs(ids, view=JobView.FULL, user_id=owner, **call)

        watches = [watch(group) for group in groups([*waiting])]
        return as_completed(merge(watches), waiting, read, limit)

    def _group_completed(
        self,
        group_id: str,
        timeout: Seconds | None,
        user_id: str | None,
        options: WatchOptions,
    ) -> Iterator[Job]:
        owner = self._identity.owner(user_id)
        headers = headers_of(options.get("metadata", ()))
        options = {**options, "metadata": headers}
        jobs = self._watch(
            lambda service, request, headers: service.jobs.WatchJobs(request, metadata=headers),
            partial(
                FeedWatch,
                build(
                    WatchJobsRequest,
                    user_id=owner,
                    group_id=group_id,
                    view=JobView.FULL.to_proto(),
                ),
                relist=True,
                heartbeats=True,
            ),
            options,
            timeout=timeout,
        )
        itself = build(
            WatchJobRequest, job_id=group_id, user_id=owner, view=JobView.BASIC.to_proto()
        )
        group = self._watch_job(itself, options, timeout=timeout)

        def ended() -> Iterator[Job]:
            statuses = [status for status in JobStatus if status.is_terminal]
            return self.list_jobs(
                group_id=group_id,
                statuses=statuses,
                view=JobView.FULL,
                user_id=owner,
                page_size=100,
                metadata=headers,
            )

        watches: list[Watch[Any]] = [jobs, group]
        return group_completed(merge(watches), ended)

    def wait_all(
        self,
        job_ids: Iterable[str | Job],
        *,
        timeout: Seconds | None = None,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> list[Job]:
        """Wait until all of these jobs are terminal; return them in the order of `job_ids`.

        For the arguments and exceptions see `as_completed`.
        """
        ids = ids_of(job_ids)
        jobs = {}
        for job in self.as_completed(ids, timeout=timeout, user_id=user_id, **options):
            jobs[job.id] = job
        return [jobs[job_id] for job_id in ids]

    def _watch_job(
        self,
        request: WatchJobRequest,
        options: WatchOptions,
        *,
        timeout: Seconds | None = None,
        heartbeats: Seconds | None = None,
    ) -> Watch[JobChange]:
        return self._watch(
            lambda service, request, headers: service.jobs.WatchJob(request, metadata=headers),
            partial(JobWatch, request, heartbeats=heartbeats is not None),
            options,
            timeout=timeout,
            add_heartbeats=beats(heartbeats, quiet_job),
        )
