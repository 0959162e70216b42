"""Handlers of tasks: whether a function fits its task, and what it returned the task's result."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final

from jobledger.core.tasks import Task
from jobledger.worker.handlers.signatures import annotation_of, parameters_type
from jobledger.worker.outcomes import Completed, Failed, Outcome, Partial, Release, json_result

_OUTCOMES: Final = (Completed, Partial, Failed, Release)


class InvalidResult(ValueError):
    """The result does not fit the type of the task: the job is FAILED / INVALID_RESULT."""


def check_function(function: Callable[..., object], task: Task[Any, Any]) -> None:
    """Raise TypeError for a function whose annotations say that it does not fit its task."""
    name = getattr(function, "__qualname__", repr(function))
    kind = parameters_type(function)
    if kind is not None and not issubclass(task.parameters_type, kind):
        raise TypeError(
            f"{name}: takes {_said(kind)}, and the parameters of {task.job_type!r} are "
            f"{_said(task.parameters_type)}"
        )
    wanted = task.result_type or types.NoneType
    for returned in _members(_return_type(function)):
        if not _may_return(returned, wanted):
            raise TypeError(
                f"{name}: returns {_said(returned)}, and the result of {task.job_type!r} is "
                f"{_said(wanted)}"
            )


def checked(outcome: Outcome | None, task: Task[Any, Any]) -> Outcome | None:
    """Return what a handler returned. Raises InvalidResult if the task has another result."""
    if isinstance(outcome, Failed | Release):
        return outcome
    result = None if outcome is None else json_result(outcome)
    if result is None and isinstance(outcome, Partial):
        return outcome
    try:
        task.check_result(result)
    except ValueError as error:
        raise InvalidResult(str(error)) from error
    return outcome


def _return_type(function: Callable[..., object]) -> Any:
    """Return what its annotation says that it returns; Any if it says nothing."""
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        return Any
    try:
        return annotation_of(function, "return", annotation)
    except TypeError:  # a name that only a type checker imports
        return Any


def _members(kind: Any) -> Iterator[Any]:
    """Yield the members of a union, or the type itself."""
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        for member in typing.get_args(kind):
            yield from _members(member)
    else:
        yield types.NoneType if kind is None else kind


def _may_return(kind: Any, wanted: type) -> bool:
    if kind in {Any, typing.Never, typing.NoReturn}:
        return True
    return isinstance(kind, type) and issubclass(kind, (wanted, *_OUTCOMES))


def _said(kind: Any) -> str:
    if kind is types.NoneType:
        return "None"
    return kind.__name__ if isinstance(kind, type) else str(kind)
