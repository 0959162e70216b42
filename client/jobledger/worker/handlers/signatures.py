"""What a handler's function takes, and whether it is async."""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from jobledger.core.typed_values import is_typed
from jobledger.worker.handlers.parameters import converter


def is_async(function: Callable[..., object]) -> bool:
    """Whether a call of it has to be awaited."""
    candidates = (function, inspect.unwrap(function), getattr(function, "__call__", None))  # noqa: B004
    return any(map(inspect.iscoroutinefunction, candidates))


def name_of(function: Callable[..., Any]) -> str:
    """Return the function's name, for a handler that is given no job type."""
    name = getattr(function, "__name__", "")
    if not name or not name.isidentifier():
        raise TypeError(f"job_type: {function!r} has no name; give one")
    return name


def with_parameters(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return the function with the job as its only argument.

    If it has a second parameter, that is the job's parameters, converted to its type.

    Raises:
        TypeError: as `parameters_type`.
    """
    kind = parameters_type(function)
    if kind is None:
        return function
    convert = converter(kind)

    def call(job: Any) -> Any:
        return function(job, convert(job.parameters))

    return call


def parameters_type(function: Callable[..., Any]) -> Any:
    """Return the type that a function has its job's parameters as; None if it has only the job.

    Raises:
        TypeError: its parameters are not `job`, or `job` and one with a fitting type.
    """
    if not callable(function):
        raise TypeError(f"function: {type(function).__name__} is not a function")
    parameters = inspect.signature(function).parameters.values()
    positional = [
        each
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    needed = [each for each in positional if each.default is each.empty]
    if not positional and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        raise TypeError(f"{_name(function)}: takes no argument, and is called with the job")
    if len(needed) > 2:  # noqa: PLR2004
        raise TypeError(f"{_name(function)}: takes more than a job and its parameters")
    second = positional[1] if len(positional) > 1 else None
    if second is None:
        return None
    kind = annotation_of(function, second.name, second.annotation)
    if second not in needed and not is_typed(kind):
        return None
    if not is_typed(kind):
        raise TypeError(
            f"{_name(function)}: the type of {second.name!r} is not a dataclass or pydantic model"
        )
    return kind


def annotation_of(function: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Return the type of a parameter, or of the result, `return`, if it is given by its name.

    Raises:
        TypeError: there is no such type.
    """
    if not isinstance(annotation, str):
        return annotation
    target = inspect.unwrap(function)
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    # This one alone: the others may be names that only a type checker imports.
    alone = types.SimpleNamespace(__annotations__={name: annotation})
    try:
        return typing.get_type_hints(alone, target.__globals__)[name]
    except NameError as error:
        raise TypeError(f"{_name(function)}: the type of {name!r}: {error}") from None


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
