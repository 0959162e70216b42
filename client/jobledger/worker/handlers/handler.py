"""What runs for a type of job: a function, async or plain, and how it is called."""

import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from jobledger.core.conversion import Seconds
from jobledger.core.options import seconds_of
from jobledger.core.tasks import Task
from jobledger.core.typed_values import Typed
from jobledger.worker.failures import RetryOn
from jobledger.worker.handlers.processes import ProcessDied, Processes
from jobledger.worker.handlers.signatures import is_async, with_parameters
from jobledger.worker.handlers.task_handlers import check_function, checked
from jobledger.worker.handlers.threads import BlockingJob, in_thread
from jobledger.worker.job import ClaimedJob
from jobledger.worker.outcomes import Outcome, outcome_of

OnCancel: TypeAlias = Literal["raise", "flag"]
Executor: TypeAlias = Literal["thread", "process"]


Returned: TypeAlias = Outcome | Mapping[str, object] | Typed | None
"""What a handler may return; None, a mapping and an object with typed fields mean COMPLETED."""

Function: TypeAlias = (
    Callable[[ClaimedJob], Awaitable[Returned]]
    | Callable[[ClaimedJob, Any], Awaitable[Returned]]
    | Callable[[BlockingJob], Returned]
    | Callable[[BlockingJob, Any], Returned]
)

Next: TypeAlias = Callable[[ClaimedJob], Awaitable[Outcome | None]]
Middleware: TypeAlias = Callable[[ClaimedJob, Next], Awaitable[Returned]]
"""Wraps every handler: `async def middleware(job, call_next)`."""


@dataclass(frozen=True, slots=True)
class Handler:
    """How to run a type of job.

    Args:
        run: runs a job.
        raises_cancellation: whether a requested cancellation is raised in the handler.
        timeout: seconds that a run may take; None: any time.
        retry_on: the exceptions after which another attempt may succeed.
        processes: the processes that it runs in, if any.
        in_loop: whether it runs in the event loop, which it blocks if it does not await.
    """

    run: Next
    raises_cancellation: bool = True
    timeout: float | None = None
    retry_on: RetryOn = ()
    processes: Processes | None = None
    in_loop: bool = True


def make_handler(
    function: Function,
    *,
    on_cancel: OnCancel = "raise",
    timeout: Seconds | None = None,
    retry_on: type[Exception] | Iterable[type[Exception]] = (),
    executor: Executor = "thread",
    middleware: Sequence[Middleware] = (),
    task: Task[Any, Any] | None = None,
) -> Handler:
    """Make a handler of a function, for any type of job or for that of a task.

    Raises:
        TypeError: the function cannot be a handler, or not with these arguments.
        ValueError: `on_cancel` or `executor` has no such value, or `timeout` is no time span.
    """
    for name, value, values in (
        ("on_cancel", on_cancel, OnCancel),
        ("executor", executor, Executor),
    ):
        if value not in typing.get_args(values):
            raise ValueError(f"{name}: {value!r} is none of {', '.join(typing.get_args(values))}")
    if task is not None:
        check_function(function, task)
    processes = None
    call: Callable[[ClaimedJob], Awaitable[object]]
    if is_async(function):
        if executor == "process":
            raise TypeError("executor: an async function runs in the event loop; give a plain one")
        call = with_parameters(function)
    elif executor == "process":
        with_parameters(function)  # refuses what the child would refuse
        processes = Processes(function)
        call = in_thread(processes.run, processes.kill)
    else:
        call = in_thread(with_parameters(function))

    async def innermost(job: ClaimedJob) -> Outcome | None:
        return outcome_of(await call(job))

    run: Next = innermost
    for each in reversed(middleware):
        run = _around(each, run)
    if task is not None:
        run = _checked(run, task)
    seconds = seconds_of(timeout, "timeout")
    kinds = _exceptions(retry_on)
    if processes is not None:
        # As for a worker that dies: this attempt is lost, and another one may succeed.
        kinds = (*kinds, ProcessDied)
    return Handler(run, on_cancel == "raise", seconds, kinds, processes, is_async(function))


def _exceptions(retry_on: type[Exception] | Iterable[type[Exception]]) -> RetryOn:
    kinds = (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"retry_on: {kind!r:.100} is not a class of exceptions")
    return kinds


def _checked(run: Next, task: Task[Any, Any]) -> Next:
    async def check(job: ClaimedJob) -> Outcome | None:
        return checked(await run(job), task)

    return check


def _around(middleware: Middleware, run: Next) -> Next:
    async def around(job: ClaimedJob) -> Outcome | None:
        return outcome_of(await middleware(job, run))

    return around
