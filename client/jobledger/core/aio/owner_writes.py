"""The calls that change one job, or create many: create, cancel, update, rerun, delete."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Unpack

from jobledger.core.aio.base import AsyncCalls
from jobledger.core.conversion import JsonObject, build, to_timestamp
from jobledger.core.models import Asset, Job, JobView
from jobledger.core.new_job import JobOptions, NewJob, creations
from jobledger.core.options import DEFAULT, CallOptions, Metadata, Timeout
from jobledger.core.requests import id_of
from jobledger.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    CancelJobRequest,
    DeleteJobRequest,
    RerunJobRequest,
    UpdateJobRequest,
)


class AsyncOwnerWrites(AsyncCalls):
    """For the owners of jobs. `user_id` is whose jobs; by default the client's own.

    What a call returns is in the view BASIC.
    """

    async def create_job(
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
            UniqueKeyTaken: another job with the `unique_key` is not terminal.
        """
        job = NewJob(job_type, parameters, **options)
        return await self._create(job, user_id, {"timeout": timeout, "metadata": metadata})

    async def create_jobs(
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
            UniqueKeyTaken: its `index` names the job whose `unique_key` another one has.
            MessageTooLarge: the jobs are together larger than 1 MiB.
        """
        requests = creations(jobs)
        if not requests:
            return []
        owner = self._identity.owner(user_id)
        request = build(BatchCreateJobsRequest, user_id=owner, requests=requests)
        answer = await self._call(lambda service: service.jobs.BatchCreateJobs, request, options)
        return [
            Job.from_proto(job, JobView.BASIC, existing=existing)
            for job, existing in zip(answer.jobs, answer.existing, strict=True)
        ]

    async def cancel_job(
        self,
        job_id: str | Job,
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
            job_id: the job, or its id.
            reason: why, for people: at most 512 characters.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            JobNotFound: the owner has no such job.
        """
        owner = self._identity.owner(user_id)
        request = build(CancelJobRequest, job_id=id_of(job_id), user_id=owner, reason=reason)
        answer = await self._call(lambda service: service.jobs.CancelJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    async def update_job(
        self,
        job_id: str | Job,
        *,
        priority: int | None = None,
        schedule_time: datetime | None = None,
        expected_version: int | None = None,
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Job:
        """Change a job that is not started: its priority, when it may start, or both.

        A job that is so already is returned as it is, so the call can be repeated.

        Args:
            job_id: the job, or its id.
            priority: 0 to 9; None leaves it as it is.
            schedule_time: no worker gets the job before, at most 365 days from now; with a time
                zone. A time that has passed: it may start at once. None leaves it as it is.
            expected_version: refuse the call if the job has another version. None: any.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule, or neither `priority` nor `schedule_time` is
                given.
            JobNotFound: the owner has no such job.
            JobStarted: the job was started.
            JobTerminal: the job is terminal.
            VersionMismatch: the job is not at the `expected_version`.
            AccessDenied: the caller may not choose this priority.
        """
        request = build(
            UpdateJobRequest,
            job_id=id_of(job_id),
            user_id=self._identity.owner(user_id),
            priority=priority,
            schedule_time=to_timestamp(schedule_time, "schedule_time"),
            expected_version=expected_version,
        )
        answer = await self._call(lambda service: service.jobs.UpdateJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    async def rerun_job(
        self, job_id: str | Job, *, user_id: str | None = None, **options: Unpack[CallOptions]
    ) -> Job:
        """Run a terminal job again, as a new job with the same content; return the new one.

        The new job has the type, parameters, labels, keys, policy and timeouts of the old one, and
        its id as `origin_job_id`. The old one stays as it is. A job is rerun once: a further
        call returns that rerun, for as long as it exists.

        Args:
            job_id: the job, or its id; of whatever terminal status.
            user_id: its owner.
            **options: see CallOptions.

        Raises:
            InvalidField: `job_id` is empty, or longer than the 36 characters of a UUID.
            JobNotFound: the owner has no such job.
            IllegalTransition: the job is not terminal.
            UniqueKeyTaken: another job with its `unique_key` is not terminal.
            LimitExceeded: the owner may not create more jobs now.
        """
        request = build(
            RerunJobRequest, job_id=id_of(job_id), user_id=self._identity.owner(user_id)
        )
        answer = await self._call(lambda service: service.jobs.RerunJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC, existing=answer.existing)

    async def delete_job(
        self, job_id: str | Job, *, user_id: str | None = None, **options: Unpack[CallOptions]
    ) -> Sequence[Asset]:
        """Delete a terminal job with its transitions and the links to its assets.

        Returns the assets, oldest first: what is to be removed where they are stored. If the answer
        is lost, only a watch of many jobs has them.

        Args:
            job_id: the job, or its id.
            user_id: the owner.
            **options: see CallOptions.

        Raises:
            InvalidField: `job_id` is empty, or longer than the 36 characters of a UUID.
            IllegalTransition: the job is not terminal.
            JobNotFound: the owner has no such job, or the answer to a first try was lost and the
                automatic second one found the job deleted.
        """
        request = build(
            DeleteJobRequest, job_id=id_of(job_id), user_id=self._identity.owner(user_id)
        )
        answer = await self._call(lambda service: service.jobs.DeleteJob, request, options)
        return tuple(map(Asset.from_proto, answer.assets))

    async def _create(self, job: NewJob, user_id: str | None, options: CallOptions) -> Job:
        request = job.to_proto(self._identity.owner(user_id))
        answer = await self._call(lambda service: service.jobs.CreateJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC, existing=answer.existing)
