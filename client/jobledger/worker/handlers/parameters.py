"""Typed parameters: a job's parameters as a dataclass, a msgspec.Struct or a pydantic model.

A handler names the type: `async def render(job: ClaimedJob, params: RenderParams)`.
"""

from collections.abc import Callable
from typing import Any

from jobledger.core import typed_values


class InvalidParameters(ValueError):
    """The parameters do not fit the handler's type: the job is FAILED / INVALID_PARAMETERS."""


def converter(kind: Any) -> Callable[[object], Any]:
    """Return what converts a job's parameters to a type; it raises InvalidParameters.

    Raises:
        TypeError: msgspec cannot convert to the type.
    """
    return typed_values.converter(kind, "parameters", InvalidParameters)
