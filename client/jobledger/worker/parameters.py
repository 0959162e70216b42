"""Typed parameters: a job's parameters as a dataclass or a pydantic model.

A handler names the type: `async def render(job: ClaimedJob, params: RenderParams)`. How each field
is converted is worked out once, when the handler is registered.
"""

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Convert: TypeAlias = Callable[[object, str], Any]
"""Converts a value whose path is given. Raises InvalidParameters."""

_PLAIN = (str, int, float, bool)


class InvalidParameters(ValueError):
    """The parameters do not fit the handler's type: the job is FAILED / INVALID_PARAMETERS."""


def is_parameters_type(kind: object) -> bool:
    """Whether a handler can have its parameters as this type."""
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or _is_model(kind))


def converter(kind: Any, known: dict[Any, Convert] | None = None) -> Convert:
    """Work out how to convert a JSON value to a type.

    Args:
        kind: a dataclass, a pydantic model, a JSON type, an enum, or a list, dict, tuple, Union,
            Optional or Literal of them.
        known: dataclasses that are being worked out, for those that contain themselves.

    Raises:
        TypeError: no JSON value can be converted to it.
    """
    known = {} if known is None else known
    if kind in known:
        return known[kind]
    if kind in (Any, object):
        return _anything
    if kind in (None, types.NoneType):
        return _none
    if isinstance(kind, type) and kind in _PLAIN:
        return _plain(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum(kind)
    if isinstance(kind, type) and _is_model(kind):
        return _model(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind, known)
    return _composed(kind, known)


def _composed(kind: Any, known: dict[Any, Convert]) -> Convert:
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Annotated:
        return converter(arguments[0], known)
    if origin in (typing.Union, types.UnionType):
        return _union(kind, [converter(each, known) for each in arguments])
    if origin is typing.Literal:
        return _literal(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:  # noqa: PLR2004
        return _items(tuple, converter(arguments[0], known))
    if origin in (list, Sequence):
        return _items(list, converter(arguments[0] if arguments else Any, known))
    if origin in (dict, Mapping) and (not arguments or arguments[0] is str):
        return _mapping(converter(arguments[1] if arguments else Any, known))
    raise TypeError(f"{_name(kind)} is not a type that JSON can be converted to")


def _dataclass(kind: type, known: dict[Any, Convert]) -> Convert:
    fields: dict[str, tuple[Convert, bool]] = {}

    def convert(value: object, where: str) -> object:
        if not isinstance(value, Mapping):
            raise InvalidParameters(f"{where}: {_what(value)} is not an object")
        arguments = {}
        for name, (convert_field, required) in fields.items():
            if name in value:
                arguments[name] = convert_field(value[name], f"{where}.{name}")
            elif required:
                raise InvalidParameters(f"{where}.{name}: is missing")
        try:
            return kind(**arguments)
        except (TypeError, ValueError) as error:
            raise InvalidParameters(f"{where}: {error}") from error

    known[kind] = convert
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if field.init:
            absent = dataclasses.MISSING
            required = field.default is absent and field.default_factory is absent
            fields[field.name] = (converter(hints[field.name], known), required)
    return convert


def _is_model(kind: type) -> bool:
    """Whether it is a pydantic model, without importing pydantic."""
    return hasattr(kind, "model_validate") and hasattr(kind, "model_fields")


def _model(kind: Any) -> Convert:
    def convert(value: object, where: str) -> object:
        try:
            return kind.model_validate(value)
        except ValueError as error:
            raise InvalidParameters(_model_errors(error, where)) from error

    return convert


def _model_errors(error: Any, where: str) -> str:
    return "; ".join(
        f"{'.'.join([where, *map(str, each['loc'])])}: {each['msg']}" for each in error.errors()
    )


def _plain(kind: type) -> Convert:
    def convert(value: object, where: str) -> object:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise InvalidParameters(f"{where}: {_what(value)} is not {_name(kind)}")
        return value

    return convert


def _enum(kind: type[enum.Enum]) -> Convert:
    def convert(value: object, where: str) -> object:
        try:
            return kind(value)
        except ValueError:
            values = ", ".join(repr(member.value) for member in kind)
            raise InvalidParameters(f"{where}: {_what(value)} is none of {values}") from None

    return convert


def _literal(values: tuple[object, ...]) -> Convert:
    def convert(value: object, where: str) -> object:
        for each in values:
            if type(each) is type(value) and each == value:
                return value
        words = ", ".join(map(repr, values))
        raise InvalidParameters(f"{where}: {_what(value)} is none of {words}")

    return convert


def _union(kind: Any, options: list[Convert]) -> Convert:
    def convert(value: object, where: str) -> object:
        errors = []
        for option in options:
            try:
                return option(value, where)
            except InvalidParameters as error:
                errors.append(error)
        # One of several fields inside may be wrong; the deepest path says which.
        deeper = [error for error in errors if not str(error).startswith(f"{where}:")]
        raise (
            deeper[0]
            if deeper
            else InvalidParameters(f"{where}: {_what(value)} is not {_name(kind)}")
        )

    return convert


def _items(kind: type, convert_item: Convert) -> Convert:
    def convert(value: object, where: str) -> object:
        if not isinstance(value, list):
            raise InvalidParameters(f"{where}: {_what(value)} is not a list")
        return kind(convert_item(each, f"{where}[{index}]") for index, each in enumerate(value))

    return convert


def _mapping(convert_value: Convert) -> Convert:
    def convert(value: object, where: str) -> object:
        if not isinstance(value, Mapping):
            raise InvalidParameters(f"{where}: {_what(value)} is not an object")
        return {key: convert_value(each, f"{where}.{key}") for key, each in value.items()}

    return convert


def _anything(value: object, _: str) -> object:
    return value


def _none(value: object, where: str) -> None:
    if value is not None:
        raise InvalidParameters(f"{where}: {_what(value)} is not null")


def _what(value: object) -> str:
    words = "null" if value is None else repr(value)
    return words if len(words) <= 60 else f"{words[:59]}\N{HORIZONTAL ELLIPSIS}"  # noqa: PLR2004


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
