"""Handlers that are declared in a module of their own, for any worker: `worker.include(module)`.

@handler(render, timeout=60)
async def run(job: ClaimedJob, params: Render) -> Picture: ...
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol, TypedDict, TypeVar, Unpack, overload

from jobledger.core.conversion import Seconds
from jobledger.core.tasks import ParamsT, ResultT, Task
from jobledger.worker.handlers.handler import Executor, Function, OnCancel
from jobledger.worker.handlers.signatures import name_of
from jobledger.worker.handlers.threads import BlockingJob
from jobledger.worker.job import ClaimedJob
from jobledger.worker.outcomes import Outcome

# mypy says no more of a function that cannot be a handler than this name.
HandlerReturningOutcomeMappingTypedOrNone = TypeVar(
    "HandlerReturningOutcomeMappingTypedOrNone", bound=Function
)

_MARK: Final = "__jobledger_handlers__"


class HandlerOptions(TypedDict, total=False):
    """Keyword arguments of `handler`: those of Worker.handler."""

    concurrency: int | None
    timeout: Seconds | None
    retry_on: type[Exception] | Iterable[type[Exception]]
    on_cancel: OnCancel
    executor: Executor


class TaskDecorator(Protocol[ParamsT, ResultT]):
    """Makes a function the handler of a task, whose types it has to have."""

    @overload
    def __call__(
        self,
        function: Callable[[ClaimedJob, ParamsT], Coroutine[Any, Any, ResultT | Outcome]],
        /,
    ) -> Callable[[ClaimedJob, ParamsT], Coroutine[Any, Any, ResultT | Outcome]]: ...

    @overload
    def __call__(
        self, function: Callable[[BlockingJob, ParamsT], ResultT | Outcome], /
    ) -> Callable[[BlockingJob, ParamsT], ResultT | Outcome]: ...


class Declared(NamedTuple):
    """A function that was declared as a handler."""

    job_type: str | Task[Any, Any]
    function: Function
    options: HandlerOptions


@overload
def handler(
    job_type: HandlerReturningOutcomeMappingTypedOrNone,
) -> HandlerReturningOutcomeMappingTypedOrNone: ...


@overload
def handler(
    job_type: Task[ParamsT, ResultT], **options: Unpack[HandlerOptions]
) -> TaskDecorator[ParamsT, ResultT]: ...


@overload
def handler(
    job_type: str | None = None, **options: Unpack[HandlerOptions]
) -> Callable[
    [HandlerReturningOutcomeMappingTypedOrNone], HandlerReturningOutcomeMappingTypedOrNone
]: ...


def handler(job_type: Any = None, **options: Unpack[HandlerOptions]) -> Any:
    """Declare a function as a handler, for the workers that include its module; a decorator.

    The arguments are those of `Worker.handler`, and are checked by `Worker.include`.

    Args:
        job_type: a Task, or the name of a type. Default: the function's name.
        **options: see Worker.handler.
    """

    def declare(function: Function) -> Function:
        name = name_of(function) if job_type is None else job_type
        declared = Declared(name, function, options)
        setattr(function, _MARK, [*getattr(function, _MARK, []), declared])
        return function

    if callable(job_type):
        function, job_type = job_type, None
        return declare(function)
    return declare


def handlers_of(module: ModuleType) -> Iterator[Declared]:
    """Yield the handlers that a module declares, not those that it imports.

    Raises:
        TypeError: it is no module.
    """
    if not isinstance(module, ModuleType):
        raise TypeError(f"module: {module!r:.100} is not a module")
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) == module.__name__:
            yield from vars(value).get(_MARK, ()) if hasattr(value, "__dict__") else ()
