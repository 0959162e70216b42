"""JSON objects as dataclasses, msgspec Structs and pydantic models, both ways.

msgspec converts, also what a field holds: enums, times, UUIDs, other classes. pydantic, which need
not be installed, converts its own models.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias


class Dataclass(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Struct(Protocol):
    """An instance of any msgspec.Struct."""

    __struct_fields__: ClassVar[tuple[str, ...]]


class Model(Protocol):
    """An instance of any pydantic model."""

    def model_dump_json(self) -> str:
        """Return it as JSON."""


Typed: TypeAlias = Dataclass | Struct | Model
"""An object with typed fields that JSON can hold."""


def is_typed(kind: object) -> bool:
    """Whether it is a dataclass, a msgspec.Struct or a pydantic model."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or hasattr(kind, "__struct_fields__") or _is_model(kind)
    )


def converter(
    kind: Any, where: str, error: type[ValueError] = ValueError
) -> Callable[[object], Any]:
    """Return what converts a JSON object to a type; of what does not fit it raises `error`.

    Raises:
        TypeError: msgspec cannot convert to the type.
    """
    # A program without typed values does not load it.
    import msgspec  # noqa: PLC0415

    msgspec.json.Decoder(kind)  # refuses what could never be converted

    def convert(value: object) -> Any:
        try:
            return msgspec.convert(value, kind, str_keys=True, dec_hook=_validate)
        except msgspec.ValidationError as refused:
            raise error(f"{where}: {refused}") from refused

    return convert


def to_json(value: object, where: str) -> Any:
    """Convert an object with typed fields to JSON, which `converter` of its type takes.

    Raises:
        TypeError: JSON has no form for the type of one of its values.
        ValueError: a field of a model has a value of another type.
    """
    import msgspec  # noqa: PLC0415

    try:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            # msgspec leaves out a default that the instance has of its class.
            value = dataclasses.asdict(value)
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_dump)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from error
    except ValueError as error:  # of a model
        raise ValueError(f"{where}: {error}") from error


def _is_model(kind: type) -> bool:
    """Whether it is a pydantic model, without importing pydantic."""
    return hasattr(kind, "model_validate") and hasattr(kind, "model_fields")


def _dump(value: Any) -> object:
    """Convert an object that msgspec does not know."""
    if not _is_model(type(value)):
        raise TypeError(f"{type(value).__name__} is not a type that JSON can hold")
    return value.model_dump(mode="json", by_alias=True, warnings="error")


def _validate(kind: Any, value: object) -> object:
    """Convert to a type that msgspec does not know."""
    if not _is_model(kind):
        raise TypeError(f"{kind.__name__} is not a type that JSON can be converted to")
    try:
        # Of Python's values a strict model takes no text for a time.
        return kind.model_validate_json(json.dumps(value))
    except ValueError as error:
        raise ValueError(_model_errors(error)) from error


def _model_errors(error: Any) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
