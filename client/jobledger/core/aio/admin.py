"""The calls of operators: counts, pauses, limits, defaults, and watch tokens revoked."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, Unpack

from jobledger.core.aio.pages import AsyncPager
from jobledger.core.calls import AsyncMethod
from jobledger.core.channels import AsyncConnection
from jobledger.core.conversion import Seconds, build, to_duration
from jobledger.core.models import RetryPolicy
from jobledger.core.options import CallOptions
from jobledger.core.page import ItemT, PageRequestT, PageResponseT
from jobledger.core.queues import ConcurrencyLimit, JobType, JobTypeStats, Pause
from jobledger.core.requests import count, texts
from jobledger.v1.job_service_pb2 import RevokeWatchTokensRequest
from jobledger.v1.queue_service_pb2 import (
    JobTypeDefaults,
    ListConcurrencyLimitsRequest,
    ListJobTypesRequest,
    ListJobTypeStatsRequest,
    PauseConcurrencyKeyRequest,
    PauseJobTypeRequest,
    ResumeConcurrencyKeyRequest,
    ResumeJobTypeRequest,
    SetConcurrencyLimitRequest,
    SetJobTypeDefaultsRequest,
)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncCallOf(Protocol):
    """Makes a call over the connections of a client."""

    async def __call__(
        self,
        method: Callable[[AsyncConnection], AsyncMethod[_Request, _Response]],
        request: _Request,
        options: CallOptions,
    ) -> _Response: ...


class AsyncPagesOf(Protocol):
    """Makes the same call for each page of a list."""

    def __call__(
        self,
        method: Callable[[AsyncConnection], AsyncMethod[PageRequestT, PageResponseT]],
        request: PageRequestT,
        items_of: Callable[[PageResponseT], Iterable[ItemT]],
        page_token: str,
        options: CallOptions,
    ) -> AsyncPager[ItemT]: ...


class AsyncAdmin:
    """The calls of operators, over the connections of a client: `client.admin`.

    A pause, a limit or a default holds at every server of the database from the call's return on.
    It stops no job that is held, and changes none that was created.
    """

    def __init__(self, call: AsyncCallOf, pages: AsyncPagesOf) -> None:
        self._call = call
        self._pages = pages

    def list_job_type_stats(
        self,
        job_types: Iterable[str] = (),
        *,
        fairness_key: str = "",
        page_size: int = 0,
        page_token: str = "",
        **options: Unpack[CallOptions],
    ) -> AsyncPager[JobTypeStats]:
        """Read how many jobs of each type wait, are held and so on, in the order of the types.

        Iterate over the result, or over its `pages()`. The counts of one page are of one moment,
        and exact. What a page costs does not grow with the number of jobs.

        Args:
            job_types: only these, at most 100. Default: all that have jobs which are not terminal,
                are paused, or had jobs end in the last hour.
            fairness_key: only the jobs of this tenant. Default: all.
            page_size: types read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a field breaks its rule.
            InvalidToken: `page_token` is of another list.
            AccessDenied: the caller is no operator.
        """
        request = build(
            ListJobTypeStatsRequest,
            job_types=texts(job_types, "job_types"),
            fairness_key=fairness_key,
            page_size=page_size,
        )
        return self._pages(
            lambda service: service.queues.ListJobTypeStats,
            request,
            lambda answer: map(JobTypeStats.from_proto, answer.stats),
            page_token,
            options,
        )

    async def pause_job_type(
        self, job_type: str, reason: str = "", **options: Unpack[CallOptions]
    ) -> Pause:
        """Let no job of a type start until it is resumed; return the pause.

        A type that is paused already stays so, with its first time, actor and reason.

        Args:
            job_type: the type; it need not have jobs.
            reason: why, for people: at most 512 characters.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            LimitExceeded: too many types are paused.
            AccessDenied: the caller is no operator.
        """
        request = build(PauseJobTypeRequest, job_type=job_type, reason=reason)
        answer = await self._call(lambda service: service.queues.PauseJobType, request, options)
        return Pause.from_proto(answer.pause)

    async def resume_job_type(self, job_type: str, **options: Unpack[CallOptions]) -> None:
        """End the pause of a type, if it is paused.

        Args:
            job_type: the type.
            **options: see CallOptions.

        Raises:
            InvalidField: `job_type` breaks its rule.
            AccessDenied: the caller is no operator.
        """
        request = build(ResumeJobTypeRequest, job_type=job_type)
        await self._call(lambda service: service.queues.ResumeJobType, request, options)

    async def pause_concurrency_key(
        self, name: str, reason: str = "", **options: Unpack[CallOptions]
    ) -> ConcurrencyLimit:
        """Let no job with a key start until it is resumed; return its limit and pause.

        A key that is paused already stays so, with its first time, actor and reason.

        Args:
            name: a key, or the part of keys before their first `:`.
            reason: why, for people: at most 512 characters.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            LimitExceeded: there are too many limits and pauses of keys.
            AccessDenied: the caller is no operator.
        """
        request = build(PauseConcurrencyKeyRequest, name=name, reason=reason)
        answer = await self._call(
            lambda service: service.queues.PauseConcurrencyKey, request, options
        )
        return ConcurrencyLimit.from_proto(answer.limit)

    async def resume_concurrency_key(self, name: str, **options: Unpack[CallOptions]) -> None:
        """End the pause of a key, if it is paused.

        Args:
            name: the key, as it was given to `pause_concurrency_key`.
            **options: see CallOptions.

        Raises:
            InvalidField: `name` breaks its rule.
            AccessDenied: the caller is no operator.
        """
        request = build(ResumeConcurrencyKeyRequest, name=name)
        await self._call(lambda service: service.queues.ResumeConcurrencyKey, request, options)

    async def set_concurrency_limit(
        self, name: str, max_running: int, **options: Unpack[CallOptions]
    ) -> ConcurrencyLimit:
        """Limit how many jobs with a key are held at once, over all servers; return the limit.

        Args:
            name: a key, or the part of keys before their first `:`: then the limit is for each of
                these keys by itself, unless it has one of its own.
            max_running: how many, 0 to 1,000,000. If more are held now, no further job starts until
                fewer are.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            LimitExceeded: there are too many limits and pauses of keys.
            AccessDenied: the caller is no operator.
        """
        # Without a number the request would remove the limit.
        most = count(max_running, "max_running", least=0)
        request = build(SetConcurrencyLimitRequest, name=name, max_running=most)
        return await self._set(request, options)

    async def remove_concurrency_limit(
        self, name: str, **options: Unpack[CallOptions]
    ) -> ConcurrencyLimit:
        """Remove the limit of a key, if it has one; a pause of the key stays.

        Args:
            name: the key, as it was given to `set_concurrency_limit`.
            **options: see CallOptions.

        Raises:
            InvalidField: `name` breaks its rule.
            AccessDenied: the caller is no operator.
        """
        return await self._set(build(SetConcurrencyLimitRequest, name=name), options)

    def list_concurrency_limits(
        self, *, page_size: int = 0, page_token: str = "", **options: Unpack[CallOptions]
    ) -> AsyncPager[ConcurrencyLimit]:
        """List the limits and pauses of keys, by name. Iterate over the result, or its `pages()`.

        Args:
            page_size: limits read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a field breaks its rule.
            InvalidToken: `page_token` is of another list.
            AccessDenied: the caller is no operator.
        """
        return self._pages(
            lambda service: service.queues.ListConcurrencyLimits,
            build(ListConcurrencyLimitsRequest, page_size=page_size),
            lambda answer: map(ConcurrencyLimit.from_proto, answer.limits),
            page_token,
            options,
        )

    async def set_job_type_defaults(
        self,
        job_type: str,
        *,
        retry_policy: RetryPolicy | None = None,
        queue_timeout: Seconds | None = None,
        run_timeout: Seconds | None = None,
        stall_timeout: Seconds | None = None,
        priority: int | None = None,
        retention: Seconds | None = None,
        **options: Unpack[CallOptions],
    ) -> JobType:
        """Set what jobs of a type have where their creation says nothing; return the type.

        These are all of its defaults: those that were set before and are not given are removed.
        Jobs that were created before stay as they are, and a rerun has what its origin has.

        Args:
            job_type: the type; it need not have jobs.
            retry_policy: how often a job is tried, and how long it waits in between. A creation
                with a policy of its own has nothing of this one.
            queue_timeout: seconds, or a timedelta, that a job may wait for a worker.
            run_timeout: seconds, or a timedelta, from its first start to its terminal state.
            stall_timeout: seconds, or a timedelta, that an attempt may go without news.
            priority: 0 to 9.
            retention: seconds, or a timedelta, that a job is kept when it has ended, up to 3650
                days. Then the service deletes it.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            LimitExceeded: too many types have defaults.
            AccessDenied: the caller is no operator.
            ValueError: no default is given: `clear_job_type_defaults` removes them.
        """
        if not isinstance(retry_policy, RetryPolicy | None):
            raise TypeError(f"retry_policy: {retry_policy!r:.100} is no RetryPolicy")
        defaults = build(
            JobTypeDefaults,
            retry_policy=None if retry_policy is None else retry_policy.to_proto(),
            queue_timeout=to_duration(queue_timeout, "queue_timeout"),
            run_timeout=to_duration(run_timeout, "run_timeout"),
            stall_timeout=to_duration(stall_timeout, "stall_timeout"),
            priority=priority,
            retention=to_duration(retention, "retention"),
        )
        if not defaults.ListFields():
            raise ValueError("no default is given; clear_job_type_defaults() removes them")
        request = build(SetJobTypeDefaultsRequest, job_type=job_type, defaults=defaults)
        answer = await self._call(
            lambda service: service.queues.SetJobTypeDefaults, request, options
        )
        return JobType.from_proto(answer.job_type)

    async def clear_job_type_defaults(self, job_type: str, **options: Unpack[CallOptions]) -> None:
        """Remove all defaults of a type, if it has any.

        Args:
            job_type: the type.
            **options: see CallOptions.

        Raises:
            InvalidField: `job_type` breaks its rule.
            AccessDenied: the caller is no operator.
        """
        request = build(SetJobTypeDefaultsRequest, job_type=job_type)
        await self._call(lambda service: service.queues.SetJobTypeDefaults, request, options)

    def list_job_types(
        self, *, page_size: int = 0, page_token: str = "", **options: Unpack[CallOptions]
    ) -> AsyncPager[JobType]:
        """List the types that have defaults, by name. Iterate over the result, or its `pages()`.

        Args:
            page_size: types read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a field breaks its rule.
            InvalidToken: `page_token` is of another list.
            AccessDenied: the caller is no operator.
        """
        return self._pages(
            lambda service: service.queues.ListJobTypes,
            build(ListJobTypesRequest, page_size=page_size),
            lambda answer: map(JobType.from_proto, answer.job_types),
            page_token,
            options,
        )

    async def revoke_watch_tokens(self, **options: Unpack[CallOptions]) -> None:
        """Make all tokens of `create_watch_token` invalid, of all users.

        Streams that were opened with one end within seconds.

        Args:
            **options: see CallOptions.

        Raises:
            AccessDenied: the caller is no operator.
        """
        request = RevokeWatchTokensRequest()
        await self._call(lambda service: service.jobs.RevokeWatchTokens, request, options)

    async def _set(
        self, request: SetConcurrencyLimitRequest, options: CallOptions
    ) -> ConcurrencyLimit:
        answer = await self._call(
            lambda service: service.queues.SetConcurrencyLimit, request, options
        )
        return ConcurrencyLimit.from_proto(answer.limit)
