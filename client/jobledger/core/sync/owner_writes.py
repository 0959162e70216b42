# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""The calls that change one job, or create many: create, cancel, update, rerun, delete."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Unpack

from jobledger.core.conversion import JsonObject, build, to_timestamp
from jobledger.core.models import Asset, Job, JobView
from jobledger.core.new_job import GroupOptions, JobOptions, NewJob, creations
from jobledger.core.options import DEFAULT, CallOptions, Metadata, Timeout, check_names
from jobledger.core.requests import id_of
from jobledger.core.sync.base import Calls
from jobledger.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    CancelJobRequest,
    CreateJobRequest,
    DeleteJobRequest,
    RerunJobRequest,
    SealGroupRequest,
    UpdateJobRequest,
)


class OwnerWrites(Calls):
    """For the owners of jobs. `user_id` is whose jobs; by default the client's own.

    What a call returns is in the view BASIC.
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
            UniqueKeyTaken: another job with the `unique_key` is not terminal.
        """
        request = NewJob(job_type, parameters, **options).to_proto(self._identity.owner(user_id))
        return self._create(request, {"timeout": timeout, "metadata": metadata})

    def create_jobs(
        self,
        jobs: Iterable[NewJob],
        *,
        group_id: str | Job = "",
        user_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> list[Job]:
        """Create many QUEUED jobs in one transaction, all or none; return them in their order.

        Args:
            jobs: at most 1000, and 1 MiB in all. Without any, no call is made.
            group_id: the group, or its id, of those that name none. Default: none.
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
        group = id_of(group_id, "group_id")
        for each in requests:
            each.group_id = each.group_id or group
        if not requests:
            return []
        owner = self._identity.owner(user_id)
        request = build(BatchCreateJobsRequest, user_id=owner, requests=requests)
        answer = self._call(lambda service: service.jobs.BatchCreateJobs, request, options)
        return [
            Job.from_proto(job, JobView.BASIC, existing=existing)
            for job, existing in zip(answer.jobs, answer.existing, strict=True)
        ]

    def create_group(
        self,
        job_type: str,
        parameters: JsonObject | None = None,
        *,
        fail_fast: bool = False,
        user_id: str | None = None,
        timeout: Timeout = DEFAULT,
        metadata: Metadata = (),
        **options: Unpack[GroupOptions],
    ) -> Job:
        """Create a group: a job that no worker runs, and that ends with the jobs that belong to it.

        Create these with its id as their `group_id`, then seal it. It becomes COMPLETED if all of
        them do, FAILED if none of them becomes COMPLETED or PARTIAL, and otherwise PARTIAL. It has
        all that a job has: it can be watched, waited for, cancelled, deleted and run again.

        Args:
            job_type: 1 to 50 characters: letters, digits, `.`, `_` and `-`.
            parameters: what you want to know of it: a JSON object of at most 256 KiB.
            fail_fast: whether the first of its jobs that becomes FAILED cancels the others.
            user_id: the owner.
            timeout: see CallOptions.
            metadata: see CallOptions.
            **options: see GroupOptions.

        Raises:
            InvalidField: a field breaks its rule.
            RequestIdReused: the request id was used with other content.
            UniqueKeyTaken: another job with the `unique_key` is not terminal.
            NotAGroup: its `group_id` is that of a job that is no group.
            GroupSealed: no job can be added to the group that it is to belong to.
            LimitExceeded: that group has as many jobs, or groups above it, as it may have.
        """
        check_names(options, GroupOptions)
        request = NewJob(job_type, parameters, **options).to_proto(self._identity.owner(user_id))
        request.group.SetInParent()
        request.group.fail_fast = fail_fast
        return self._create(request, {"timeout": timeout, "metadata": metadata})

    def seal_group(
        self, group: str | Job, *, user_id: str | None = None, **options: Unpack[CallOptions]
    ) -> Job:
        """Say that no job will be added to a group: it ends when all its jobs have ended.

        A group without jobs becomes COMPLETED. One that is sealed is returned as it is, so the call
        can be repeated. The service itself seals a group at the end of its `queue_timeout`.

        Args:
            group: the group, or its id.
            user_id: its owner.
            **options: see CallOptions.

        Raises:
            InvalidField: `group` is empty, or longer than the 36 characters of a UUID.
            JobNotFound: the owner has no such job.
            NotAGroup: the job is no group.
        """
        owner = self._identity.owner(user_id)
        request = build(SealGroupRequest, job_id=id_of(group, "group"), user_id=owner)
        answer = self._call(lambda service: service.jobs.SealGroup, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def cancel_job(
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
        answer = self._call(lambda service: service.jobs.CancelJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def update_job(
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
        answer = self._call(lambda service: service.jobs.UpdateJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC)

    def rerun_job(
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
        answer = self._call(lambda service: service.jobs.RerunJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC, existing=answer.existing)

    def delete_job(
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
        answer = self._call(lambda service: service.jobs.DeleteJob, request, options)
        return tuple(map(Asset.from_proto, answer.assets))

    def _create(self, request: CreateJobRequest, options: CallOptions) -> Job:
        answer = self._call(lambda service: service.jobs.CreateJob, request, options)
        return Job.from_proto(answer.job, JobView.BASIC, existing=answer.existing)
