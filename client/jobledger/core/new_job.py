"""What a job is created from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypedDict, Unpack

from jobledger.core.conversion import (
    JsonObject,
    Seconds,
    build,
    to_duration,
    to_struct,
    to_timestamp,
)
from jobledger.core.models import Job, RetryPolicy
from jobledger.core.options import check_names
from jobledger.core.requests import fresh_id, id_of
from jobledger.v1 import job_service_pb2
from jobledger.v1.job_service_pb2 import CreateJobRequest


class UniquePolicy(StrEnum):
    """What a creation does if a job with its `unique_key` exists and is not terminal.

    Each member equals its name: `UniquePolicy.REJECT == "REJECT"`.
    """

    REJECT = "REJECT"
    """It raises UniqueKeyTaken."""
    RETURN_EXISTING = "RETURN_EXISTING"
    """It returns that job, whatever its content, and creates none."""

    def to_proto(self) -> "job_service_pb2.UniquePolicy.ValueType":
        """Convert to a number of the enum `jobledger.v1.UniquePolicy`."""
        return job_service_pb2.UniquePolicy.Value(f"UNIQUE_POLICY_{self.value}")


class JobOptions(TypedDict, total=False):
    """Keyword arguments of create_job() and NewJob: what a job may have besides its parameters."""

    labels: Mapping[str, str] | None
    """At most 32 key-value pairs of your own, to find and filter jobs by."""
    request_id: str | None
    """1 to 128 characters. The same id with the same content returns the job that exists.
    Default: a new one for each call of create_job(), whose error has it; for each NewJob."""
    retry_policy: RetryPolicy | None
    """How often it is tried, and how long it waits in between. Default: that of its type, or else
    three attempts, of which a crash or a retryable error uses up one.
    `RetryPolicy(max_attempts=1)`: at most once."""
    schedule_time: datetime | timedelta | None
    """It is not claimed before this time, which has a time zone. A timedelta means the same as
    `delay`. Default: it may be at once."""
    delay: Seconds | None
    """Seconds, or a timedelta, that it is not claimed after its creation, by the service's clock.
    Not together with `schedule_time`. Default: it may be at once."""
    priority: int | None
    """0 to 9: among jobs of its type, one with a higher priority is always claimed first.
    Default: that of its type, or else 5."""
    fairness_key: str
    """The tenant that it is counted for, at most 128 characters: tenants whose jobs of one type
    and priority wait are claimed for in turn. Default: the owner."""
    concurrency_key: str
    """What it uses that bears only so much at once, as `stripe` or `stripe:customer-7`: at most 128
    characters. At most as many jobs with this key run at once as the limit that an operator set for
    the key, or else for the part before its first `:`. Default: none."""
    unique_key: str
    """At most one job of this owner and type with this key is not terminal: at most 128 characters.
    Default: none."""
    unique_policy: UniquePolicy | None
    """What happens if there is such a job already. Only with a `unique_key`. Default: REJECT."""
    queue_timeout: Seconds | None
    """Seconds, or a timedelta, that the job may wait for a worker, from `schedule_time` on.
    Default: that of its type, or else 7 days."""
    run_timeout: Seconds | None
    """Seconds, or a timedelta, from its first start to its terminal state. Default: that of its
    type, or else no limit."""
    stall_timeout: Seconds | None
    """Seconds, or a timedelta, that an attempt may go without progress: a report that says
    something new, or an asset. Then it is lost, as if its lease had expired. Default: that of its
    type, or else no limit."""
    refuse_output: bool
    """Whether output is refused that is more than the service keeps of a job. Default: the oldest
    goes."""
    group_id: str | Job
    """The group that it belongs to, which is not sealed, or its id; see create_group(). Default:
    none."""


class GroupOptions(TypedDict, total=False):
    """Keyword arguments of create_group(): what a group may have besides its parameters."""

    labels: Mapping[str, str] | None
    """See JobOptions."""
    request_id: str | None
    """See JobOptions."""
    unique_key: str
    """See JobOptions."""
    unique_policy: UniquePolicy | None
    """See JobOptions."""
    queue_timeout: Seconds | None
    """Seconds, or a timedelta, that jobs can be added. Then the service seals it, and one without
    jobs fails with QUEUE_EXPIRED. Default: that of its type, or else 7 days."""
    group_id: str | Job
    """The group that it belongs to in turn, 8 groups deep at most. Default: none."""


class NewJob:
    """A job to create, for create_jobs(). It takes what create_job() takes.

    It has its `request_id` from now on: to give it to create_jobs() again, after an error, creates
    no second job. In one call it may be given several times, and is created as often.

    Args:
        job_type: 1 to 50 characters: letters, digits, `.`, `_` and `-`.
        parameters: the input: a JSON object of at most 256 KiB.
        **options: see JobOptions.

    Raises:
        TypeError: an argument has the wrong type; the error names it.
        ValueError: a message cannot hold an argument, or it has a `schedule_time` and a `delay`.
    """

    __slots__ = ("_has_own_id", "_request")

    def __init__(
        self,
        job_type: str,
        parameters: JsonObject | None = None,
        **options: Unpack[JobOptions],
    ) -> None:
        check_names(options, JobOptions)
        policy = options.get("retry_policy")
        if not isinstance(policy, RetryPolicy | None):
            raise TypeError(f"retry_policy: {policy!r:.100} is no RetryPolicy")
        unique = options.get("unique_policy")
        time, delay = options.get("schedule_time"), options.get("delay")
        if time is not None and delay is not None:
            raise ValueError("delay: a job has a schedule_time or a delay, not both")
        if isinstance(time, timedelta):
            time, delay = None, time
        fields: dict[str, Any] = {
            **options,
            "job_type": job_type,
            "parameters": to_struct(parameters, "parameters"),
            "retry_policy": None if policy is None else policy.to_proto(),
            "schedule_time": to_timestamp(time, "schedule_time"),
            "delay": to_duration(delay, "delay"),
            "group_id": id_of(options.get("group_id", ""), "group_id"),
            "unique_policy": None if unique is None else UniquePolicy(unique).to_proto(),
            "queue_timeout": to_duration(options.get("queue_timeout"), "queue_timeout"),
            "run_timeout": to_duration(options.get("run_timeout"), "run_timeout"),
            "stall_timeout": to_duration(options.get("stall_timeout"), "stall_timeout"),
        }
        self._has_own_id = bool(options.get("request_id"))
        fields["request_id"] = options.get("request_id") or fresh_id()
        self._request = build(CreateJobRequest, **fields)

    @property
    def request_id(self) -> str:
        """The id that makes its creation safe to repeat."""
        return self._request.request_id

    def to_proto(self, user_id: str = "", *, copy: int = 0) -> CreateJobRequest:
        """Make the message of one call.

        Args:
            user_id: the owner.
            copy: how often the same call has it already. Each copy has an id of its own, the same
                in each call, unless its creator chose the id.
        """
        request = build(CreateJobRequest, user_id=user_id)
        request.MergeFrom(self._request)
        if copy and not self._has_own_id:
            request.request_id += f"-{copy}"
        return request


def creations(jobs: Iterable[NewJob]) -> list[CreateJobRequest]:
    """Make the messages of one call that creates many jobs."""
    copies: Counter[int] = Counter()
    requests = []
    for job in list(jobs):  # all are kept, so that no two have the same id()
        requests.append(job.to_proto(copy=copies[id(job)]))
        copies[id(job)] += 1
    return requests
