"""A type of job with the types of its parameters and its result, for both sides.

    render = Task("render", Render, result=Picture, run_timeout=minutes(30))

The owner submits it, and a worker has a handler for it. So both agree on the names and the types of
fields, and a type checker sees where they do not.
"""

from typing import Any, Generic, TypedDict, TypeVar, Unpack, cast, overload

from jobledger.core.conversion import JsonObject, Seconds
from jobledger.core.models import Job, JobStatus, JobView, RetryPolicy
from jobledger.core.new_job import JobOptions, NewJob
from jobledger.core.options import check_names
from jobledger.core.requests import text
from jobledger.core.typed_values import converter, is_typed, to_json
from jobledger.errors import JobledgerError

ParamsT = TypeVar("ParamsT")
ResultT = TypeVar("ResultT")


class TaskOptions(TypedDict, total=False):
    """Keyword arguments of Task: what its jobs have unless their creation says otherwise."""

    retry: RetryPolicy | None
    """How often a job is tried, and how long it waits in between: the `retry_policy` of
    JobOptions."""
    priority: int | None
    """See JobOptions."""
    concurrency_key: str
    """See JobOptions."""
    queue_timeout: Seconds | None
    """See JobOptions."""
    run_timeout: Seconds | None
    """See JobOptions."""
    stall_timeout: Seconds | None
    """See JobOptions."""


class JobFailed(JobledgerError):
    """A job has no result: it is FAILED, or PARTIAL without one. `reason` is that of its error."""

    job: Job
    """The job, with its `error`."""

    @classmethod
    def of(cls, job: Job) -> "JobFailed":
        """Make the error of a job."""
        error = job.error
        why = ": ".join(filter(None, (error.reason, error.message))) if error else "without result"
        failed = cls(
            f"job {job.id} ({job.job_type}) is {job.status}: {why}",
            reason=error.reason if error else "",
        )
        failed.job = job
        return failed


class Task(Generic[ParamsT, ResultT]):
    """A type of job, with the types of its parameters and its result.

    `client.submit(task, parameters)` creates a job and `client.result(task, job)` waits for its
    result. A worker's handler is declared with `@worker.handler(task)`.

    Args:
        job_type: 1 to 50 characters: letters, digits, `.`, `_` and `-`.
        parameters: a dataclass, a msgspec.Struct or a pydantic model. Its fields may have all types
            that have a form in JSON: also times, UUIDs, enums and other such classes.
        result: the same for the result. Default: its jobs have none.
        **options: see TaskOptions.

    Raises:
        TypeError: an argument has the wrong type, or one of the types has no form in JSON.
        ValueError: a message cannot hold an argument.
    """

    @overload
    def __init__(
        self,
        job_type: str,
        parameters: type[ParamsT],
        *,
        result: type[ResultT],
        **options: Unpack[TaskOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: "Task[ParamsT, None]",
        job_type: str,
        parameters: type[ParamsT],
        *,
        result: None = None,
        **options: Unpack[TaskOptions],
    ) -> None: ...

    def __init__(
        self,
        job_type: str,
        parameters: type[ParamsT],
        *,
        result: type[Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        check_names(options, TaskOptions)
        if not text(job_type, "job_type"):
            raise ValueError("job_type: is empty")
        for name, kind in (("parameters", parameters), ("result", result)):
            if not is_typed(kind) and not (name == "result" and kind is None):
                raise TypeError(
                    f"{name}: {kind!r:.100} is no dataclass, msgspec.Struct or pydantic model"
                )
        if not isinstance(options.get("retry"), RetryPolicy | None):
            raise TypeError(f"retry: {options['retry']!r:.100} is no RetryPolicy")
        self.job_type = job_type
        """What kind of work it is."""
        self.parameters_type = parameters
        """The type of the parameters."""
        self.result_type = result
        """The type of the result; None if there is none."""
        defaults: dict[str, Any] = {**options}
        if "retry" in defaults:
            defaults["retry_policy"] = defaults.pop("retry")
        self._defaults = cast("JobOptions", defaults)
        NewJob(job_type, **self._defaults)  # refuses what no creation could have
        self._parameters = converter(parameters, "parameters")
        self._result = None if result is None else converter(result, "result")

    def __repr__(self) -> str:
        result = None if self.result_type is None else self.result_type.__name__
        return f"<Task {self.job_type!r} {self.parameters_type.__name__} -> {result}>"

    def new(self, parameters: ParamsT, **options: Unpack[JobOptions]) -> NewJob:
        """Return a job to create, for `client.create_jobs`.

        Args:
            parameters: the input.
            **options: see JobOptions.

        Raises:
            TypeError: `parameters` is not of the task's type, or JSON has no form for a part of it.
            ValueError: a field of `parameters` has a value of another type than it should, so that
                a worker could not take it, or a message cannot hold an argument.
        """
        if not isinstance(parameters, self.parameters_type):
            wanted = self.parameters_type.__name__
            raise TypeError(f"parameters: {type(parameters).__name__} is not a {wanted}")
        sent: JsonObject = to_json(parameters, "parameters")
        self._parameters(sent)
        merged = cast("JobOptions", {**self._defaults, **options})
        return NewJob(self.job_type, sent, **merged)

    def result_of(self, job: Job) -> ResultT:
        """Return the result of a job that has ended.

        A PARTIAL job gives the result that it has, as a COMPLETED one does: see `job.status`.

        Args:
            job: as `wait`, `wait_all`, `as_completed` and `get_job` return it.

        Raises:
            JobFailed: the job is FAILED, or PARTIAL and has no result.
            ValueError: the job is of another type, has not ended, or was read in the view BASIC; or
                its result does not fit the task's type.
        """
        if job.job_type != self.job_type:
            raise ValueError(
                f"job: {job.id} is of the type {job.job_type!r}, not {self.job_type!r}"
            )
        if not job.is_terminal:
            raise ValueError(f"job: {job.id} is {job.status} and has no result yet")
        if job.status is JobStatus.FAILED:
            raise JobFailed.of(job)
        if self._result is None:
            return cast("ResultT", None)
        if job.parameters is None:
            raise ValueError(f"job: {job.id} was read in the view {JobView.BASIC}, without result")
        if job.result is None:
            if job.status is JobStatus.PARTIAL:
                raise JobFailed.of(job)
            raise ValueError(f"result: job {job.id} has none")
        return cast("ResultT", self._result(job.result))

    def check_result(self, result: JsonObject | None) -> None:
        """Raise ValueError for a result that does not fit the task's type."""
        if self._result is not None:
            self._result(result)
        elif result is not None:
            raise ValueError("result: the task has none")
