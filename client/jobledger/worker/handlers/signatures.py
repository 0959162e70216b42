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

    A second parameter, by position or by keyword only, is the job's parameters, converted to its
    type. For a job without parameters it is its default, if it has one, or None, if that fits.

    Raises:
        TypeError: as `parameters_type`.
    """
    typed = _typed_parameter(function)
    if typed is None:
        return function
    parameter, kind = typed
    try:
        convert = converter(kind)
    except NameError as error:
        raise _not_found(function, parameter.name, error) from None
    by_position = parameter.kind is not parameter.KEYWORD_ONLY
    has_default = parameter.default is not parameter.empty
    or_none = _without_none(kind) is not kind

    def call(job: Any) -> Any:
        if has_default and not job.parameters:
            return function(job)
        value = None if or_none and not job.parameters else convert(job.parameters)
        return function(job, value) if by_position else function(job, **{parameter.name: value})

    return call


def parameters_type(function: Callable[..., Any]) -> Any:
    """Return the type that a function has its job's parameters as; None if it has only the job.

    Raises:
        TypeError: its parameters are not `job`, or `job` and one with a fitting type.
    """
    typed = _typed_parameter(function)
    return None if typed is None else _without_none(typed[1])


def _typed_parameter(function: Callable[..., Any]) -> tuple[inspect.Parameter, Any] | None:
    if not callable(function):
        raise TypeError(f"function: {type(function).__name__} is not a function")
    parameters = inspect.signature(function).parameters.values()
    positional = [
        each
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if not positional and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        raise TypeError(f"{_name(function)}: takes no argument, and is called with the job")
    by_keyword = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    candidates = [*positional[1:], *by_keyword]
    needed = [each for each in candidates if each.default is each.empty]
    if len(needed) > 1:
        raise TypeError(f"{_name(function)}: takes more than a job and its parameters")
    # Of several optional ones the first that is typed: the others are the function's own.
    for chosen in needed or candidates:
        try:
            kind = annotation_of(function, chosen.name, chosen.annotation)
        except TypeError:
            if needed or chosen is candidates[0]:
                raise
            continue  # a name that only a type checker imports, of the function's own
        if is_typed(_without_none(kind)):
            return chosen, kind
        if needed:
            raise TypeError(
                f"{_name(function)}: the type of {chosen.name!r} is not a dataclass or pydantic "
                "model"
            )
    return None


def _without_none(kind: Any) -> Any:
    """Return T for `T | None`."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = [each for each in typing.get_args(kind) if each is not types.NoneType]
        if len(kinds) == 1:
            return kinds[0]
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
        raise _not_found(function, name, error) from None


def _not_found(function: Callable[..., Any], name: str, error: NameError) -> TypeError:
    return TypeError(
        f"{_name(function)}: the type of {name!r}: {error}; define or import it at the top of the "
        "module, not under TYPE_CHECKING"
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
