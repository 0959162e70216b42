# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""The calls on tasks: submit a job, and wait for its result."""

from typing import Any, Unpack

from jobledger.core.conversion import JsonObject, Seconds
from jobledger.core.models import Job
from jobledger.core.new_job import GroupOptions, JobOptions
from jobledger.core.options import DEFAULT, Metadata, Timeout, WatchOptions
from jobledger.core.sync.open_group import JobGroup
from jobledger.core.sync.owner_watches import OwnerWatches
from jobledger.core.sync.owner_writes import OwnerWrites
from jobledger.core.tasks import ParamsT, ResultT, Task


class TaskCalls(OwnerWrites, OwnerWatches):
    """For the owners of jobs whose types are known: see Task."""

    def group(
        self,
        job_type: str,
        parameters: JsonObject | None = None,
        *,
        fail_fast: bool = False,
        user_id: str | None = None,
        **options: Unpack[GroupOptions],
    ) -> JobGroup:
        """Return a group for `with`: the block creates its jobs, and the end seals it.

        The block has the group, with `job`, `create_job` and `create_jobs`. If it raises, the
        group is cancelled with all its jobs. `wait` and `as_completed` take the group.

        Args:
            job_type: see create_group().
            parameters: see create_group().
            fail_fast: whether the first of its jobs that becomes FAILED cancels the others.
            user_id: the owner.
            **options: see GroupOptions.
        """
        given = {"job_type": job_type, "parameters": parameters, "fail_fast": fail_fast}
        return JobGroup(self, user_id, **given, **options)

    def submit(
        self,
        task: Task[ParamsT, Any],
        parameters: ParamsT,
        *,
        user_id: str | None = None,
        timeout: Timeout = DEFAULT,
        metadata: Metadata = (),
        **options: Unpack[JobOptions],
    ) -> Job:
        """Create a QUEUED job of a task; return it in the view BASIC.

        Args:
            task: the task.
            parameters: the input, of the task's type.
            user_id: the owner.
            timeout: see CallOptions.
            metadata: see CallOptions.
            **options: see JobOptions; what the task says is the default.

        Raises:
            TypeError: `parameters` is not of the task's type, or JSON has no form for a part of it.
            ValueError: a field of `parameters` has a value of another type than it should.
            InvalidField: a field breaks its rule.
            RequestIdReused: the request id was used with other content.
            UniqueKeyTaken: another job with the `unique_key` is not terminal.
        """
        job = task.new(parameters, **options)
        request = job.to_proto(self._identity.owner(user_id))
        return self._create(request, {"timeout": timeout, "metadata": metadata})

    def result(
        self,
        task: Task[Any, ResultT],
        job_id: str | Job,
        *,
        timeout: Seconds | None = None,
        user_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> ResultT:
        """Wait until a job of a task is terminal; return its result, in the task's type.

        A PARTIAL job gives the result that it has, as a COMPLETED one does. To tell them apart, or
        for many jobs, wait with `wait` or `as_completed`, and give the job to `task.result_of`.

        Args:
            task: the task.
            job_id: the job, or its id.
            timeout: seconds, or a timedelta. Default: no limit.
            user_id: the owner.
            **options: see WatchOptions.

        Raises:
            JobFailed: the job is FAILED, or PARTIAL and has no result. The error has the job.
            ValueError: the job is of another type, or its result does not fit the task's type.
            DeadlineExceeded: `timeout` has passed.
            JobledgerError: what `watch` raises.
        """
        job = self.wait(job_id, timeout=timeout, user_id=user_id, **options)
        return task.result_of(job)
