"""Typed parameters: a job's parameters as a dataclass, a msgspec.Struct or a pydantic model.

A handler names the type: `async def render(job: ClaimedJob, params: RenderParams)`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


class InvalidParameters(ValueError):
    """The parameters do not fit the handler's type: the job is FAILED / INVALID_PARAMETERS."""


def is_parameters_type(kind: object) -> bool:
    """Whether a handler can have its parameters as this type."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or hasattr(kind, "__struct_fields__") or _is_model(kind)
    )


def converter(kind: Any) -> Callable[[object], Any]:
    """Return what converts a job's parameters to a type; it raises InvalidParameters.

    Raises:
        TypeError: msgspec cannot convert to the type.
    """
    # A worker without typed parameters does not load it.
    import msgspec  # noqa: PLC0415

    msgspec.json.Decoder(kind)  # refuses what could never be converted

    def convert(value: object) -> Any:
        try:
            return msgspec.convert(value, kind, str_keys=True, dec_hook=_validate)
        except msgspec.ValidationError as error:
            raise InvalidParameters(f"parameters: {error}") from error

    return convert


def _is_model(kind: type) -> bool:
    """Whether it is a pydantic model, without importing pydantic."""
    return hasattr(kind, "model_validate") and hasattr(kind, "model_fields")


def _validate(kind: Any, value: object) -> object:
    """Convert to a type that msgspec does not know."""
    if not _is_model(kind):
        raise TypeError(f"{kind.__name__} is not a type that JSON can be converted to")
    try:
        return kind.model_validate(value)
    except ValueError as error:
        raise ValueError(_model_errors(error)) from error


def _model_errors(error: Any) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
